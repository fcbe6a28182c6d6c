//! The checkout page, and the effects of a payment.

use super::*;

#[tokio::test]
async fn a_session_is_paid_once_on_its_page() {
    let rig = Rig::start().await;
    let customer = rig.customer().await;
    let more = [
        ("customer", customer.as_str()),
        ("payment_intent_data[setup_future_usage]", "off_session"),
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
    assert_eq!(intent["latest_charge"]["created"], start_of_2026().as_second());
    let kinds = rig.kinds();
    let expected = [
        "payment_intent.payment_failed",
        "payment_intent.payment_failed",
        "payment_intent.succeeded",
        "checkout.session.completed",
    ];
    assert_eq!(kinds, expected);
    // A paid session does not expire.
    let paid_at = start_of_2026();
    rig.later(SignedDuration::from_hours(25));
    assert_eq!(rig.kinds(), [""; 0]);

    let payment = Payment {
        intent: intent["id"].as_str().unwrap().to_owned(),
        session: Some(id),
        invoice: None,
        customer: Some(customer.clone()),
        amount: 500,
        currency: "usd".to_owned(),
        metadata: BTreeMap::new(),
        at: paid_at,
        refunded: 0,
        disputed: false,
    };
    assert_eq!(rig.stripe.payments(), [payment]);
    assert_eq!(rig.page(Method::GET, "/checkout/cs_9", "").await.0, 404);
}

#[tokio::test]
async fn a_card_can_be_charged_later_only_if_it_was_saved() {
    let rig = Rig::start().await;
    let customer = rig.customer().await;
    let keep = ("payment_intent_data[setup_future_usage]", "off_session");
    for (mode, more, kept) in
        [("payment", vec![], false), ("payment", vec![keep], true), ("setup", vec![], true)]
    {
        let more = [more, vec![("customer", customer.as_str())]].concat();
        let session = rig.session(mode, &more).await.id();
        rig.stripe.pay(&session, Card::Succeeds).unwrap();
        let expand = if mode == "setup" { "setup_intent" } else { "payment_intent" };
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
async fn an_open_session_expires_on_request_or_when_due() {
    let rig = Rig::start().await;
    let asked = rig.session("payment", &[]).await.id();
    rig.stripe.pay(&asked, Card::DeclinesSoftly).unwrap_err();
    let expire = format!("/v1/checkout/sessions/{asked}/expire");
    let expired = rig.post(&expire, &[]).await;
    assert_eq!(expired.body["status"], "expired");
    assert_eq!(rig.post(&expire, &[]).await.status, 400);
    let expected =
        ["payment_intent.payment_failed", "payment_intent.canceled", "checkout.session.expired"];
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
    assert_eq!(rig.stripe.pay(&late, Card::Succeeds), Err(PayError::Expired));
    let page = rig.page(Method::GET, &format!("/checkout/{late}"), "").await;
    assert!(page.2.contains("has expired"));
    assert!(rig.stripe.payments().is_empty());
}
