//! The steps before a request: API key, rate limit, idempotency key.

use super::*;

#[tokio::test]
async fn requests_need_the_api_key() {
    let rig = Rig::start().await;
    let id = rig.customer().await;
    let url = rig.url(&format!("/v1/customers/{id}"));
    let get = || rig.client.get(&url);
    for (request, status) in
        [(get(), 401), (get().bearer_auth("sk_test_other"), 401), (get().bearer_auth(KEY), 200)]
    {
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
        (vec![usd, ("amount", "500"), ("amonut", "5")], "parameter_unknown", "amonut"),
        (vec![usd, ("amount", "49")], "amount_too_small", "amount"),
        (vec![usd, ("amount", "five")], "", "amount"),
        (vec![usd, ("amount", "500"), ("customer", "cus_9")], "resource_missing", "customer"),
    ];
    for (form, code, parameter) in table {
        let answer = rig.post("/v1/payment_intents", &form).await;
        assert_eq!((answer.status, answer.error().1), (400, code), "{form:?}");
        assert_eq!(answer.body["error"]["param"], parameter);
    }

    // Expansions are also checked before anything is done.
    let (intent, _) = rig.intent(Card::Succeeds).await;
    let confirm = format!("/v1/payment_intents/{intent}/confirm");
    assert_eq!(rig.post(&confirm, &[("expand[]", "last_charge")]).await.status, 400);
    assert!(rig.stripe.payments().is_empty());
    let paid = rig.post(&confirm, &[("expand[]", "latest_charge.customer")]).await;
    assert_eq!(paid.body["latest_charge"]["customer"]["email"], "a@example.com");
}

#[tokio::test]
async fn an_idempotency_key_repeats_its_first_result_for_a_day() {
    let rig = Rig::start().await;
    let create: &[(&str, &str)] = &[("email", "a@example.com")];
    let customers = "/v1/customers";
    let first = rig.keyed("k", customers, create).await.unwrap();
    assert!(!first.replayed);
    rig.later(SignedDuration::from_secs(24 * 3600 - 1));
    let again = rig.keyed("k", customers, create).await.unwrap();
    assert_eq!((again.replayed, &again.body), (true, &first.body));
    for (path, form) in
        [(customers, [("email", "b@example.com")].as_slice()), ("/v1/payment_intents", create)]
    {
        let other = rig.keyed("k", path, form).await.unwrap();
        assert_eq!((other.status, other.error().0), (400, "idempotency_error"));
    }
    rig.later(SignedDuration::from_secs(1));
    let fresh = rig.keyed("k", customers, create).await.unwrap();
    assert!(!fresh.replayed && fresh.body["id"] != first.body["id"]);

    // A decline is a result, and so is a refusal because of the status.
    let (intent, method) = rig.intent(Card::DeclinesSoftly).await;
    let customer = rig.stripe.object(&intent).unwrap()["customer"].clone();
    rig.confirm(&intent, &method, "confirm").await.unwrap();
    rig.stripe.set_card(customer.as_str().unwrap(), Card::Succeeds);
    let again = rig.confirm(&intent, &method, "confirm").await.unwrap();
    assert_eq!((again.status, again.replayed), (402, true));
    rig.confirm(&intent, &method, "confirm-2").await.unwrap();
    for replayed in [false, true] {
        let late = rig.confirm(&intent, &method, "late").await.unwrap();
        assert_eq!((late.status, late.replayed), (400, replayed));
    }

    // A request that was not executed has no result.
    let bad = rig.keyed("free", customers, &[("emial", "")]).await.unwrap();
    assert_eq!(bad.status, 400);
    rig.stripe.limit_rate(1, None);
    let busy = rig.keyed("free", customers, create).await.unwrap();
    assert_eq!((busy.status, busy.error().1), (429, "rate_limit"));
    let good = rig.keyed("free", customers, create).await.unwrap();
    assert_eq!((good.status, good.replayed), (200, false));
}

#[tokio::test]
async fn a_key_in_use_is_refused_even_if_its_caller_left() {
    let rig = Rig::start().await;
    let (intent, method) = rig.intent(Card::Succeeds).await;
    rig.stripe.pause_at("");
    let first = rig.confirm(&intent, &method, "k");
    // The caller goes away while its request waits.
    tokio::select! {
        _ = first => panic!("it is paused"),
        () = rig.stripe.until_paused() => {}
    }
    let second = rig.confirm(&intent, &method, "k").await.unwrap();
    assert_eq!((second.status, second.error().1), (409, "idempotency_key_in_use"));
    let other = rig.keyed("k", "/v1/refunds", &[]).await.unwrap();
    assert_eq!(other.error().0, "idempotency_error");
    assert!(rig.stripe.payments().is_empty());
    rig.stripe.resume();
    let replayed = loop {
        let answer = rig.confirm(&intent, &method, "k").await.unwrap();
        if answer.status != 409 {
            break answer;
        }
    };
    assert_eq!((replayed.status, replayed.replayed), (200, true));
    assert_eq!(rig.stripe.payments().len(), 1);
}

#[tokio::test]
async fn requests_above_the_rate_limit_are_refused() {
    let rig = Rig::start().await;
    rig.stripe.limit_rate(1, Some(2));
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

#[tokio::test]
async fn a_deleted_customer_can_be_read_and_not_used() {
    let rig = Rig::start().await;
    let (intent, method) = rig.intent(Card::Succeeds).await;
    let customer = rig.stripe.object(&intent).unwrap()["customer"].as_str().unwrap().to_owned();
    rig.stripe.delete_customer(&customer);
    let read = rig.get(&format!("/v1/customers/{customer}")).await;
    let gone = json!({"id": customer, "object": "customer", "deleted": true});
    assert_eq!((read.status, read.body), (200, gone));
    let form = [("amount", "500"), ("currency", "usd"), ("customer", customer.as_str())];
    let created = rig.post("/v1/payment_intents", &form).await;
    assert_eq!((created.status, created.error().1), (400, "resource_missing"));
    assert_eq!(created.body["error"]["param"], "customer");
    let session = rig.session("payment", &[("customer", &customer)]).await;
    assert_eq!(session.body["error"]["param"], "customer");
    // Its cards are detached.
    let confirmed = rig.confirm(&intent, &method, "k").await.unwrap();
    assert_eq!(
        (confirmed.status, &confirmed.body["error"]["param"]),
        (400, &json!("payment_method"))
    );
}

/// A 500 is replayed under the same idempotency key; an error before execution is not.
#[tokio::test]
async fn an_injected_500_is_stored_under_its_key() {
    let rig = Rig::start().await;
    for (status, then) in [(500, 500), (503, 200), (400, 200)] {
        let (intent, method) = rig.intent(Card::Succeeds).await;
        rig.stripe.fail_next("/confirm", status, 1);
        let first = rig.confirm(&intent, &method, &intent).await.unwrap();
        let second = rig.confirm(&intent, &method, &intent).await.unwrap();
        assert_eq!((first.status, second.status), (status, then));
        assert_eq!(second.replayed, status == 500);
    }
}
