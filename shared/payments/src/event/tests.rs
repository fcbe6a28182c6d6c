//! Events as Stripe sends them, trimmed, in the shapes of old and new API versions.

use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::checkout::SessionStatus;
use crate::intent::IntentStatus;

fn event(kind: &str, version: &str, object: &Value) -> Event {
    let body = json!({
        "id": "evt_1NG8Du2eZvKYlo2CUI79vXWy", "object": "event", "api_version": version,
        "created": 1_686_089_970, "livemode": true, "pending_webhooks": 1,
        "request": {"id": null, "idempotency_key": null}, "type": kind, "data": {"object": object},
    });
    Event::parse(&serde_json::to_vec(&body).unwrap()).unwrap()
}

fn notice(kind: &str, object: &Value) -> Notice {
    event(kind, "2025-03-31.basil", object).notice
}

#[test]
fn only_a_body_that_is_no_event_is_an_error() {
    for body in [&b""[..], b"not json", b"\xff", b"{\"id\":"] {
        assert!(matches!(Event::parse(body), Err(EventError::NotJson(_))));
    }
    for body in ["[]", "{}", "null", r#"{"id":7}"#, r#"{"id":"evt/1"}"#, r#"{"id":""}"#] {
        let parsed = Event::parse(body.as_bytes());
        assert!(matches!(parsed, Err(EventError::NoId(_))), "{body}");
    }
    let least = Event::parse(br#"{"id":"evt_1"}"#).unwrap();
    assert_eq!(least.notice, Notice::Other);
    assert_eq!((least.livemode, least.kind), (false, "other"));
    let thin = br#"{"id":"evt_test_65","object":"v2.core.event","type":"v1.billing.meter.no_meter_found"}"#;
    assert_eq!(Event::parse(thin).unwrap().notice, Notice::Other);
}

#[test]
fn unknown_types_and_shapes_are_ignored() {
    let table = [
        ("customer.created", json!({"id": "cus_1"})),
        ("charge.succeeded", json!({"id": "ch_1"})),
        ("invoice.created", json!({"id": "in_1"})),
        ("checkout.session.completed", json!({"status": "complete"})),
        ("checkout.session.completed", json!({"id": "cs/../1"})),
        ("payment_intent.succeeded", json!({"id": 7})),
        ("payment_intent.succeeded", json!([])),
        ("invoice.paid", Value::Null),
        ("customer.subscription.deleted", json!({"object": "subscription"})),
        ("charge.refunded", json!("ch_1")),
        ("charge.dispute.created", json!({"status": "lost"})),
    ];
    for (kind, object) in table {
        let read = event(kind, "2099-01-01.future", &object);
        assert_eq!(read.notice, Notice::Other, "{kind} {object}");
        let kept = if KINDS.contains(&kind) { kind } else { "other" };
        assert_eq!((read.livemode, read.kind), (true, kept));
    }
}

#[test]
fn a_session_is_read_as_the_api_returns_it() {
    let session = json!({
        "id": "cs_test_a1Ae6ClgOkjygKwrf9B3L6ITtUuZW4Xx9FivL6DZYoYFdfAefQxsYpJJd3",
        "object": "checkout.session", "amount_subtotal": 500, "amount_total": 500,
        "client_reference_id": "n_17", "currency": "usd", "customer": "cus_1",
        "customer_details": {"email": "someone@example.com"}, "expires_at": 1_686_176_370,
        "livemode": true, "metadata": {}, "mode": "payment", "payment_intent": "pi_1",
        "payment_status": "paid", "setup_intent": null, "status": "complete",
        "subscription": null, "url": null,
    });
    for kind in ["completed", "async_payment_succeeded", "async_payment_failed", "expired"] {
        let read = notice(&format!("checkout.session.{kind}"), &session);
        let expected = CheckoutSession {
            id: "cs_test_a1Ae6ClgOkjygKwrf9B3L6ITtUuZW4Xx9FivL6DZYoYFdfAefQxsYpJJd3"
                .to_owned()
                .try_into()
                .unwrap(),
            status: SessionStatus::Complete,
            paid: true,
            url: None,
            expires_at: Timestamp::from_second(1_686_176_370).ok(),
            amount_total: Some(Cents::new(500)),
            currency: crate::Currency::Usd,
            customer: crate::CustomerId::new("cus_1").ok(),
            intent: IntentId::new("pi_1").ok(),
            subscription: None,
            invoice: None,
            setup_intent: None,
            livemode: Some(true),
        };
        let session = Box::new(expected);
        assert_eq!(read, Notice::Checkout { session });
    }
}

#[test]
fn a_session_is_paid_once_the_money_arrives() {
    // (mode, status, payment status) → paid
    let table = [
        ("payment", "complete", "paid", true),
        ("payment", "complete", "unpaid", false),
        ("payment", "open", "unpaid", false),
        ("payment", "complete", "no_payment_required", false),
        ("subscription", "complete", "paid", true),
        ("subscription", "complete", "no_payment_required", false),
        ("setup", "complete", "no_payment_required", true),
        ("setup", "open", "no_payment_required", false),
        ("setup", "expired", "no_payment_required", false),
    ];
    for (mode, status, payment_status, paid) in table {
        let wire = json!({"id": "cs_1", "mode": mode, "status": status,
            "payment_status": payment_status});
        assert_eq!(CheckoutSession::read(&wire).unwrap().paid, paid, "{wire}");
    }
    let least = CheckoutSession::read(&json!({"id": "cs_1", "amount_total": -5})).unwrap();
    assert_eq!((least.paid, least.amount_total), (false, None));
    assert_eq!(least.status, SessionStatus::Other);
}

#[test]
fn a_payment_is_read_from_old_and_new_shapes() {
    let old = json!({
        "id": "pi_1", "object": "payment_intent", "amount": 500, "amount_received": 500,
        "charges": {"object": "list", "data": [{"id": "ch_1", "created": 1_564_598_048}]},
        "currency": "usd", "customer": {"id": "cus_1", "object": "customer"},
        "last_payment_error": null, "livemode": false, "payment_method": "pm_1",
        "source": null, "status": "succeeded",
    });
    let new = json!({
        "id": "pi_1", "object": "payment_intent", "amount": 500, "amount_received": 500,
        "currency": "usd", "customer": "cus_1", "last_payment_error": null,
        "latest_charge": "ch_1", "livemode": false,
        "payment_method": {"id": "pm_1", "object": "payment_method"}, "status": "succeeded",
    });
    for wire in [old, new] {
        let Notice::Intent(read) = notice("payment_intent.succeeded", &wire) else {
            panic!("{wire}")
        };
        assert_eq!(read.status, IntentStatus::Succeeded);
        assert_eq!(read.amount_received, Some(Cents::new(500)));
        assert_eq!(read.customer, crate::CustomerId::new("cus_1").ok());
        assert_eq!(read.payment_method, crate::PaymentMethodId::new("pm_1").ok());
        assert_eq!((read.paid_at, read.decline), (None, None), "an event does not contain them");
    }
    let failed = json!({
        "id": "pi_1", "object": "payment_intent", "amount": 500, "amount_received": 0,
        "last_payment_error": {"type": "card_error", "code": "card_declined",
            "decline_code": "lost_card", "message": "Your card has been declined."},
        "latest_charge": "ch_2", "payment_method": null, "status": "requires_payment_method",
    });
    let Notice::Intent(read) = notice("payment_intent.payment_failed", &failed) else {
        panic!("{failed}")
    };
    assert_eq!(read.status, IntentStatus::RequiresPaymentMethod);
    assert!(read.decline.unwrap().hard);
}

#[test]
fn an_invoice_names_its_subscription_in_either_place() {
    let subscription = SubscriptionId::new("sub_1").ok();
    let old = json!({"id": "in_1", "object": "invoice", "paid": true, "subscription": "sub_1"});
    let expanded = json!({"id": "in_1", "subscription": {"id": "sub_1", "object": "subscription"}});
    let new = json!({"id": "in_1", "object": "invoice", "parent": {"quote_details": null,
        "subscription_details": {"metadata": {}, "subscription": "sub_1"},
        "type": "subscription_details"}});
    let single = json!({"id": "in_1", "object": "invoice", "parent": null});
    for (wire, subscription) in [
        (old, subscription.clone()),
        (expanded, subscription.clone()),
        (new, subscription),
        (single, None),
    ] {
        for kind in ["invoice.paid", "invoice.payment_failed"] {
            let expected = Notice::Invoice {
                id: InvoiceId::new("in_1").unwrap(),
                subscription: subscription.clone(),
            };
            assert_eq!(notice(kind, &wire), expected, "{wire}");
        }
    }
}

#[test]
fn a_subscription_event_names_its_subscription() {
    let id = SubscriptionId::new("sub_1").unwrap();
    for kind in ["created", "updated", "deleted"] {
        let wire = json!({"id": "sub_1", "object": "subscription", "status": "active"});
        let read = notice(&format!("customer.subscription.{kind}"), &wire);
        assert_eq!(read, Notice::Subscription { id: id.clone() });
    }
}

#[test]
fn a_refund_is_in_full_or_not() {
    let intent = IntentId::new("pi_1").ok();
    for (cents, full) in [(200, false), (500, true)] {
        let wire = json!({"id": "ch_1", "object": "charge", "amount": 500,
            "amount_refunded": cents, "payment_intent": "pi_1", "refunded": full});
        let expected = Notice::Refunded { intent: intent.clone(), full };
        assert_eq!(notice("charge.refunded", &wire), expected);
    }
    let least = Notice::Refunded { intent: None, full: false };
    assert_eq!(notice("charge.refunded", &json!({"id": "ch_1"})), least);
}

#[test]
fn a_failed_refund_names_its_payment_intent() {
    let wire = json!({"id": "re_1", "object": "refund", "status": "failed",
        "payment_intent": "pi_1", "failure_reason": "lost_or_stolen_card"});
    let intent = IntentId::new("pi_1").ok();
    let expected = Notice::RefundFailed { intent };
    for kind in ["refund.failed", "refund.updated", "charge.refund.updated"] {
        assert_eq!(notice(kind, &wire), expected);
        let pending = json!({"id": "re_1", "status": "pending", "payment_intent": "pi_1"});
        assert_eq!(notice(kind, &pending), Notice::Other);
    }
}

#[test]
fn a_disputes_status_determines_its_state() {
    use DisputeState::{Inquiry, Lost, Open, Other, Won};
    let table = [
        ("created", "warning_needs_response", Inquiry),
        ("updated", "warning_under_review", Inquiry),
        ("created", "needs_response", Open),
        ("updated", "needs_response", Open),
        ("funds_withdrawn", "under_review", Open),
        ("funds_reinstated", "won", Won),
        ("closed", "won", Won),
        ("closed", "warning_closed", Inquiry),
        ("closed", "lost", Lost),
        ("closed", "charge_refunded", Lost),
        ("created", "prevented", Lost),
        ("closed", "a_status_of_the_future", Other),
    ];
    for (kind, status, state) in table {
        let wire = json!({"id": "dp_1", "object": "dispute", "amount": 500, "charge": "ch_1",
            "payment_intent": "pi_1", "reason": "fraudulent", "status": status});
        let expected = Notice::Dispute {
            id: DisputeId::new("dp_1").unwrap(),
            intent: IntentId::new("pi_1").ok(),
            amount: Some(Cents::new(500)),
            state,
        };
        let read = notice(&format!("charge.dispute.{kind}"), &wire);
        assert_eq!(read, expected, "{kind} {status}");
    }
}
