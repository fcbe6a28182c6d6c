//! PaymentIntents: confirmed, declined, cancelled, refunded, disputed.

use super::*;

#[tokio::test]
async fn a_confirmation_ends_as_its_card_says() {
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
        (Card::DeclinesHard, 402, "card_declined", "lost_card", "requires_payment_method"),
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
        assert_eq!(answer.status, status, "{card:?}");
        let shown = rig.get(&format!("{path}?expand[]=latest_charge")).await.body;
        assert_eq!(shown["status"], ends, "{card:?}");
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
    assert_eq!(rig.kinds(), [succeeded, failed, failed, failed, failed, processing]);
    assert_eq!(rig.stripe.payments().len(), 1);
}

#[tokio::test]
async fn attempts_follow_a_script_and_then_the_card() {
    let rig = Rig::start().await;
    let (intent, method) = rig.intent(Card::Succeeds).await;
    let customer = rig.stripe.object(&intent).unwrap()["customer"].clone();
    let customer = customer.as_str().unwrap();
    rig.stripe.set_card(customer, Card::DeclinesHard);
    rig.stripe.script(customer, &[Card::DeclinesSoftly, Card::TimesOutBeforeCharging]);
    let mut declines = Vec::new();
    for attempt in ["1", "2", "2", "3"] {
        if attempt == "3" {
            rig.stripe.set_card(customer, Card::Succeeds);
        }
        let answer = rig.confirm(&intent, &method, attempt).await;
        declines.push(answer.map(|answer| answer.error().2.to_owned()));
    }
    let expected = [Some("insufficient_funds"), None, Some("lost_card"), Some("")];
    assert_eq!(declines, expected.map(|it| it.map(str::to_owned)));
    let keys: Vec<_> = rig.stripe.seen().into_iter().map(|it| it.idempotency_key).collect();
    let sent = ["1", "2", "2", "3"].map(|key| Some(key.to_owned()));
    assert_eq!(keys[keys.len() - 4..], sent);
}

#[tokio::test]
async fn a_lost_response_is_replayed() {
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
    assert_eq!(rig.stripe.payments().len(), 1);

    let session = rig.session("payment", &[]).await.id();
    let pay = rig.client.post(rig.url(&format!("/checkout/{session}/pay")));
    assert!(pay.body("card=charges_silently").send().await.is_err());
    assert_eq!(rig.stripe.object(&session).unwrap()["payment_status"], "paid");
}

#[tokio::test]
async fn a_processing_payment_can_be_ended_later() {
    let rig = Rig::start().await;
    for succeeded in [true, false] {
        let (intent, method) = rig.intent(Card::Processing).await;
        rig.confirm(&intent, &method, &intent).await.unwrap();
        let cancel = rig.post(&format!("/v1/payment_intents/{intent}/cancel"), &[]).await;
        assert_eq!(cancel.error().1, "payment_intent_unexpected_state");
        rig.stripe.finish(&intent, succeeded).unwrap();
        rig.stripe.finish(&intent, succeeded).unwrap_err();

        let session = rig.session("payment", &[]).await.id();
        rig.stripe.pay(&session, Card::Processing).unwrap();
        let shown = rig.stripe.object(&session).unwrap();
        assert_eq!(
            (&shown["status"], &shown["payment_status"]),
            (&json!("complete"), &json!("unpaid"))
        );
        rig.kinds();
        let intent = shown["payment_intent"].as_str().unwrap();
        rig.stripe.finish(intent, succeeded).unwrap();
        let paid = rig.stripe.object(&session).unwrap()["payment_status"] == "paid";
        assert_eq!(paid, succeeded);
        let expected = if succeeded {
            ["payment_intent.succeeded", "checkout.session.async_payment_succeeded"]
        } else {
            ["payment_intent.payment_failed", "checkout.session.async_payment_failed"]
        };
        assert_eq!(rig.kinds(), expected);
    }

    let (intent, _) = rig.intent(Card::NeedsAuthentication).await;
    let path = format!("/v1/payment_intents/{intent}/confirm");
    assert_eq!(rig.post(&path, &[]).await.body["status"], "requires_action");
    assert_eq!(rig.kinds(), ["payment_intent.requires_action"]);
    rig.stripe.finish(&intent, true).unwrap();
    assert_eq!(rig.stripe.object(&intent).unwrap()["status"], "succeeded");
    assert_eq!(rig.stripe.payments().len(), 3);
}

#[tokio::test]
async fn a_payment_intent_changes_only_if_its_status_allows() {
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
    unexpected(&rig.post(&format!("/v1/payment_intents/{paid}/confirm"), &[]).await);

    // After a decline, a payment method must be given again.
    let (declined, method) = rig.intent(Card::DeclinesSoftly).await;
    rig.confirm(&declined, &method, "first").await.unwrap();
    unexpected(&rig.post(&format!("/v1/payment_intents/{declined}/confirm"), &[]).await);

    let session = rig.session("payment", &[]).await.id();
    rig.stripe.pay(&session, Card::DeclinesSoftly).unwrap_err();
    let begun = rig.stripe.object(&session).unwrap()["payment_intent"].clone();
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
async fn a_payment_is_refunded_once() {
    let rig = Rig::start().await;
    let intent = rig.paid_intent().await;
    rig.kinds();
    let refund = |amount: &'static str| {
        let form = [("payment_intent", intent.as_str()), ("amount", amount)];
        let request = rig.request(Method::POST, "/v1/refunds", &form);
        async { answer(request).await.unwrap() }
    };
    let part = refund("200").await;
    assert_eq!((&part.body["status"], &part.body["amount"]), (&json!("succeeded"), &json!(200)));
    assert_eq!(refund("301").await.status, 400);
    rig.stripe.refund_in_dashboard(&intent, 100).unwrap();
    assert_eq!(refund("").await.body["amount"], 200);
    assert_eq!(refund("").await.error().1, "charge_already_refunded");
    assert_eq!(rig.stripe.payments()[0].refunded, 500);
    let told = rig.stripe.webhooks.events();
    let (created, told): (Vec<_>, Vec<_>) =
        told.into_iter().partition(|event| event.kind == "refund.created");
    assert_eq!(created.len(), 3);
    let bodies = told.iter().map(|event| {
        assert_eq!(event.kind, "charge.refunded");
        let body: Value = serde_json::from_str(&event.body).unwrap();
        let charge = &body["data"]["object"];
        (charge["amount_refunded"].clone(), charge["refunded"].clone())
    });
    let expected = [(200, false), (300, false), (500, true)];
    assert!(bodies.eq(expected.map(|(cents, full)| (json!(cents), json!(full)))));

    let (unpaid, _) = rig.intent(Card::Succeeds).await;
    let refused = rig.post("/v1/refunds", &[("payment_intent", &unpaid)]).await;
    assert_eq!(refused.status, 400);
}

#[tokio::test]
async fn a_dispute_is_opened_and_closed() {
    let rig = Rig::start().await;
    let intent = rig.paid_intent().await;
    rig.kinds();
    for won in [true, false] {
        let dispute = rig.stripe.dispute(&intent).unwrap();
        rig.stripe.dispute(&intent).unwrap_err();
        let refund = rig.post("/v1/refunds", &[("payment_intent", &intent)]).await;
        assert_eq!(refund.error().1, "charge_disputed");
        rig.stripe.close_dispute(&dispute, won).unwrap();
        rig.stripe.close_dispute(&dispute, won).unwrap_err();
        let shown = rig.stripe.object(&dispute).unwrap();
        assert_eq!(shown["status"], if won { "won" } else { "lost" });
        assert_eq!(shown["payment_intent"], *intent);
        assert_eq!(rig.stripe.payments()[0].disputed, !won);
        let told = ["created", "funds_withdrawn", "funds_reinstated", "closed"];
        let told = told.into_iter().filter(|kind| won || *kind != "funds_reinstated");
        let told: Vec<_> = told.map(|kind| format!("charge.dispute.{kind}")).collect();
        assert_eq!(rig.kinds(), told);
    }
}

/// An inquiry moves no money; it can become a dispute.
#[tokio::test]
async fn an_inquiry_is_closed_or_becomes_a_dispute() {
    let rig = Rig::start().await;
    let intent = rig.paid_intent().await;
    let inquiry = rig.stripe.inquire(&intent).unwrap();
    assert!(!rig.stripe.payments()[0].disputed);
    rig.stripe.close_dispute(&inquiry, false).unwrap();
    assert_eq!(rig.stripe.object(&inquiry).unwrap()["status"], "warning_closed");
    rig.stripe.escalate(&inquiry).unwrap_err();
    let inquiry = rig.stripe.inquire(&intent).unwrap();
    rig.kinds();
    rig.stripe.escalate(&inquiry).unwrap();
    assert!(rig.stripe.payments()[0].disputed);
    assert_eq!(rig.kinds(), ["charge.dispute.updated", "charge.dispute.funds_withdrawn"]);
}

/// A refund that fails is listed as failed, and three events report it.
#[tokio::test]
async fn refunds_are_listed_with_their_status() {
    let rig = Rig::start().await;
    let intent = rig.paid_intent().await;
    for cents in [100, 200, 150] {
        rig.stripe.refund_in_dashboard(&intent, cents).unwrap();
    }
    rig.kinds();
    rig.stripe.bounce_refund(&intent).unwrap();
    assert_eq!(rig.kinds(), ["refund.updated", "charge.refund.updated", "refund.failed"]);
    assert_eq!(rig.stripe.payments()[0].refunded, 350);
    let page = async |after: &str| {
        let path = format!("/v1/refunds?payment_intent={intent}&limit=2{after}");
        let body = rig.get(&path).await.body;
        let listed = body["data"].as_array().unwrap().iter();
        let listed = listed.map(|it| format!("{} {}", it["amount"], it["status"]));
        let last = body["data"].as_array().unwrap().last().unwrap()["id"].clone();
        (listed.collect::<Vec<_>>(), body["has_more"] == true, last)
    };
    let (first, has_more, last) = page("").await;
    assert_eq!(first, [r#"150 "succeeded""#, r#"200 "succeeded""#]);
    let after = format!("&starting_after={}", last.as_str().unwrap());
    let (rest, is_more, _) = page(&after).await;
    assert_eq!(rest, [r#"100 "failed""#]);
    assert_eq!((has_more, is_more), (true, false));
}
