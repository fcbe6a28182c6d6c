//! Requests, exactly as Stripe expects them.

use super::*;

/// The requests as lines: method, path, idempotency key, then the form. Checks the headers that all
/// requests share.
fn lines(server: &Server) -> Vec<String> {
    let mut lines = Vec::new();
    for request in server.requests() {
        let header = |name| request.header(name);
        assert_eq!(header("authorization"), Some(&*format!("Bearer {KEY}")));
        assert_eq!(header("stripe-version"), Some(API_VERSION));
        let is_post = request.method == "POST";
        let content_type = is_post.then_some("application/x-www-form-urlencoded");
        assert_eq!(header("content-type"), content_type);
        let idempotency = header("idempotency-key").unwrap_or("-");
        lines.push(format!("{} {} {idempotency}", request.method, request.path));
        let form = request.form().into_iter();
        lines.extend(form.map(|(name, value)| format!("{name}={value}")));
    }
    lines
}

#[tokio::test]
async fn sessions_are_created_as_stripe_expects() {
    let success: Url = "https://greta.example/plans?paid=1&x=ä".parse().unwrap();
    let cancel: Url = "https://greta.example/plans".parse().unwrap();
    let customer = CustomerId::new("cus_1").unwrap();
    let price = Price { product: "OpenRouter add-on & more", amount: Cents::new(500) };
    let payment = |keep_card| Purpose::Payment { price, keep_card };
    let future = "payment_intent_data[setup_future_usage]=off_session";
    let monthly = "line_items[0][price_data][recurring][interval]=month";
    let table = [
        (payment(true), vec!["mode=payment", future]),
        (payment(false), vec!["mode=payment"]),
        (Purpose::Subscription { price }, vec!["mode=subscription", monthly]),
        (Purpose::Setup, vec!["mode=setup", "currency=usd"]),
    ];
    let session = json!({"id": "cs_test_1", "status": "open", "url": "https://pay.example/1"});
    for (purpose, own) in table {
        for customer in [None, Some(&customer)] {
            let server = Server::start(vec![Reply::json(200, &session)]);
            let new = NewSession {
                purpose,
                customer,
                success_url: &success,
                cancel_url: &cancel,
                client_reference_id: "n-17",
                expires_at: jiff::Timestamp::from_second(1_780_000_000).unwrap(),
            };
            let created = client(&server.base).create_session(&new, "k-1").await;
            assert_eq!(created.unwrap().url.as_deref(), Some("https://pay.example/1"));
            let mut expected = vec![
                "POST /v1/checkout/sessions k-1",
                "success_url=https://greta.example/plans?paid=1&x=%C3%A4",
                "cancel_url=https://greta.example/plans",
                "client_reference_id=n-17",
                "expires_at=1780000000",
                "payment_method_types[]=card",
            ];
            expected.extend(customer.map(|_| "customer=cus_1"));
            expected.extend(own.iter().copied());
            if !matches!(purpose, Purpose::Setup) {
                expected.extend([
                    "adaptive_pricing[enabled]=false",
                    "line_items[0][quantity]=1",
                    "line_items[0][price_data][currency]=usd",
                    "line_items[0][price_data][unit_amount]=500",
                    "line_items[0][price_data][product_data][name]=OpenRouter add-on & more",
                ]);
            }
            assert_eq!(lines(&server), expected);
        }
    }
}

#[tokio::test]
async fn a_charge_sends_what_stripe_expects() {
    let server = Server::start(vec![
        Reply::json(200, &json!({"id": "cus_1"})),
        Reply::json(200, &intent_in("requires_confirmation")),
        Reply::json(200, &intent_in("succeeded")),
        Reply::json(200, &intent_in("succeeded")),
        Reply::json(200, &intent_in("canceled")),
    ]);
    let account = AccountNumber::new("n-17").unwrap();
    let generation = account::add_on::GenerationId::new("cs_0");
    let stripe = client(&server.base);
    let created = stripe.create_customer(&account, "k-customer").await;
    let customer = created.unwrap();
    let new = NewIntent {
        amount: Cents::new(500),
        customer: &customer,
        payment_method: &pm(),
        description: "OpenRouter add-on",
        account: &account,
        generation: &generation,
        period: account::Period::new(2).unwrap(),
    };
    stripe.create_intent(&new, "k-create").await.unwrap();
    stripe.intent(&pi()).await.unwrap();
    let confirmed = stripe.confirm_intent(&pi(), &pm(), "k-confirm").await;
    assert_eq!(confirmed.unwrap().status, IntentStatus::Succeeded);
    let cancelled = stripe.cancel_intent(&pi()).await;
    assert_eq!(cancelled.unwrap().status, IntentStatus::Canceled);
    let expected = [
        "POST /v1/customers k-customer",
        "metadata[account]=n-17",
        "POST /v1/payment_intents k-create",
        "amount=500",
        "currency=usd",
        "customer=cus_1",
        "payment_method=pm_1",
        "payment_method_types[]=card",
        "description=OpenRouter add-on",
        "metadata[account]=n-17",
        "metadata[generation]=cs_0",
        "metadata[period]=2",
        "expand[]=latest_charge",
        "GET /v1/payment_intents/pi_1?expand[]=latest_charge -",
        "POST /v1/payment_intents/pi_1/confirm k-confirm",
        "payment_method=pm_1",
        "off_session=true",
        "expand[]=latest_charge",
        "POST /v1/payment_intents/pi_1/cancel -",
        "expand[]=latest_charge",
    ];
    assert_eq!(lines(&server), expected);
}

#[tokio::test]
async fn the_other_requests_are_sent_as_stripe_expects() {
    let kept = json!({"id": "seti_1", "status": "succeeded", "payment_method": "pm_1"});
    let session = json!({"id": "cs_test_1", "status": "expired"});
    let server = Server::start(vec![
        Reply::json(200, &session),
        Reply::json(200, &session),
        Reply::json(200, &kept),
        Reply::json(200, &json!({"id": "re_1", "status": "pending"})),
        Reply::json(200, &json!({"id": "sub_1", "status": "active"})),
        Reply::json(200, &json!({"id": "sub_1", "cancel_at_period_end": true})),
        Reply::json(200, &json!({"id": "sub_1", "cancel_at_period_end": true})),
        Reply::json(200, &json!({"id": "sub_1", "status": "canceled"})),
        Reply::json(200, &json!({"id": "in_1", "status": "open"})),
        error(402, "card_declined"),
        Reply::json(200, &json!({"id": "in_1", "status": "draft"})),
        Reply::json(200, &json!({"id": "in_1", "status": "void"})),
    ]);
    // A base URL with a path, as a stand-in for Stripe may have.
    let stripe = client(&format!("{}/mock/", server.base));
    stripe.session(&cs()).await.unwrap();
    stripe.expire_session(&cs()).await.unwrap();
    let seti = SetupIntentId::new("seti_1").unwrap();
    assert_eq!(stripe.setup_intent(&seti).await.unwrap(), Some(pm()));
    let refunded = stripe.refund(&pi(), "k-refund").await;
    assert_eq!(refunded.unwrap(), Refund::Made);
    stripe.subscription(&sub()).await.unwrap();
    let (sub, pm) = (sub(), pm());
    let ends = stripe.end_subscription_with_its_period(&sub, true);
    assert_eq!(ends.await.unwrap().cancel_at_period_end, Some(true));
    let charged = stripe.charge_subscription_to(&sub, &pm).await;
    assert_eq!(charged.unwrap().id, sub);
    stripe.cancel_subscription(&sub).await.unwrap();
    let invoice = InvoiceId::new("in_1").unwrap();
    let found = stripe.invoice(&invoice).await.unwrap();
    assert_eq!(found.status, InvoiceStatus::Open);
    stripe.pay_invoice(&invoice).await.unwrap();
    let held = stripe.hold_invoice(&invoice).await.unwrap();
    assert_eq!(held.status, InvoiceStatus::Draft);
    let void = stripe.void_invoice(&invoice).await.unwrap();
    assert_eq!(void.status, InvoiceStatus::Void);
    let expected = [
        "GET /mock/v1/checkout/sessions/cs_test_1 -",
        "POST /mock/v1/checkout/sessions/cs_test_1/expire -",
        "GET /mock/v1/setup_intents/seti_1 -",
        "POST /mock/v1/refunds k-refund",
        "payment_intent=pi_1",
        "GET /mock/v1/subscriptions/sub_1 -",
        "POST /mock/v1/subscriptions/sub_1 -",
        "cancel_at_period_end=true",
        "POST /mock/v1/subscriptions/sub_1 -",
        "default_payment_method=pm_1",
        "DELETE /mock/v1/subscriptions/sub_1 -",
        "GET /mock/v1/invoices/in_1?expand[]=payments -",
        "POST /mock/v1/invoices/in_1/pay -",
        "POST /mock/v1/invoices/in_1 -",
        "auto_advance=false",
        "POST /mock/v1/invoices/in_1/void -",
    ];
    assert_eq!(lines(&server), expected);
}
