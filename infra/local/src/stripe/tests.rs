//! The simulator as its client, its payer and its webhook endpoint see it.

use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use jiff::{SignedDuration, ToSpan};
use serde_json::json;

use super::*;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

mod charges;
mod pages;
mod requests;
mod subscriptions;
mod webhooks;

use super::card::ChargeOutcome;

const KEY: &str = "sk_test_0123456789";
const SECRET: &str = "whsec_simulated";

struct Rig {
    stripe: StripeSimulator,
    client: reqwest::Client,
}

/// A response.
#[derive(Debug)]
struct Answer {
    status: u16,
    replayed: bool,
    body: Value,
}

impl Answer {
    /// Error type, code and decline code.
    fn error(&self) -> (&str, &str, &str) {
        let text = |name: &str| self.body["error"][name].as_str().unwrap_or_default();
        (text("type"), text("code"), text("decline_code"))
    }

    fn id(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body["id"].as_str().unwrap().to_owned()
    }
}

fn start_of_2026() -> Timestamp {
    "2026-01-31T12:00:00Z".parse().unwrap()
}

impl Rig {
    async fn start() -> Self {
        let stripe = StripeSimulator::start(Clock::system(), false).await.unwrap();
        stripe.set_api_key(KEY);
        stripe.set_time(start_of_2026());
        let redirects = reqwest::redirect::Policy::none();
        let client = reqwest::Client::builder().redirect(redirects).build();
        Self { stripe, client: client.unwrap() }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.stripe.base_url())
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        form: &[(&str, &str)],
    ) -> reqwest::RequestBuilder {
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(form);
        self.client
            .request(method, self.url(path))
            .bearer_auth(KEY)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body.finish())
    }

    async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path, &[])).await.unwrap()
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        answer(self.request(Method::POST, path, form)).await.unwrap()
    }

    /// `None` if the connection was closed.
    async fn keyed(&self, key: &str, path: &str, form: &[(&str, &str)]) -> Option<Answer> {
        let request = self.request(Method::POST, path, form);
        answer(request.header("idempotency-key", key)).await
    }

    async fn customer(&self) -> String {
        self.post("/v1/customers", &[("email", "a@example.com")]).await.id()
    }

    /// An unconfirmed PaymentIntent of 500 cents, for a new customer with this card.
    async fn intent(&self, card: Card) -> (String, String) {
        let customer = self.customer().await;
        let method = self.stripe.add_method(Some(customer.clone()), card);
        let form = [
            ("amount", "500"),
            ("currency", "usd"),
            ("customer", &customer),
            ("payment_method", &method),
            ("metadata[period]", "2"),
        ];
        (self.post("/v1/payment_intents", &form).await.id(), method)
    }

    async fn confirm(&self, intent: &str, method: &str, key: &str) -> Option<Answer> {
        let path = format!("/v1/payment_intents/{intent}/confirm");
        let form = [("off_session", "true"), ("payment_method", method)];
        self.keyed(key, &path, &form).await
    }

    async fn paid_intent(&self) -> String {
        let (intent, method) = self.intent(Card::Succeeds).await;
        let paid = self.confirm(&intent, &method, &intent).await.unwrap();
        assert_eq!(paid.body["status"], "succeeded");
        intent
    }

    async fn session(&self, mode: &str, extra: &[(&str, &str)]) -> Answer {
        let mut form = vec![
            ("mode", mode),
            ("success_url", "http://shop.test/ok?id={CHECKOUT_SESSION_ID}"),
            ("cancel_url", "http://shop.test/no?a=1&b=2"),
            ("client_reference_id", "order-1"),
        ];
        let price = "line_items[0][price_data]";
        let names = ["[currency]", "[unit_amount]", "[product_data][name]"];
        let names = names.map(|name| format!("{price}{name}"));
        let interval = format!("{price}[recurring][interval]");
        if mode == "setup" {
            form.push(("currency", "usd"));
        } else {
            form.extend([
                (names[0].as_str(), "usd"),
                (&names[1], "250"),
                (&names[2], "Add-on <b>&"),
                ("line_items[0][quantity]", "2"),
            ]);
        }
        if mode == "subscription" {
            form.push((&interval, "month"));
        }
        form.extend(extra);
        self.post("/v1/checkout/sessions", &form).await
    }

    /// A page's status, `Location` and text.
    async fn page(&self, method: Method, path: &str, body: &str) -> (u16, String, String) {
        let request = self.client.request(method, self.url(path));
        let answer = request.body(body.to_owned()).send().await.unwrap();
        let location = answer.headers().get("location");
        let location = location.map_or("", |it| it.to_str().unwrap()).to_owned();
        let status = answer.status().as_u16();
        (status, location, answer.text().await.unwrap())
    }

    fn kinds(&self) -> Vec<&'static str> {
        let events = self.stripe.webhooks.events();
        self.stripe.webhooks.forget_events();
        events.iter().map(|event| event.kind).collect()
    }

    /// Begins the subscription's next period, or retries a due one, with this outcome.
    fn collect(&self, subscription: &str, outcome: ChargeOutcome) -> Result<(), NotPossible> {
        self.stripe.act(|state| super::subscriptions::collect(state, subscription, outcome))
    }

    fn later(&self, by: SignedDuration) {
        let now = self.stripe.act(|state| state.now);
        self.stripe.set_time(now + by);
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Option<Answer> {
    let answer = request.send().await.ok()?;
    let replayed = answer.headers().get("idempotent-replayed");
    let replayed = replayed.is_some_and(|value| value == "true");
    let status = answer.status().as_u16();
    let body = answer.bytes().await.ok()?;
    let body = serde_json::from_slice(&body).unwrap();
    Some(Answer { status, replayed, body })
}

#[test]
fn the_state_is_deterministic() {
    let run = || {
        let mut state = StripeState::new("http://stripe.test", false);
        state.now = start_of_2026();
        let mut replies = Vec::new();
        let mut call = |state: &mut StripeState, path: &str, form: &[(&str, &str)]| {
            let mut body = url::form_urlencoded::Serializer::new(String::new());
            body.extend_pairs(form);
            let request = ApiRequest {
                method: Method::POST,
                path: path.to_owned(),
                api_key: Some(KEY.to_owned()),
                idempotency_key: Some(format!("{path}{}", replies.len())),
                params: Params::parse(body.finish().as_bytes()),
            };
            assert_eq!(api::begin(state, &request), None);
            replies.push(api::execute(state, &request));
            let body: Value = serde_json::from_str(&replies[replies.len() - 1].body).unwrap();
            body["id"].as_str().unwrap_or_default().to_owned()
        };
        let customer = call(&mut state, "/v1/customers", &[]);
        let method = state.add_method(Some(customer.clone()), Card::Succeeds);
        for month in 0..24_i32 {
            state.now = state
                .now
                .to_zoned(jiff::tz::TimeZone::UTC)
                .saturating_add(month.months())
                .timestamp();
            let form = [
                ("amount", "500"),
                ("currency", "usd"),
                ("customer", &customer),
                ("payment_method", &method),
            ];
            let intent = call(&mut state, "/v1/payment_intents", &form);
            call(&mut state, &format!("/v1/payment_intents/{intent}/confirm"), &[]);
        }
        assert_eq!(state.payments().len(), 24);
        (replies, state.take_events())
    };
    assert_eq!(run(), run());
    assert_eq!(run().1[0].object, "pi_000001");
}

#[tokio::test]
async fn the_system_starts_a_simulator_unless_another_url_is_set() {
    use crate::system::{Options, System};
    let system = System::start(Options::default()).await.unwrap();
    let url = system.stripe.as_ref().unwrap().base_url();
    assert_eq!(system.settings["STRIPE_API_BASE_URL"], url);
    let client = reqwest::Client::new();
    let get = || client.get(format!("{url}/v1/customers/cus_9")).bearer_auth(KEY);
    assert_eq!(get().send().await.unwrap().status(), 404);
    system.stop().await;
    assert!(get().send().await.is_err());

    let mut options = Options::default();
    let elsewhere = ("STRIPE_API_BASE_URL", "https://api.stripe.com");
    options.settings.insert(elsewhere.0.to_owned(), elsewhere.1.to_owned());
    let system = System::start(options).await.unwrap();
    assert!(system.stripe.is_none());
    assert_eq!(system.settings[elsewhere.0], elsewhere.1);
    system.stop().await;
}
