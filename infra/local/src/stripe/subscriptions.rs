//! Subscriptions and their renewals.

use jiff::{Span, Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use super::card::ChargeOutcome;
use super::error::ApiError;
use super::params::Params;
use super::state::{NotPossible, StripeState, list};
use super::{invoices, payment_intents};

/// Starts the subscription that was bought in `session`, with its first invoice paid.
pub(super) fn start(state: &mut StripeState, session: &str, intent: &str, method: &str) {
    let bought = state.get(session);
    let subscription = json!({
        "cancel_at_period_end": false,
        "canceled_at": null,
        "currency": bought["currency"],
        "customer": bought["customer"],
        "default_payment_method": method,
        "status": "active",
        "_amount": bought["amount_total"],
        // The start of the first period; period n ends n months after it.
        "_anchor": state.now,
        // The last invoiced period, counted from 1.
        "_period": 0,
        // A subscription schedule made in the dashboard decides when it ends.
        "_scheduled": false,
    });
    let id = state.add("sub", "subscription", subscription);
    let invoice = begin_period(state, &id, intent);
    state.emit("customer.subscription.created", &id);
    invoices::attempted(state, &invoice, true);
    state.set(session, json!({"subscription": id, "invoice": invoice}));
}

/// Starts the subscription's next period. Returns its invoice, which `intent` pays.
fn begin_period(state: &mut StripeState, id: &str, intent: &str) -> String {
    let of = state.get(id);
    let period = period(of) + 1;
    let [start, end] = [period - 1, period].map(|n| end_of_period(of, n).as_second());
    let line = json!({
        "object": "line_item",
        "amount": of["_amount"],
        "period": {"start": start, "end": end},
    });
    let item = json!({
        "object": "subscription_item",
        "current_period_start": start,
        "current_period_end": end,
    });
    let details = json!({"subscription": id});
    let invoice = json!({
        "attempt_count": 0,
        // A draft is finalized automatically.
        "auto_advance": true,
        "currency": of["currency"],
        "customer": of["customer"],
        "lines": list(line),
        "parent": {"type": "subscription_details", "subscription_details": details},
        "status": "open",
        "status_transitions": {"paid_at": null},
        "subtotal": of["_amount"],
        "total": of["_amount"],
        "_intent": intent,
        "_subscription": id,
    });
    let invoice = state.add("in", "invoice", invoice);
    let url = format!("{}/invoice/{invoice}", state.base_url);
    state.set(&invoice, json!({"hosted_invoice_url": url}));
    state.set(intent, json!({"_invoice": invoice}));
    state.set(id, json!({"items": list(item), "latest_invoice": invoice, "_period": period}));
    invoice
}

/// The id of a running subscription: an ended one can no longer be changed.
fn running(state: &StripeState, id: &str) -> Result<String, ApiError> {
    let id = state.known("subscription", id)?;
    if is_running(state.get(&id)) { Ok(id) } else { Err(ApiError::no_such("subscription", &id)) }
}

pub(super) fn update(
    state: &mut StripeState,
    id: &str,
    params: &Params,
) -> Result<String, ApiError> {
    params.only("cancel_at_period_end default_payment_method")?;
    let id = running(state, id)?;
    let subscription = state.get(&id);
    let at_end = params.boolean("cancel_at_period_end")?;
    if at_end.is_some() && subscription["_scheduled"] == true {
        let message = "The subscription is managed by the subscription schedule, and updating \
                       any cancelation behavior directly is not allowed.";
        return Err(ApiError::state(None, message));
    }
    if let Some(method) = params.get("default_payment_method") {
        let owner = &state.get(method)["customer"];
        if owner.is_null() || *owner != subscription["customer"] {
            return Err(ApiError::no_such_value("default_payment_method", method));
        }
        state.set(&id, json!({"default_payment_method": method}));
    }
    if let Some(at_end) = at_end {
        state.set(&id, json!({"cancel_at_period_end": at_end}));
    }
    state.emit("customer.subscription.updated", &id);
    Ok(id)
}

pub(super) fn cancel(state: &mut StripeState, id: &str) -> Result<String, ApiError> {
    let id = running(state, id)?;
    end(state, &id);
    Ok(id)
}

fn end(state: &mut StripeState, id: &str) {
    let now = state.now.as_second();
    state.set(id, json!({"status": "canceled", "canceled_at": now}));
    state.emit("customer.subscription.deleted", id);
}

/// Retries the past-due subscriptions, and renews those whose period is over.
pub(super) fn renew_due(state: &mut StripeState) {
    retry_due(state);
    renew_ended(state);
}

/// Retries the open invoices of past-due subscriptions.
pub(super) fn retry_due(state: &mut StripeState) {
    let due = running_where(state, |it| {
        let latest = it["latest_invoice"].as_str().unwrap_or_default();
        it["status"] == "past_due" && state.get(latest)["status"] == "open"
    });
    for id in due {
        collect_by_card(state, &id);
    }
}

/// Renews the subscriptions whose period is over, period by period, as their cards allow.
pub(super) fn renew_ended(state: &mut StripeState) {
    loop {
        let ended = with_ended_period(state);
        if ended.is_empty() {
            return;
        }
        for id in ended {
            collect_by_card(state, &id);
        }
    }
}

/// Starts the next period of the subscriptions whose period is over, with a draft invoice.
pub(super) fn draft_ended(state: &mut StripeState) {
    for id in with_ended_period(state) {
        // Cannot fail: the subscription is running.
        let _ = draft_renewal(state, &id);
    }
}

fn with_ended_period(state: &StripeState) -> Vec<String> {
    running_where(state, |it| {
        it["status"] != "past_due" && end_of_period(it, period(it)) <= state.now
    })
}

/// The ids of the running subscriptions for which this holds, oldest first.
fn running_where(state: &StripeState, condition: impl Fn(&Value) -> bool) -> Vec<String> {
    let found = state.all("sub_").filter(|(_, it)| is_running(it) && condition(it));
    found.map(|(id, _)| id.clone()).collect()
}

fn collect_by_card(state: &mut StripeState, subscription: &str) {
    let outcome = payment_intents::unattended(state, &invoices::method_of(state, subscription));
    // Cannot fail: the subscription is running.
    let _ = collect(state, subscription, outcome);
}

/// Starts the next period with a draft invoice, which is not collected yet. A subscription that
/// was to end with its period ends instead.
pub(super) fn draft_renewal(
    state: &mut StripeState,
    subscription: &str,
) -> Result<(), NotPossible> {
    let Some(invoice) = next_invoice(state, subscription)? else {
        return Ok(());
    };
    state.set(&invoice, json!({"status": "draft"}));
    state.emit("invoice.created", &invoice);
    state.emit("customer.subscription.updated", subscription);
    Ok(())
}

/// A subscription schedule made in the dashboard decides when the subscription ends, or no
/// longer does.
pub(super) fn schedule(state: &mut StripeState, subscription: &str, scheduled: bool) {
    state.set(subscription, json!({"_scheduled": scheduled}));
}

/// Finalizes the drafts and collects them, even if their subscription has ended.
pub(super) fn finalize_drafts(state: &mut StripeState) {
    let drafts = state
        .all("in_")
        .filter(|(_, invoice)| invoice["status"] == "draft" && invoice["auto_advance"] == true);
    let drafts: Vec<_> = drafts.map(|(id, _)| id.clone()).collect();
    for id in drafts {
        state.set(&id, json!({"status": "open"}));
        let of = state.text(&id, "_subscription");
        let outcome = payment_intents::unattended(state, &invoices::method_of(state, &of));
        invoices::charge(state, &id, outcome);
        let subscription = state.get(&of);
        if is_running(subscription) && subscription["latest_invoice"] == id {
            set_collected(state, &of, outcome);
        }
    }
}

fn set_collected(state: &mut StripeState, subscription: &str, outcome: ChargeOutcome) {
    let is_paid = matches!(outcome, ChargeOutcome::Succeeded);
    state.set(subscription, json!({"status": if is_paid { "active" } else { "past_due" }}));
    state.emit("customer.subscription.updated", subscription);
}

/// Makes one attempt to collect the due invoice, or else begins the next period and collects
/// that. A subscription that was to end with its period ends instead.
pub(super) fn collect(
    state: &mut StripeState,
    subscription: &str,
    outcome: ChargeOutcome,
) -> Result<(), NotPossible> {
    if let Some(invoice) = next_invoice(state, subscription)? {
        invoices::charge(state, &invoice, outcome);
        set_collected(state, subscription, outcome);
    }
    Ok(())
}

/// The invoice to collect now: the due one, or else that of the next period, which begins. A
/// subscription that was to end with its period ends instead, and has no invoice.
fn next_invoice(state: &mut StripeState, id: &str) -> Result<Option<String>, NotPossible> {
    if running(state, id).is_err() {
        return Err(NotPossible(format!("{id} is not running")));
    }
    let subscription = state.get(id);
    if subscription["status"] == "past_due" {
        return Ok(Some(state.text(id, "latest_invoice")));
    }
    if subscription["cancel_at_period_end"] == true {
        end(state, id);
        return Ok(None);
    }
    let intent = json!({
        "amount": subscription["_amount"],
        "currency": subscription["currency"],
        "customer": subscription["customer"],
    });
    let intent = payment_intents::add(state, intent);
    Ok(Some(begin_period(state, id, &intent)))
}

fn is_running(subscription: &Value) -> bool {
    subscription["status"] != "canceled"
}

/// The last invoiced period.
fn period(subscription: &Value) -> i64 {
    subscription["_period"].as_i64().unwrap_or_default()
}

fn end_of_period(subscription: &Value, n: i64) -> Timestamp {
    let anchor = subscription["_anchor"].as_str().unwrap_or_default();
    let anchor: Timestamp = anchor.parse().expect("a subscription has an anchor");
    anchor.to_zoned(TimeZone::UTC).saturating_add(Span::new().months(n)).timestamp()
}
