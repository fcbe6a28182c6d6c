//! The provider as its client, its payer and its webhook see it.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use jiff::{SignedDuration, ToSpan};
use serde_json::json;

use super::*;

const KEY: &str = "sk_test_0123456789";
const SECRET: &str = "whsec_simulated";

struct Rig {
    provider: PaymentProvider,
    client: reqwest::Client,
}

/// An answer as it arrived.
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
        let options = ProviderOptions {
            api_key: Some(KEY.to_owned()),
            ..ProviderOptions::default()
        };
        let provider = PaymentProvider::start(options).await.unwrap();
        provider.set_time(start_of_2026());
        let redirects = reqwest::redirect::Policy::none();
        let client = reqwest::Client::builder().redirect(redirects).build();
        Self {
            provider,
            client: client.unwrap(),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.provider.base_url())
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
        answer(self.request(Method::POST, path, form))
            .await
            .unwrap()
    }

    /// `None`: the connection was closed.
    async fn keyed(&self, key: &str, path: &str, form: &[(&str, &str)]) -> Option<Answer> {
        let request = self.request(Method::POST, path, form);
        answer(request.header("idempotency-key", key)).await
    }

    async fn customer(&self) -> String {
        self.post("/v1/customers", &[("email", "a@example.com")])
            .await
            .id()
    }

    /// An unconfirmed intent over 500 cents of a new customer with such a card.
    async fn intent(&self, card: Card) -> (String, String) {
        let customer = self.customer().await;
        let method = self.provider.add_card(&customer, card).unwrap();
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
            (
                "success_url",
                "http://shop.test/ok?id={CHECKOUT_SESSION_ID}",
            ),
            ("cancel_url", "http://shop.test/no?a=1&b=2"),
            ("client_reference_id", "order-1"),
            ("metadata[order]", "1"),
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

    /// A page's status, where it leads to, and its text.
    async fn page(&self, method: Method, path: &str, body: &str) -> (u16, String, String) {
        let request = self.client.request(method, self.url(path));
        let answer = request.body(body.to_owned()).send().await.unwrap();
        let location = answer.headers().get("location");
        let location = location.map_or("", |it| it.to_str().unwrap()).to_owned();
        let status = answer.status().as_u16();
        (status, location, answer.text().await.unwrap())
    }

    fn kinds(&self) -> Vec<&'static str> {
        let events = self.provider.events();
        self.provider.forget_events();
        events.iter().map(|event| event.kind).collect()
    }

    fn later(&self, by: SignedDuration) {
        let now = self.provider.act(|_, now| now);
        self.provider.set_time(now + by);
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Option<Answer> {
    let answer = request.send().await.ok()?;
    let replayed = answer.headers().get("idempotent-replayed");
    let replayed = replayed.is_some_and(|value| value == "true");
    let status = answer.status().as_u16();
    let body = answer.bytes().await.ok()?;
    let body = serde_json::from_slice(&body).unwrap();
    Some(Answer {
        status,
        replayed,
        body,
    })
}

#[tokio::test]
async fn only_the_key_it_was_made_with_opens_it() {
    let rig = Rig::start().await;
    let id = rig.customer().await;
    let url = rig.url(&format!("/v1/customers/{id}"));
    let get = || rig.client.get(&url);
    for (request, status) in [
        (get(), 401),
        (get().bearer_auth("sk_test_other"), 401),
        (get().bearer_auth(KEY), 200),
        (get().basic_auth(KEY, Some("")), 200),
    ] {
        assert_eq!(answer(request).await.unwrap().status, status);
    }
    assert_eq!(rig.get("/v1/customers/cus_9").await.status, 404);
    assert_eq!(rig.get("/v1/nothing").await.status, 404);
}

#[tokio::test]
async fn parameters_are_checked() {
    let rig = Rig::start().await;
    let usd = ("currency", "usd");
    let table = [
        (vec![usd], "parameter_missing", "amount"),
        (
            vec![usd, ("amount", "500"), ("amonut", "5")],
            "parameter_unknown",
            "amonut",
        ),
        (vec![usd, ("amount", "49")], "amount_too_small", "amount"),
        (vec![usd, ("amount", "five")], "", "amount"),
        (
            vec![usd, ("amount", "500"), ("customer", "cus_9")],
            "resource_missing",
            "customer",
        ),
    ];
    for (form, code, parameter) in table {
        let answer = rig.post("/v1/payment_intents", &form).await;
        assert_eq!((answer.status, answer.error().1), (400, code), "{form:?}");
        assert_eq!(answer.body["error"]["param"], parameter);
    }

    // Also what is to be shown is checked before anything is done.
    let (intent, _) = rig.intent(Card::Succeeds).await;
    let confirm = format!("/v1/payment_intents/{intent}/confirm");
    assert_eq!(
        rig.post(&confirm, &[("expand[]", "last_charge")])
            .await
            .status,
        400
    );
    assert!(rig.provider.payments().is_empty());
    let paid = rig
        .post(&confirm, &[("expand[]", "latest_charge.customer")])
        .await;
    assert_eq!(
        paid.body["latest_charge"]["customer"]["email"],
        "a@example.com"
    );
}

#[tokio::test]
async fn a_session_is_paid_once_on_its_page() {
    let rig = Rig::start().await;
    let customer = rig.customer().await;
    let more = [
        ("customer", customer.as_str()),
        ("payment_intent_data[setup_future_usage]", "off_session"),
        ("payment_intent_data[metadata][order]", "1"),
    ];
    let session = rig.session("payment", &more).await;
    let id = session.id();
    let day = start_of_2026() + SignedDuration::from_hours(24);
    let page = format!("/checkout/{id}");
    for (name, value) in [
        ("status", json!("open")),
        ("payment_status", json!("unpaid")),
        ("amount_total", json!(500)),
        ("currency", json!("usd")),
        ("customer", json!(customer)),
        ("client_reference_id", json!("order-1")),
        ("metadata", json!({"order": "1"})),
        ("expires_at", json!(day.as_second())),
        ("payment_intent", Value::Null),
        ("url", json!(rig.url(&page))),
    ] {
        assert_eq!(session.body[name], value, "{name}");
    }

    let (status, _, html) = rig.page(Method::GET, &page, "").await;
    assert_eq!(status, 200);
    for text in [
        "Add-on &lt;b&gt;&amp;",
        "5.00 USD",
        "Pay</button>",
        "Decline</button>",
        "http://shop.test/no?a=1&amp;b=2",
        "<option value=\"declines_hard\">",
    ] {
        assert!(html.contains(text), "{text} in {html}");
    }
    let (status, _, html) = rig.page(Method::POST, &format!("{page}/decline"), "").await;
    assert_eq!(status, 402);
    assert!(html.contains("insufficient funds") && html.contains("Pay</button>"));
    let pay = format!("{page}/pay");
    let (status, _, html) = rig.page(Method::POST, &pay, "card=declines_hard").await;
    assert!(status == 402 && html.contains("Your card was declined."));
    let (status, location, _) = rig.page(Method::POST, &pay, "card=succeeds").await;
    assert_eq!(status, 303);
    assert_eq!(location, format!("http://shop.test/ok?id={id}"));
    let (status, location, html) = rig.page(Method::POST, &pay, "card=succeeds").await;
    assert_eq!((status, location.as_str()), (409, ""));
    assert!(html.contains("paid already"));

    let path = format!("/v1/checkout/sessions/{id}?expand[]=payment_intent.latest_charge");
    let paid = rig.get(&path).await.body;
    let shown = ["status", "payment_status", "url"].map(|name| paid[name].clone());
    assert_eq!(shown, [json!("complete"), json!("paid"), Value::Null]);
    let intent = &paid["payment_intent"];
    assert_eq!(intent["metadata"]["order"], "1");
    assert_eq!(
        intent["latest_charge"]["created"],
        start_of_2026().as_second()
    );
    let kinds = rig.kinds();
    let expected = [
        "payment_intent.payment_failed",
        "payment_intent.payment_failed",
        "payment_intent.succeeded",
        "checkout.session.completed",
    ];
    assert_eq!(kinds, expected);
    // What is paid does not expire.
    let paid_at = start_of_2026();
    rig.later(SignedDuration::from_hours(25));
    assert_eq!(rig.kinds(), [""; 0]);

    let payment = Payment {
        intent: intent["id"].as_str().unwrap().to_owned(),
        customer: Some(customer.clone()),
        amount: 500,
        currency: "usd".to_owned(),
        metadata: [("order".to_owned(), "1".to_owned())].into(),
        at: paid_at,
        refunded: 0,
        disputed: false,
    };
    assert_eq!(rig.provider.payments(), [payment]);
    assert_eq!(rig.page(Method::GET, "/checkout/cs_9", "").await.0, 404);
}

#[tokio::test]
async fn a_card_can_be_charged_later_only_if_it_was_kept() {
    let rig = Rig::start().await;
    let customer = rig.customer().await;
    let keep = ("payment_intent_data[setup_future_usage]", "off_session");
    for (mode, more, kept) in [
        ("payment", vec![], false),
        ("payment", vec![keep], true),
        ("setup", vec![], true),
    ] {
        let more = [more, vec![("customer", customer.as_str())]].concat();
        let session = rig.session(mode, &more).await.id();
        rig.provider.pay(&session, Card::Succeeds).unwrap();
        let expand = if mode == "setup" {
            "setup_intent"
        } else {
            "payment_intent"
        };
        let path = format!("/v1/checkout/sessions/{session}?expand[]={expand}");
        let session = rig.get(&path).await.body;
        let method = session[expand]["payment_method"].as_str().unwrap();
        let form = [
            ("amount", "500"),
            ("currency", "usd"),
            ("customer", &customer),
            ("payment_method", method),
        ];
        let intent = rig.post("/v1/payment_intents", &form).await;
        assert_eq!(intent.status, if kept { 200 } else { 400 }, "{mode}");
        if mode == "setup" {
            assert_eq!(session["payment_status"], "no_payment_required");
            let id = session["setup_intent"]["id"].as_str().unwrap();
            let setup = rig.get(&format!("/v1/setup_intents/{id}")).await;
            assert_eq!(setup.body["status"], "succeeded");
        }
    }
}

#[tokio::test]
async fn an_open_session_expires_when_asked_or_in_time() {
    let rig = Rig::start().await;
    let asked = rig.session("payment", &[]).await.id();
    rig.provider.decline(&asked).unwrap_err();
    let expire = format!("/v1/checkout/sessions/{asked}/expire");
    let expired = rig.post(&expire, &[]).await;
    assert_eq!(expired.body["status"], "expired");
    assert_eq!(rig.post(&expire, &[]).await.status, 400);
    let expected = [
        "payment_intent.payment_failed",
        "payment_intent.canceled",
        "checkout.session.expired",
    ];
    assert_eq!(rig.kinds(), expected);

    let now = start_of_2026().as_second();
    for (after, status) in [(1799, 400), (1800, 200), (86_400, 200), (86_401, 400)] {
        let at = (now + after).to_string();
        let made = rig.session("payment", &[("expires_at", &at)]).await;
        assert_eq!(made.status, status, "{after}");
    }
    rig.later(SignedDuration::from_secs(1799));
    assert_eq!(rig.kinds(), [""; 0]);
    rig.later(SignedDuration::from_secs(1));
    assert_eq!(rig.kinds(), ["checkout.session.expired"]);

    let late = rig.session("payment", &[]).await.id();
    rig.later(SignedDuration::from_hours(24));
    assert_eq!(
        rig.provider.pay(&late, Card::Succeeds),
        Err(PayError::Expired)
    );
    let page = rig
        .page(Method::GET, &format!("/checkout/{late}"), "")
        .await;
    assert!(page.2.contains("has expired"));
    assert!(rig.provider.payments().is_empty());
}

#[tokio::test]
async fn a_confirmation_ends_as_the_card_does() {
    let rig = Rig::start().await;
    let table = [
        (Card::Succeeds, 200, "", "", "succeeded"),
        (
            Card::DeclinesSoftly,
            402,
            "card_declined",
            "insufficient_funds",
            "requires_payment_method",
        ),
        (
            Card::DeclinesLater,
            402,
            "card_declined",
            "insufficient_funds",
            "requires_payment_method",
        ),
        (
            Card::DeclinesHard,
            402,
            "card_declined",
            "lost_card",
            "requires_payment_method",
        ),
        (
            Card::NeedsAuthentication,
            402,
            "authentication_required",
            "authentication_required",
            "requires_payment_method",
        ),
        (Card::Processing, 200, "", "", "processing"),
    ];
    for (card, status, code, decline, ends) in table {
        let (intent, method) = rig.intent(card).await;
        let path = format!("/v1/payment_intents/{intent}");
        assert_eq!(rig.get(&path).await.body["status"], "requires_confirmation");
        let answer = rig.confirm(&intent, &method, &intent).await.unwrap();
        assert_eq!(answer.status, status, "{card}");
        let shown = rig
            .get(&format!("{path}?expand[]=latest_charge"))
            .await
            .body;
        assert_eq!(shown["status"], ends, "{card}");
        if status == 402 {
            assert_eq!(answer.error(), ("card_error", code, decline));
            assert_eq!(answer.body["error"]["payment_intent"]["id"], *intent);
            assert_eq!(shown["last_payment_error"]["decline_code"], decline);
            assert_eq!(shown["payment_method"], Value::Null);
            assert_eq!(shown["latest_charge"]["status"], "failed");
        }
    }
    let (succeeded, failed) = ("payment_intent.succeeded", "payment_intent.payment_failed");
    let processing = "payment_intent.processing";
    assert_eq!(
        rig.kinds(),
        [succeeded, failed, failed, failed, failed, processing]
    );
    assert_eq!(rig.provider.payments().len(), 1);
}

#[tokio::test]
async fn attempts_follow_a_script_and_then_the_card() {
    let rig = Rig::start().await;
    let (intent, method) = rig.intent(Card::Succeeds).await;
    let customer = rig.provider.object(&intent).unwrap()["customer"].clone();
    let customer = customer.as_str().unwrap();
    rig.provider.set_card(customer, Card::DeclinesHard);
    rig.provider.script(
        customer,
        &[Card::DeclinesSoftly, Card::TimesOutBeforeCharging],
    );
    let mut declines = Vec::new();
    for attempt in ["1", "2", "2", "3"] {
        if attempt == "3" {
            rig.provider.set_card(customer, Card::Succeeds);
        }
        let answer = rig.confirm(&intent, &method, attempt).await;
        declines.push(answer.map(|answer| answer.error().2.to_owned()));
    }
    let expected = [
        Some("insufficient_funds"),
        None,
        Some("lost_card"),
        Some(""),
    ];
    assert_eq!(declines, expected.map(|it| it.map(str::to_owned)));
    let keys: Vec<_> = rig
        .provider
        .seen()
        .into_iter()
        .map(|it| it.idempotency_key)
        .collect();
    let sent = ["1", "2", "2", "3"].map(|key| Some(key.to_owned()));
    assert_eq!(keys[keys.len() - 4..], sent);
}

#[tokio::test]
async fn an_answer_that_was_lost_is_the_replay_s_answer() {
    let rig = Rig::start().await;
    for (card, status, ends) in [
        (Card::TimesOutAfterCharging, 200, "succeeded"),
        (Card::TimesOutAfterDeclining, 402, "requires_payment_method"),
    ] {
        let (intent, method) = rig.intent(card).await;
        assert!(rig.confirm(&intent, &method, &intent).await.is_none());
        let path = format!("/v1/payment_intents/{intent}");
        assert_eq!(rig.get(&path).await.body["status"], ends);
        let again = rig.confirm(&intent, &method, &intent).await.unwrap();
        assert_eq!((again.status, again.replayed), (status, true));
    }
    let (intent, method) = rig.intent(Card::TimesOutBeforeCharging).await;
    assert!(rig.confirm(&intent, &method, &intent).await.is_none());
    let path = format!("/v1/payment_intents/{intent}");
    assert_eq!(rig.get(&path).await.body["status"], "requires_confirmation");
    assert_eq!(rig.provider.payments().len(), 1);

    let session = rig.session("payment", &[]).await.id();
    let pay = rig
        .client
        .post(rig.url(&format!("/checkout/{session}/pay")));
    assert!(pay.body("card=charges_silently").send().await.is_err());
    assert_eq!(
        rig.provider.object(&session).unwrap()["payment_status"],
        "paid"
    );
}

#[tokio::test]
async fn what_takes_a_while_ends_when_told() {
    let rig = Rig::start().await;
    for succeeded in [true, false] {
        let (intent, method) = rig.intent(Card::Processing).await;
        rig.confirm(&intent, &method, &intent).await.unwrap();
        let cancel = rig
            .post(&format!("/v1/payment_intents/{intent}/cancel"), &[])
            .await;
        assert_eq!(cancel.error().1, "payment_intent_unexpected_state");
        rig.provider.finish(&intent, succeeded).unwrap();
        rig.provider.finish(&intent, succeeded).unwrap_err();

        let session = rig.session("payment", &[]).await.id();
        rig.provider.pay(&session, Card::Processing).unwrap();
        let shown = rig.provider.object(&session).unwrap();
        assert_eq!(
            (&shown["status"], &shown["payment_status"]),
            (&json!("complete"), &json!("unpaid"))
        );
        rig.kinds();
        let intent = shown["payment_intent"].as_str().unwrap();
        rig.provider.finish(intent, succeeded).unwrap();
        let paid = rig.provider.object(&session).unwrap()["payment_status"] == "paid";
        assert_eq!(paid, succeeded);
        let expected = if succeeded {
            [
                "payment_intent.succeeded",
                "checkout.session.async_payment_succeeded",
            ]
        } else {
            [
                "payment_intent.payment_failed",
                "checkout.session.async_payment_failed",
            ]
        };
        assert_eq!(rig.kinds(), expected);
    }

    let (intent, _) = rig.intent(Card::NeedsAuthentication).await;
    let path = format!("/v1/payment_intents/{intent}/confirm");
    assert_eq!(rig.post(&path, &[]).await.body["status"], "requires_action");
    assert_eq!(rig.kinds(), ["payment_intent.requires_action"]);
    rig.provider.finish(&intent, true).unwrap();
    assert_eq!(rig.provider.object(&intent).unwrap()["status"], "succeeded");
    assert_eq!(rig.provider.payments().len(), 3);
}

#[tokio::test]
async fn an_intent_changes_only_where_its_state_allows() {
    let rig = Rig::start().await;
    let cancel = |id: &str| format!("/v1/payment_intents/{id}/cancel");
    let unexpected = |answer: &Answer| {
        assert_eq!(answer.status, 400);
        assert_eq!(answer.error().1, "payment_intent_unexpected_state");
        assert!(answer.body["error"]["payment_intent"]["status"].is_string());
    };
    let (intent, method) = rig.intent(Card::Succeeds).await;
    let canceled = rig.post(&cancel(&intent), &[]).await;
    assert_eq!(canceled.body["status"], "canceled");
    unexpected(&rig.post(&cancel(&intent), &[]).await);
    unexpected(&rig.confirm(&intent, &method, "late").await.unwrap());
    assert_eq!(rig.kinds(), ["payment_intent.canceled"]);

    let paid = rig.paid_intent().await;
    unexpected(&rig.post(&cancel(&paid), &[]).await);
    unexpected(
        &rig.post(&format!("/v1/payment_intents/{paid}/confirm"), &[])
            .await,
    );

    // After a decline a payment method has to be named again.
    let (declined, method) = rig.intent(Card::DeclinesSoftly).await;
    rig.confirm(&declined, &method, "first").await.unwrap();
    unexpected(
        &rig.post(&format!("/v1/payment_intents/{declined}/confirm"), &[])
            .await,
    );

    let session = rig.session("payment", &[]).await.id();
    rig.provider.decline(&session).unwrap_err();
    let begun = rig.provider.object(&session).unwrap()["payment_intent"].clone();
    let begun = begun.as_str().unwrap();
    let confirm = format!("/v1/payment_intents/{begun}/confirm");
    for path in [cancel(begun), confirm] {
        let refused = rig.post(&path, &[]).await;
        unexpected(&refused);
        let message = refused.body["error"]["message"].as_str().unwrap();
        assert!(message.contains("Checkout Session"), "{message}");
    }
}

#[tokio::test]
async fn money_is_given_back_once() {
    let rig = Rig::start().await;
    let intent = rig.paid_intent().await;
    rig.kinds();
    let refund = |amount: &'static str| {
        let form = [("payment_intent", intent.as_str()), ("amount", amount)];
        let request = rig.request(Method::POST, "/v1/refunds", &form);
        async { answer(request).await.unwrap() }
    };
    let part = refund("200").await;
    assert_eq!(
        (&part.body["status"], &part.body["amount"]),
        (&json!("succeeded"), &json!(200))
    );
    assert_eq!(refund("301").await.status, 400);
    rig.provider.refund_from_outside(&intent, 100).unwrap();
    assert_eq!(refund("").await.body["amount"], 200);
    assert_eq!(refund("").await.error().1, "charge_already_refunded");
    assert_eq!(rig.provider.payments()[0].refunded, 500);
    let told = rig.provider.events();
    let bodies = told.iter().map(|event| {
        assert_eq!(event.kind, "charge.refunded");
        let body: Value = serde_json::from_str(&event.body).unwrap();
        let charge = &body["data"]["object"];
        (
            charge["amount_refunded"].clone(),
            charge["refunded"].clone(),
        )
    });
    let expected = [(200, false), (300, false), (500, true)];
    assert!(bodies.eq(expected.map(|(cents, full)| (json!(cents), json!(full)))));

    let (unpaid, _) = rig.intent(Card::Succeeds).await;
    let refused = rig
        .post("/v1/refunds", &[("payment_intent", &unpaid)])
        .await;
    assert_eq!(refused.status, 400);
}

#[tokio::test]
async fn a_dispute_is_opened_and_decided() {
    let rig = Rig::start().await;
    let intent = rig.paid_intent().await;
    rig.kinds();
    for won in [true, false] {
        let dispute = rig.provider.dispute(&intent).unwrap();
        rig.provider.dispute(&intent).unwrap_err();
        let refund = rig
            .post("/v1/refunds", &[("payment_intent", &intent)])
            .await;
        assert_eq!(refund.error().1, "charge_disputed");
        rig.provider.close_dispute(&dispute, won).unwrap();
        rig.provider.close_dispute(&dispute, won).unwrap_err();
        let shown = rig.provider.object(&dispute).unwrap();
        assert_eq!(shown["status"], if won { "won" } else { "lost" });
        assert_eq!(shown["payment_intent"], *intent);
        assert_eq!(rig.provider.payments()[0].disputed, !won);
        assert_eq!(
            rig.kinds(),
            ["charge.dispute.created", "charge.dispute.closed"]
        );
    }
}

#[tokio::test]
async fn a_subscription_is_paid_by_the_month() {
    let rig = Rig::start().await;
    let session = rig
        .session(
            "subscription",
            &[("subscription_data[metadata][account]", "a")],
        )
        .await;
    let session = session.id();
    rig.provider.pay(&session, Card::Succeeds).unwrap();
    let shown = rig
        .get(&format!("/v1/checkout/sessions/{session}?expand[]=invoice"))
        .await
        .body;
    assert_eq!(shown["payment_intent"], Value::Null);
    let id = shown["subscription"].as_str().unwrap().to_owned();
    let details = &shown["invoice"]["parent"]["subscription_details"];
    assert_eq!(
        (&details["subscription"], &details["metadata"]["account"]),
        (&json!(id), &json!("a"))
    );
    assert_eq!(shown["invoice"]["status"], "paid");
    let first = [
        "payment_intent.succeeded",
        "customer.subscription.created",
        "invoice.paid",
        "checkout.session.completed",
    ];
    assert_eq!(rig.kinds(), first);

    let path = format!("/v1/subscriptions/{id}");
    let state = async || {
        let shown = rig.get(&path).await.body;
        let end = shown["items"]["data"][0]["current_period_end"]
            .as_i64()
            .unwrap();
        let end = Timestamp::from_second(end).unwrap().to_string();
        (shown["status"].as_str().unwrap().to_owned(), end)
    };
    let expected = |status: &str, day: &str| (status.to_owned(), format!("2026-{day}T12:00:00Z"));
    assert_eq!(state().await, expected("active", "02-28"));
    rig.provider.renew(&id).unwrap();
    assert_eq!(state().await, expected("active", "03-31"));
    let renewed = [
        "payment_intent.succeeded",
        "invoice.paid",
        "customer.subscription.updated",
    ];
    assert_eq!(rig.kinds(), renewed);
    for _ in 0..2 {
        rig.provider.fail_renewal(&id).unwrap();
        assert_eq!(state().await, expected("past_due", "04-30"));
        let failed = [
            "payment_intent.payment_failed",
            "invoice.payment_failed",
            "customer.subscription.updated",
        ];
        assert_eq!(rig.kinds(), failed);
    }
    rig.provider.renew(&id).unwrap();
    assert_eq!(state().await, expected("active", "04-30"));
    let payments = rig.provider.payments();
    assert_eq!(payments.len(), 3);
    let path_of = |more: &str| format!("/v1/invoice_payments?payment[type]=payment_intent{more}");
    let of_intent = path_of(&format!("&payment[payment_intent]={}", payments[2].intent));
    let found = rig.get(&of_intent).await.body["data"].clone();
    assert_eq!(
        (found.as_array().unwrap().len(), &found[0]["status"]),
        (1, &json!("paid"))
    );
    let invoice = found[0]["invoice"].as_str().unwrap();
    let invoice = rig.get(&format!("/v1/invoices/{invoice}")).await.body;
    assert_eq!(
        (&invoice["attempt_count"], &invoice["status"]),
        (&json!(3), &json!("paid"))
    );
    assert_eq!(
        rig.provider.object(&id).unwrap()["latest_invoice"],
        invoice["id"]
    );
    rig.kinds();
}

#[tokio::test]
async fn a_subscription_ends_at_once_or_with_its_period() {
    let rig = Rig::start().await;
    let customer = rig.customer().await;
    let subscribe = async || {
        let form = [("customer", customer.as_str())];
        let session = rig.session("subscription", &form).await.id();
        rig.provider.pay(&session, Card::Succeeds).unwrap();
        let id = rig.provider.object(&session).unwrap()["subscription"].clone();
        rig.kinds();
        id.as_str().unwrap().to_owned()
    };
    let (updated, deleted) = (
        "customer.subscription.updated",
        "customer.subscription.deleted",
    );
    let path = |id: &str| format!("/v1/subscriptions/{id}");
    let (ends, stays) = (
        [("cancel_at_period_end", "true")],
        [("cancel_at_period_end", "false")],
    );

    let id = subscribe().await;
    assert_eq!(rig.get(&path(&id)).await.body["customer"], *customer);
    let kept = rig.post(&path(&id), &ends).await.body["cancel_at_period_end"].clone();
    assert_eq!(kept, true);
    rig.provider.renew(&id).unwrap();
    assert_eq!(rig.get(&path(&id)).await.body["status"], "canceled");
    assert_eq!(rig.provider.payments().len(), 1);
    assert_eq!(rig.kinds(), [updated, deleted]);

    let id = subscribe().await;
    rig.post(&path(&id), &ends).await;
    rig.post(&path(&id), &stays).await;
    rig.provider.renew(&id).unwrap();
    assert_eq!(rig.provider.payments().len(), 3);
    rig.kinds();
    let delete = || answer(rig.request(Method::DELETE, &path(&id), &[]));
    assert_eq!(delete().await.unwrap().body["status"], "canceled");
    assert_eq!(delete().await.unwrap().status, 404);
    assert_eq!(rig.post(&path(&id), &stays).await.status, 404);
    rig.provider.renew(&id).unwrap_err();
    assert_eq!(rig.kinds(), [deleted]);
}

#[tokio::test]
async fn a_key_gives_its_first_result_for_a_day() {
    let rig = Rig::start().await;
    let create: &[(&str, &str)] = &[("email", "a@example.com")];
    let customers = "/v1/customers";
    let first = rig.keyed("k", customers, create).await.unwrap();
    assert!(!first.replayed);
    rig.later(SignedDuration::from_secs(24 * 3600 - 1));
    let again = rig.keyed("k", customers, create).await.unwrap();
    assert_eq!((again.replayed, &again.body), (true, &first.body));
    for (path, form) in [
        (customers, [("email", "b@example.com")].as_slice()),
        ("/v1/payment_intents", create),
    ] {
        let other = rig.keyed("k", path, form).await.unwrap();
        assert_eq!((other.status, other.error().0), (400, "idempotency_error"));
    }
    rig.later(SignedDuration::from_secs(1));
    let anew = rig.keyed("k", customers, create).await.unwrap();
    assert!(!anew.replayed && anew.body["id"] != first.body["id"]);

    // A decline is a result, and so is a state that does not allow it.
    let (intent, method) = rig.intent(Card::DeclinesSoftly).await;
    let customer = rig.provider.object(&intent).unwrap()["customer"].clone();
    rig.confirm(&intent, &method, "confirm").await.unwrap();
    rig.provider
        .set_card(customer.as_str().unwrap(), Card::Succeeds);
    let again = rig.confirm(&intent, &method, "confirm").await.unwrap();
    assert_eq!((again.status, again.replayed), (402, true));
    rig.confirm(&intent, &method, "confirm-2").await.unwrap();
    for replayed in [false, true] {
        let late = rig.confirm(&intent, &method, "late").await.unwrap();
        assert_eq!((late.status, late.replayed), (400, replayed));
    }

    // What never was carried out is none.
    let bad = rig
        .keyed("free", customers, &[("emial", "")])
        .await
        .unwrap();
    assert_eq!(bad.status, 400);
    rig.provider.limit_rate(1, None);
    let busy = rig.keyed("free", customers, create).await.unwrap();
    assert_eq!((busy.status, busy.error().1), (429, "rate_limit"));
    let good = rig.keyed("free", customers, create).await.unwrap();
    assert_eq!((good.status, good.replayed), (200, false));
}

#[tokio::test]
async fn a_key_under_way_is_refused_also_when_nobody_waits_any_more() {
    let rig = Rig::start().await;
    let (intent, method) = rig.intent(Card::Succeeds).await;
    rig.provider.pause();
    let first = rig.confirm(&intent, &method, "k");
    // The caller goes away while its request waits.
    tokio::select! {
        _ = first => panic!("it is paused"),
        () = rig.provider.until_held_back() => {}
    }
    let second = rig.confirm(&intent, &method, "k").await.unwrap();
    assert_eq!(
        (second.status, second.error().1),
        (409, "idempotency_key_in_use")
    );
    let other = rig.keyed("k", "/v1/refunds", &[]).await.unwrap();
    assert_eq!(other.error().0, "idempotency_error");
    assert!(rig.provider.payments().is_empty());
    rig.provider.resume();
    let replayed = loop {
        let answer = rig.confirm(&intent, &method, "k").await.unwrap();
        if answer.status != 409 {
            break answer;
        }
    };
    assert_eq!((replayed.status, replayed.replayed), (200, true));
    assert_eq!(rig.provider.payments().len(), 1);
}

#[tokio::test]
async fn requests_beyond_the_rate_are_refused() {
    let rig = Rig::start().await;
    rig.provider.limit_rate(1, Some(2));
    let statuses = async |count| {
        let mut statuses = Vec::new();
        for _ in 0..count {
            statuses.push(rig.get("/v1/customers/cus_9").await.status);
        }
        statuses
    };
    assert_eq!(statuses(4).await, [429, 404, 404, 429]);
    rig.later(SignedDuration::from_secs(1));
    assert_eq!(statuses(3).await, [404, 404, 429]);
}

/// Takes webhooks: the event ids that it was sent. The first `refusals` are answered 500.
struct Receiver {
    server: Server,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    refusals: usize,
    ids: Vec<String>,
}

impl Receiver {
    async fn start(refusals: usize) -> Self {
        let seen = Arc::new(Mutex::new(Seen {
            refusals,
            ids: Vec::new(),
        }));
        let router = Router::new().route("/hook", post(receive));
        let server = Server::start(router.with_state(Arc::clone(&seen)))
            .await
            .unwrap();
        Self { server, seen }
    }

    fn ids(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap().ids)
    }
}

async fn receive(
    State(seen): State<Arc<Mutex<Seen>>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let event: Value = serde_json::from_slice(&body).unwrap();
    // Checked with nothing of the sender's.
    let header = headers["stripe-signature"].to_str().unwrap();
    let (time, tag) = header
        .strip_prefix("t=")
        .unwrap()
        .split_once(",v1=")
        .unwrap();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
    let signed = [time.as_bytes(), b".", &body].concat();
    let tag: Vec<u8> = (0..tag.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&tag[at..at + 2], 16).unwrap())
        .collect();
    aws_lc_rs::hmac::verify(&key, &signed, &tag).unwrap();
    let mut seen = seen.lock().unwrap();
    seen.ids.push(event["id"].as_str().unwrap().to_owned());
    if seen.refusals > 0 {
        seen.refusals -= 1;
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    StatusCode::OK
}

#[tokio::test]
async fn events_reach_the_webhook_as_told() {
    let rig = Rig::start().await;
    let hook = Receiver::start(1).await;
    rig.paid_intent().await;
    let event = rig.provider.events().pop().unwrap();
    assert!(matches!(
        rig.provider.deliver(&event).await,
        Err(DeliveryError::NoTarget)
    ));
    rig.provider
        .set_webhook(&format!("{}/hook", hook.server.url()), SECRET);
    let body: Value = serde_json::from_str(&event.body).unwrap();
    for (name, value) in [
        ("object", json!("event")),
        ("type", json!("payment_intent.succeeded")),
        ("created", json!(start_of_2026().as_second())),
        ("livemode", json!(false)),
        ("api_version", json!(API_VERSION)),
    ] {
        assert_eq!(body[name], value, "{name}");
    }
    assert_eq!(body["data"]["object"]["object"], "payment_intent");

    // Refused once, it comes again.
    rig.paid_intent().await;
    rig.provider.until_delivered().await;
    let ids = hook.ids();
    assert!(ids.len() == 2 && ids[0] == ids[1], "{ids:?}");
    rig.provider.set_delivery(Delivery::Duplicate);
    rig.paid_intent().await;
    rig.provider.until_delivered().await;
    let ids = hook.ids();
    assert!(ids.len() == 2 && ids[0] == ids[1], "{ids:?}");

    rig.provider.set_delivery(Delivery::Drop);
    rig.provider.forget_events();
    rig.paid_intent().await;
    assert_eq!(rig.kinds(), [""; 0]);
    rig.provider.set_delivery(Delivery::Hold);
    let mut orders = BTreeSet::new();
    for seed in 0..8 {
        for _ in 0..4 {
            rig.paid_intent().await;
        }
        assert_eq!(hook.ids(), [""; 0]);
        assert_eq!(
            rig.provider.deliver_all_shuffled(seed).await.unwrap(),
            [200; 4]
        );
        let ids = hook.ids();
        assert_eq!(BTreeSet::from_iter(&ids).len(), 4);
        orders.insert(ids.is_sorted());
    }
    assert!(orders.contains(&false), "some order differs");
    rig.paid_intent().await;
    let held = rig.provider.take_held();
    assert_eq!(held.len(), 1);
    for _ in 0..2 {
        assert_eq!(rig.provider.deliver(&held[0]).await.unwrap(), 200);
    }
    assert_eq!(hook.ids(), [held[0].id.clone(), held[0].id.clone()]);
}

#[test]
fn the_state_alone_repeats_itself() {
    let run = |seed| {
        let mut state = ProviderState::new(seed, "http://provider.test", None, false);
        let mut now = start_of_2026();
        let mut replies = Vec::new();
        let mut call = |state: &mut ProviderState, path: &str, form: &[(&str, &str)], now| {
            let request = ApiRequest {
                method: Method::POST,
                path: path.to_owned(),
                api_key: Some(KEY.to_owned()),
                idempotency_key: Some(format!("{path}{}", replies.len())),
                form: Form::of(form),
            };
            replies.push(state.call(&request, now));
            let body: Value = serde_json::from_str(&replies[replies.len() - 1].body).unwrap();
            body["id"].as_str().unwrap_or_default().to_owned()
        };
        let customer = call(&mut state, "/v1/customers", &[], now);
        let method = state.add_card(&customer, Card::Succeeds, now).unwrap();
        for month in 0..24_i32 {
            now = now
                .to_zoned(jiff::tz::TimeZone::UTC)
                .saturating_add(month.months())
                .timestamp();
            let form = [
                ("amount", "500"),
                ("currency", "usd"),
                ("customer", &customer),
                ("payment_method", &method),
            ];
            let intent = call(&mut state, "/v1/payment_intents", &form, now);
            call(
                &mut state,
                &format!("/v1/payment_intents/{intent}/confirm"),
                &[],
                now,
            );
        }
        assert_eq!(state.payments().count(), 24);
        (replies, state.take_events())
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
    assert!(run(7).1[0].object == "pi_7_000001" && run(0).1[0].object == "pi_000001");
}

#[tokio::test]
async fn the_system_has_one_unless_it_is_told_of_another() {
    use crate::system::{Options, System};
    let system = System::start(Options::default()).await.unwrap();
    let provider = system.payment_provider.as_ref().unwrap();
    let url = provider.base_url();
    assert_eq!(system.settings["STRIPE_API_BASE_URL"], url);
    let client = reqwest::Client::new();
    let get = || {
        client
            .get(format!("{url}/v1/customers/cus_9"))
            .bearer_auth(KEY)
    };
    assert_eq!(get().send().await.unwrap().status(), 404);
    system.stop().await;
    assert!(get().send().await.is_err());

    let mut options = Options::default();
    let elsewhere = ("STRIPE_API_BASE_URL", "https://api.stripe.com");
    options
        .settings
        .insert(elsewhere.0.to_owned(), elsewhere.1.to_owned());
    let system = System::start(options).await.unwrap();
    assert!(system.payment_provider.is_none());
    assert_eq!(system.settings[elsewhere.0], elsewhere.1);
    system.stop().await;
}
