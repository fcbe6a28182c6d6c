//! Subscriptions that Stripe collects itself.

use super::*;

#[tokio::test]
async fn a_subscription_is_paid_monthly() {
    let rig = Rig::start().await;
    let session = rig.session("subscription", &[]).await.id();
    rig.stripe.pay(&session, Card::Succeeds).unwrap();
    let shown = rig.get(&format!("/v1/checkout/sessions/{session}?expand[]=invoice")).await.body;
    assert_eq!(shown["payment_intent"], Value::Null);
    let id = shown["subscription"].as_str().unwrap().to_owned();
    let details = &shown["invoice"]["parent"]["subscription_details"];
    assert_eq!(details["subscription"], *id);
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
        let end = shown["items"]["data"][0]["current_period_end"].as_i64().unwrap();
        let end = Timestamp::from_second(end).unwrap().to_string();
        (shown["status"].as_str().unwrap().to_owned(), end)
    };
    let expected = |status: &str, day: &str| (status.to_owned(), format!("2026-{day}T12:00:00Z"));
    assert_eq!(state().await, expected("active", "02-28"));
    rig.collect(&id, ChargeOutcome::Succeeded).unwrap();
    assert_eq!(state().await, expected("active", "03-31"));
    let renewed = ["payment_intent.succeeded", "invoice.paid", "customer.subscription.updated"];
    assert_eq!(rig.kinds(), renewed);
    for _ in 0..2 {
        rig.collect(&id, ChargeOutcome::DECLINED).unwrap();
        assert_eq!(state().await, expected("past_due", "04-30"));
        let failed = [
            "payment_intent.payment_failed",
            "invoice.payment_failed",
            "customer.subscription.updated",
        ];
        assert_eq!(rig.kinds(), failed);
    }
    rig.collect(&id, ChargeOutcome::Succeeded).unwrap();
    assert_eq!(state().await, expected("active", "04-30"));
    let payments = rig.stripe.payments();
    assert_eq!(payments.len(), 3);
    let invoice = payments[2].invoice.as_ref().unwrap();
    let invoice = rig.get(&format!("/v1/invoices/{invoice}")).await.body;
    assert_eq!((&invoice["attempt_count"], &invoice["status"]), (&json!(3), &json!("paid")));
    assert_eq!(rig.stripe.object(&id).unwrap()["latest_invoice"], invoice["id"]);
    rig.kinds();
}

#[tokio::test]
async fn a_subscription_ends_at_once_or_with_its_period() {
    let rig = Rig::start().await;
    let customer = rig.customer().await;
    let subscribe = async || {
        let form = [("customer", customer.as_str())];
        let session = rig.session("subscription", &form).await.id();
        rig.stripe.pay(&session, Card::Succeeds).unwrap();
        let id = rig.stripe.object(&session).unwrap()["subscription"].clone();
        rig.kinds();
        id.as_str().unwrap().to_owned()
    };
    let (updated, deleted) = ("customer.subscription.updated", "customer.subscription.deleted");
    let path = |id: &str| format!("/v1/subscriptions/{id}");
    let (ends, stays) = ([("cancel_at_period_end", "true")], [("cancel_at_period_end", "false")]);

    let id = subscribe().await;
    assert_eq!(rig.get(&path(&id)).await.body["customer"], *customer);
    let kept = rig.post(&path(&id), &ends).await.body["cancel_at_period_end"].clone();
    assert_eq!(kept, true);
    rig.collect(&id, ChargeOutcome::Succeeded).unwrap();
    assert_eq!(rig.get(&path(&id)).await.body["status"], "canceled");
    assert_eq!(rig.stripe.payments().len(), 1);
    assert_eq!(rig.kinds(), [updated, deleted]);

    let id = subscribe().await;
    rig.post(&path(&id), &ends).await;
    rig.post(&path(&id), &stays).await;
    rig.collect(&id, ChargeOutcome::Succeeded).unwrap();
    assert_eq!(rig.stripe.payments().len(), 3);
    rig.kinds();
    let delete = || answer(rig.request(Method::DELETE, &path(&id), &[]));
    assert_eq!(delete().await.unwrap().body["status"], "canceled");
    assert_eq!(delete().await.unwrap().status, 404);
    assert_eq!(rig.post(&path(&id), &stays).await.status, 404);
    rig.collect(&id, ChargeOutcome::Succeeded).unwrap_err();
    assert_eq!(rig.kinds(), [deleted]);
}

#[tokio::test]
async fn subscriptions_renew_when_due_and_an_open_invoice_is_paid_or_voided() {
    let rig = Rig::start().await;
    let customer = rig.customer().await;
    let form = [("customer", customer.as_str())];
    let session = rig.session("subscription", &form).await.id();
    rig.stripe.pay(&session, Card::Succeeds).unwrap();
    let id = rig.stripe.object(&session).unwrap()["subscription"].clone();
    let id = id.as_str().unwrap();
    let latest = || {
        let shown = rig.stripe.object(id).unwrap();
        let invoice = shown["latest_invoice"].as_str().unwrap().to_owned();
        (shown["status"].clone(), invoice)
    };
    // Nothing before the end of the period, then each period once.
    rig.stripe.renew_due();
    assert_eq!(rig.stripe.payments().len(), 1);
    let later = start_of_2026() + 24.hours() * 70;
    rig.stripe.set_time(later);
    rig.stripe.renew_due();
    rig.stripe.renew_due();
    assert_eq!(rig.stripe.payments().len(), 3);
    // A declining card leaves an invoice, which can be paid on its page.
    rig.stripe.set_card(&customer, Card::DeclinesSoftly);
    rig.stripe.set_time(later + 24.hours() * 31);
    rig.stripe.renew_due();
    let (status, invoice) = latest();
    assert_eq!(status, "past_due");
    let shown = rig.get(&format!("/v1/invoices/{invoice}?expand[]=payments")).await.body;
    assert_eq!((&shown["status"], &shown["attempt_count"]), (&json!("open"), &json!(1)));
    let payment = &shown["payments"]["data"][0]["payment"];
    assert!(payment["payment_intent"].is_string(), "{shown}");
    let page = shown["hosted_invoice_url"].as_str().unwrap();
    let paid = async |how: &str| {
        let url = format!("{page}/{how}");
        let answer = rig.client.post(url).body("card=succeeds").send();
        answer.await.unwrap().status().as_u16()
    };
    assert_eq!(paid("decline").await, 402);
    assert_eq!(paid("pay").await, 200);
    assert_eq!(paid("pay").await, 409);
    assert_eq!(latest().0, "active");
    assert_eq!(rig.stripe.payments().len(), 4);
    let void = |invoice: &str| format!("/v1/invoices/{invoice}/void");
    assert_eq!(rig.post(&void(&invoice), &[]).await.status, 400, "already paid");
    // A void invoice cannot be paid.
    rig.stripe.set_time(later + 24.hours() * 62);
    rig.stripe.renew_due();
    let (_, invoice) = latest();
    assert_eq!(rig.post(&void(&invoice), &[]).await.body["status"], "void");
    let refused = rig.stripe.pay_open_invoice(&invoice, Card::Succeeds);
    assert_eq!(refused, Err(PayError::Expired));
    assert_eq!(rig.stripe.payments().len(), 4);
}
