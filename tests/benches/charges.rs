//! The cost of the monthly charge: due accounts are queued and charged, and Stripe's webhooks
//! applied, against the embedded engine. Prints tables, and fails unless each account was charged
//! once.
//!
//! `cargo bench --package tests --bench charges --profile simulation -- [ACCOUNTS] [REQUESTS A
//! SECOND]`, by default 100,000 accounts and the highest rate limit that can be set.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::float_arithmetic,
    reason = "a measurement that cannot go on stops with a message"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use account::{AccountId, AddOnStatus};
use aws_sdk_dynamodb::types::AttributeValue::{self, S};
use aws_sdk_dynamodb::types::{PutRequest, WriteRequest};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use axum::Router;
use axum::body::Body;
use futures_util::{StreamExt as _, stream};
use http::Request;
use http_body_util::BodyExt as _;
use jiff::SignedDuration;
use local::accounts::{AccountChange, change_account};
use local::queue::Drained;
use local::stripe::Delivery;
use local::system::{Options, System};
use serde_json::{Value, json};
use tower::ServiceExt as _;

const WEBHOOK_PATH: &str = "/v1/webhooks/stripe";

/// How long payments with an unknown outcome are followed.
const FOLLOWED: SignedDuration = SignedDuration::from_hours(2);

#[tokio::main]
async fn main() {
    // `cargo test --all-targets` builds this and asks it for its tests: it has none.
    if std::env::args().any(|argument| argument == "--test" || argument == "--list") {
        return;
    }
    let mut numbers = std::env::args().filter_map(|argument| argument.parse().ok());
    let accounts: u32 = numbers.next().unwrap_or(100_000);
    let rate: u32 = numbers.next().unwrap_or(10_000);
    let system = System::start(Options::default()).await.unwrap();
    let stripe = system.stripe.as_ref().unwrap();
    // Webhooks are delivered once everything is charged.
    stripe.webhooks.set_delivery(Delivery::Hold);
    let due = create_accounts(&system, accounts).await;
    let time = due + SignedDuration::from_mins(1);

    let meter = Meter::default();
    let deps = deps(&system, &meter, rate);
    println!("| step | accounts | time | accounts a second |\n|---|--:|--:|--:|");
    let began = Instant::now();
    let mut queued = 0;
    while queued < accounts {
        let report = monthly_charge::tick(&deps, time, |_| false).await;
        assert_eq!(report.errors, 0);
        assert!(report.queued > 0, "{queued} of {accounts}");
        queued += report.queued;
    }
    print_speed("queueing", accounts, began.elapsed());
    let queueing = meter.take();
    let began = Instant::now();
    let Drained { report, dead_letters } = system.queue.consumer.drain(&deps).await;
    print_speed("charging", accounts, began.elapsed());
    let (mut charged, mut later) = (report.charged, time);
    // If Stripe did not respond in time, as on a busy machine, the outcome is looked up.
    if charged < accounts {
        println!("{} outcomes were not known at first", accounts - charged);
    }
    while charged < accounts && later < time + FOLLOWED {
        later += SignedDuration::from_mins(5);
        monthly_charge::tick(&deps, later, |_| false).await;
        charged += system.queue.consumer.drain(&deps).await.report.charged;
    }
    assert_eq!((charged, dead_letters), (accounts, 0));
    let charging = meter.take();
    let events = stripe.webhooks.take_held();
    let delivered = u32::try_from(events.len()).unwrap();
    let webhook = webhook(&system, &meter);
    let began = Instant::now();
    let applied = stream::iter(events).for_each_concurrent(10, async |event| {
        let request = Request::post(WEBHOOK_PATH)
            .header("stripe-signature", stripe.webhooks.signature(&event).unwrap())
            .body(Body::from(event.body))
            .unwrap();
        let response = webhook.clone().oneshot(request).await.unwrap();
        assert!(response.status().is_success());
    });
    applied.await;
    print_speed("webhooks, 10 at once", delivered, began.elapsed());
    let webhooks = meter.take();
    let payments = stripe.payments();
    let objects: BTreeSet<_> = payments.iter().map(|payment| &payment.intent).collect();
    let charged = (payments.len(), objects.len());
    let everyone = usize::try_from(accounts).unwrap();
    assert_eq!(charged, (everyone, everyone), "each once");

    println!(
        "\n| step | requests an account | | read units | write units |\n|---|---|--:|--:|--:|"
    );
    print_costs("queueing", accounts, &queueing);
    print_costs("charging", accounts, &charging);
    print_costs("a webhook", delivered, &webhooks);
    let mut requests = BTreeMap::<_, u32>::new();
    for request in stripe.seen() {
        let parts = request.path.split('/').map(|part| match part {
            id if id.starts_with("pi_") => "{id}",
            part => part,
        });
        let path = parts.collect::<Vec<_>>().join("/");
        *requests.entry(format!("{} {path}", request.method)).or_default() += 1;
    }
    for (name, count) in requests {
        println!("| charging | {name} | {} | | |", per(count.into(), accounts));
    }
    system.stop().await;
}

fn print_speed(step: &str, accounts: u32, time: Duration) {
    let rate = f64::from(accounts) / time.as_secs_f64();
    println!("| {step} | {accounts} | {:.1} s | {rate:.0} |", time.as_secs_f64());
}

fn per(count: f64, accounts: u32) -> String {
    format!("{:.3}", count / f64::from(accounts))
}

fn print_costs(step: &str, accounts: u32, costs: &BTreeMap<String, Cost>) {
    for (name, cost) in costs {
        println!(
            "| {step} | {name} | {} | {} | {} |",
            per(cost.requests, accounts),
            per(cost.read_units, accounts),
            per(cost.write_units, accounts)
        );
    }
}

/// Copies one account that is due within a month; returns when it is due.
async fn create_accounts(system: &System, accounts: u32) -> jiff::Timestamp {
    let (id, now) = (AccountId::new("template").unwrap(), system.clock.now());
    let stripe = system.stripe.as_deref();
    let change = AccountChange { add_on: Some(AddOnStatus::Active), ..AccountChange::default() };
    let created = change_account(&system.store, stripe, &id, change, now).await;
    let due = billing::due_at(&created.unwrap().profile).unwrap();
    let (client, table) = (system.engines.dynamodb(), &system.tables.accounts);
    let key = [("account_id", "template"), ("item", "account")];
    let key = HashMap::from(key.map(|(name, value)| (name.to_owned(), S(value.to_owned()))));
    let read = client.get_item().table_name(table).set_key(Some(key.clone()));
    let template = read.send().await.unwrap().item.unwrap();
    let delete = client.delete_item().table_name(table).set_key(Some(key));
    delete.send().await.unwrap();
    let items: Vec<_> = (0..accounts).flat_map(|at| copies(&template, at)).collect();
    for items in items.chunks(24) {
        let put = |item: &Item| {
            let put = PutRequest::builder().set_item(Some(item.clone()));
            WriteRequest::builder().put_request(put.build().unwrap()).build()
        };
        let write = client.batch_write_item();
        let write = write.request_items(table, items.iter().map(put).collect());
        write.send().await.unwrap();
    }
    due
}

type Item = HashMap<String, AttributeValue>;

/// An account, and the item that leads from its number to it.
fn copies(template: &Item, at: u32) -> [Item; 2] {
    let (id, number) = (format!("account-{at}"), format!("number-{at}"));
    let shard = store::shard_of(&id);
    let changed = |item: &Item, changes: &[(&str, &str)]| {
        let mut item = item.clone();
        for (name, value) in changes {
            item.insert((*name).to_owned(), S((*value).to_owned()));
        }
        item
    };
    let shard = format!("billing#{shard}");
    let own = [("account_id", id.as_str()), ("account_number", &number), ("due_shard", &shard)];
    let number_item = [("account_id", number.as_str()), ("item", "number"), ("id", &id)];
    [changed(template, &own), changed(&Item::new(), &number_item)]
}

fn deps(system: &System, meter: &Meter, rate: u32) -> monthly_charge::Deps {
    let rate = ("STRIPE_REQUESTS_PER_SECOND".to_owned(), rate.to_string());
    monthly_charge::Deps::new(setup(system, meter, Some(rate))).unwrap()
}

fn webhook(system: &System, meter: &Meter) -> Router {
    let deps = subscription_webhook::Deps::new(setup(system, meter, None));
    subscription_webhook::router(deps.unwrap())
}

fn setup(system: &System, meter: &Meter, more: Option<(String, String)>) -> edge::Setup {
    edge::Setup {
        env: edge::Env::from_pairs(system.settings.clone()).with(more),
        clock: system.clock.clone(),
        aws: system.aws_config().into_builder().http_client(meter.http()).build(),
    }
}

/// Carries requests to AWS and counts them, with the capacity that the engine reports.
#[derive(Debug, Clone)]
struct Meter {
    connector: SharedHttpConnector,
    costs: Arc<Mutex<BTreeMap<String, Cost>>>,
}

#[derive(Debug, Default)]
struct Cost {
    requests: f64,
    read_units: f64,
    write_units: f64,
}

impl Default for Meter {
    fn default() -> Self {
        Self { connector: local::engines::connector(), costs: Arc::default() }
    }
}

impl HttpConnector for Meter {
    fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
        let meter = self.clone();
        HttpConnectorFuture::new(async move {
            let target = request.headers().get("x-amz-target").unwrap_or_default();
            let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
            let is_of_tables = target.starts_with("DynamoDB");
            let body = request.body().bytes().unwrap_or_default();
            if is_of_tables {
                let mut body: Value = serde_json::from_slice(body).unwrap();
                body["ReturnConsumedCapacity"] = json!("TOTAL");
                *request.body_mut() = SdkBody::from(body.to_string());
                request.headers_mut().remove("content-length");
            }
            let mut answer = meter.connector.call(request).await?;
            let body = answer.take_body().collect().await;
            let body = body.map_err(ConnectorError::io)?.to_bytes();
            let is_refused = answer.status().as_u16() == 400;
            meter.count(&operation, is_refused, &body);
            *answer.body_mut() = SdkBody::from(body);
            Ok(answer)
        })
    }
}

impl Meter {
    fn http(&self) -> SharedHttpClient {
        let meter = self.clone();
        http_client_fn(move |_, _| SharedHttpConnector::new(meter.clone()))
    }

    fn take(&self) -> BTreeMap<String, Cost> {
        std::mem::take(&mut self.costs.lock().unwrap())
    }

    fn count(&self, operation: &str, is_refused: bool, answer: &[u8]) {
        let name = if is_refused { format!("{operation} (refused)") } else { operation.to_owned() };
        let answer: Value = serde_json::from_slice(answer).unwrap();
        let mut costs = self.costs.lock().unwrap();
        let cost = costs.entry(name).or_default();
        cost.requests += 1.0;
        let consumed = &answer["ConsumedCapacity"];
        let tables = consumed.as_array().cloned();
        for table in tables.unwrap_or_else(|| vec![consumed.clone()]) {
            let units = table["CapacityUnits"].as_f64().unwrap_or_default();
            match operation {
                "GetItem" | "Query" => cost.read_units += units,
                _ => cost.write_units += units,
            }
        }
        // DynamoDB bills a failed condition like a write.
        cost.write_units += f64::from(u8::from(is_refused));
    }
}
