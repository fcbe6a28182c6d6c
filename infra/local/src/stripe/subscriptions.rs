//! Subscriptions and their invoices.

use jiff::{Span, Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use super::card::{Card, ChargeOutcome, decline_message};
use super::checkout::PayError;
use super::error::ApiError;
use super::params::Params;
use super::state::{NotPossible, StripeState, list};

impl StripeState {
    /// Starts the subscription that was bought in `session`, with its first invoice paid.
    pub(super) fn subscribe(&mut self, session: &str, intent: &str, method: &str) {
        let bought = self.get(session);
        let subscription = json!({
            "cancel_at_period_end": false,
            "canceled_at": null,
            "currency": bought["currency"],
            "customer": bought["customer"],
            "default_payment_method": method,
            "status": "active",
            "_amount": bought["amount_total"],
            // The start of the first period; period n ends n months after it.
            "_anchor": self.now,
            // The last invoiced period, counted from 1.
            "_period": 0,
            // A subscription schedule made in the dashboard decides when it ends.
            "_scheduled": false,
        });
        let id = self.add("sub", "subscription", subscription);
        let invoice = self.begin_period(&id, intent);
        self.emit("customer.subscription.created", &id);
        self.attempted(&invoice, true);
        self.set(session, json!({"subscription": id, "invoice": invoice}));
    }

    /// Starts the subscription's next period. Returns its invoice, which `intent` pays.
    fn begin_period(&mut self, id: &str, intent: &str) -> String {
        let of = self.get(id);
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
        let invoice = self.add("in", "invoice", invoice);
        let url = format!("{}/invoice/{invoice}", self.base_url);
        self.set(&invoice, json!({"hosted_invoice_url": url}));
        self.set(intent, json!({"_invoice": invoice}));
        self.set(id, json!({"items": list(item), "latest_invoice": invoice, "_period": period}));
        invoice
    }

    /// The id of a running subscription: an ended one can no longer be changed.
    fn running(&self, id: &str) -> Result<String, ApiError> {
        let id = self.known("subscription", id)?;
        if is_running(self.get(&id)) { Ok(id) } else { Err(ApiError::no_such("subscription", &id)) }
    }

    pub(super) fn update_subscription(
        &mut self,
        id: &str,
        params: &Params,
    ) -> Result<String, ApiError> {
        params.only("cancel_at_period_end default_payment_method")?;
        let id = self.running(id)?;
        let subscription = self.get(&id);
        let at_end = params.boolean("cancel_at_period_end")?;
        if at_end.is_some() && subscription["_scheduled"] == true {
            let message = "The subscription is managed by the subscription schedule, and updating \
                           any cancelation behavior directly is not allowed.";
            return Err(ApiError::state(None, message));
        }
        if let Some(method) = params.get("default_payment_method") {
            let owner = &self.get(method)["customer"];
            if owner.is_null() || *owner != subscription["customer"] {
                return Err(ApiError::no_such_value("default_payment_method", method));
            }
            self.set(&id, json!({"default_payment_method": method}));
        }
        if let Some(at_end) = at_end {
            self.set(&id, json!({"cancel_at_period_end": at_end}));
        }
        self.emit("customer.subscription.updated", &id);
        Ok(id)
    }

    pub(super) fn cancel_subscription(&mut self, id: &str) -> Result<String, ApiError> {
        let id = self.running(id)?;
        self.end_subscription(&id);
        Ok(id)
    }

    fn end_subscription(&mut self, id: &str) {
        let now = self.now.as_second();
        self.set(id, json!({"status": "canceled", "canceled_at": now}));
        self.emit("customer.subscription.deleted", id);
    }

    /// Records an attempt to collect the invoice.
    fn attempted(&mut self, id: &str, is_paid: bool) {
        let attempts = self.integer(id, "attempt_count") + 1;
        self.set(id, json!({"attempt_count": attempts}));
        if is_paid {
            let transitions = json!({"paid_at": self.now.as_second()});
            self.set(id, json!({"status": "paid", "status_transitions": transitions}));
        }
        self.emit(if is_paid { "invoice.paid" } else { "invoice.payment_failed" }, id);
    }

    pub(super) fn update_invoice(&mut self, id: &str, params: &Params) -> Result<String, ApiError> {
        params.only("auto_advance")?;
        let id = self.known("invoice", id)?;
        if let Some(advance) = params.boolean("auto_advance")? {
            self.set(&id, json!({"auto_advance": advance}));
        }
        Ok(id)
    }

    /// Pays the invoice with the subscription's card.
    pub(super) fn pay_invoice(&mut self, id: &str) -> Result<String, ApiError> {
        let id = self.known("invoice", id)?;
        let card = self.cards[&self.method_of(&self.text(&id, "_subscription"))];
        match self.pay_open_invoice(&id, card) {
            Ok(()) => Ok(id),
            Err(PayError::Declined(message)) => {
                Err(ApiError::state(Some("card_declined"), message))
            }
            Err(_) => Err(ApiError::state(None, "Invoice is already paid")),
        }
    }

    pub(super) fn void_invoice(&mut self, id: &str) -> Result<String, ApiError> {
        let id = self.known("invoice", id)?;
        if self.get(&id)["status"] != "open" {
            let message = "You can only void open or uncollectible invoices.";
            return Err(ApiError::state(None, message));
        }
        self.set(&id, json!({"status": "void"}));
        self.emit("invoice.voided", &id);
        Ok(id)
    }

    /// The customer pays an open invoice on its page.
    pub fn pay_open_invoice(&mut self, id: &str, card: Card) -> Result<(), PayError> {
        if self.known("invoice", id).is_err() {
            return Err(PayError::NotFound);
        }
        match self.text(id, "status").as_str() {
            "open" => {}
            "paid" => return Err(PayError::Complete),
            _ => return Err(PayError::Expired),
        }
        let method = self.add_method(Some(self.text(id, "customer")), card);
        let outcome = match card.charge(false) {
            declined @ ChargeOutcome::Declined(_) => declined,
            _ => ChargeOutcome::Succeeded,
        };
        self.attempt(&self.text(id, "_intent"), &method, outcome);
        if let ChargeOutcome::Declined(reason) = outcome {
            return Err(PayError::Declined(decline_message(reason)));
        }
        let subscription = self.text(id, "_subscription");
        let of = self.get(&subscription);
        if of["status"] == "past_due" && of["latest_invoice"] == id {
            self.set(&subscription, json!({"status": "active"}));
        }
        self.attempted(id, true);
        self.emit("customer.subscription.updated", &subscription);
        Ok(())
    }

    /// Retries the past-due subscriptions, and renews those whose period is over.
    pub fn renew_due(&mut self) {
        self.retry_due();
        self.renew_ended();
    }

    /// Retries the open invoices of past-due subscriptions.
    pub fn retry_due(&mut self) {
        let due = self.running_where(|it| {
            let latest = it["latest_invoice"].as_str().unwrap_or_default();
            it["status"] == "past_due" && self.get(latest)["status"] == "open"
        });
        for id in due {
            self.collect_by_card(&id);
        }
    }

    /// Renews the subscriptions whose period is over, period by period, as their cards allow.
    pub fn renew_ended(&mut self) {
        loop {
            let ended = self.with_ended_period();
            if ended.is_empty() {
                return;
            }
            for id in ended {
                self.collect_by_card(&id);
            }
        }
    }

    /// Starts the next period of the subscriptions whose period is over, with a draft invoice.
    pub fn draft_ended(&mut self) {
        for id in self.with_ended_period() {
            // Cannot fail: the subscription is running.
            let _ = self.draft_renewal(&id);
        }
    }

    fn with_ended_period(&self) -> Vec<String> {
        self.running_where(|it| {
            it["status"] != "past_due" && end_of_period(it, period(it)) <= self.now
        })
    }

    /// The ids of the running subscriptions for which this holds, oldest first.
    fn running_where(&self, condition: impl Fn(&Value) -> bool) -> Vec<String> {
        let found = self.all("sub_").filter(|(_, it)| is_running(it) && condition(it));
        found.map(|(id, _)| id.clone()).collect()
    }

    fn collect_by_card(&mut self, subscription: &str) {
        let outcome = self.unattended(&self.method_of(subscription));
        // Cannot fail: the subscription is running.
        let _ = self.collect(subscription, outcome);
    }

    fn method_of(&self, subscription: &str) -> String {
        self.text(subscription, "default_payment_method")
    }

    /// Starts the next period with a draft invoice, which is not collected yet. A subscription that
    /// was to end with its period ends instead.
    pub fn draft_renewal(&mut self, subscription: &str) -> Result<(), NotPossible> {
        let Some(invoice) = self.next_invoice(subscription)? else {
            return Ok(());
        };
        self.set(&invoice, json!({"status": "draft"}));
        self.emit("invoice.created", &invoice);
        self.emit("customer.subscription.updated", subscription);
        Ok(())
    }

    /// A subscription schedule made in the dashboard decides when the subscription ends, or no
    /// longer does.
    pub fn schedule(&mut self, subscription: &str, scheduled: bool) {
        self.set(subscription, json!({"_scheduled": scheduled}));
    }

    /// Finalizes the drafts and collects them, even if their subscription has ended.
    pub fn finalize_drafts(&mut self) {
        let drafts = self
            .all("in_")
            .filter(|(_, invoice)| invoice["status"] == "draft" && invoice["auto_advance"] == true);
        let drafts: Vec<_> = drafts.map(|(id, _)| id.clone()).collect();
        for id in drafts {
            self.set(&id, json!({"status": "open"}));
            let of = self.text(&id, "_subscription");
            let outcome = self.unattended(&self.method_of(&of));
            self.charge_invoice(&id, outcome);
            let subscription = self.get(&of);
            if is_running(subscription) && subscription["latest_invoice"] == id {
                self.set_collected(&of, outcome);
            }
        }
    }

    /// Makes one attempt to collect an invoice.
    fn charge_invoice(&mut self, id: &str, outcome: ChargeOutcome) {
        let method = self.method_of(&self.text(id, "_subscription"));
        self.attempt(&self.text(id, "_intent"), &method, outcome);
        self.attempted(id, matches!(outcome, ChargeOutcome::Succeeded));
    }

    fn set_collected(&mut self, subscription: &str, outcome: ChargeOutcome) {
        let is_paid = matches!(outcome, ChargeOutcome::Succeeded);
        self.set(subscription, json!({"status": if is_paid { "active" } else { "past_due" }}));
        self.emit("customer.subscription.updated", subscription);
    }

    /// Makes one attempt to collect the due invoice, or else begins the next period and collects
    /// that. A subscription that was to end with its period ends instead.
    pub(super) fn collect(
        &mut self,
        subscription: &str,
        outcome: ChargeOutcome,
    ) -> Result<(), NotPossible> {
        if let Some(invoice) = self.next_invoice(subscription)? {
            self.charge_invoice(&invoice, outcome);
            self.set_collected(subscription, outcome);
        }
        Ok(())
    }

    /// The invoice to collect now: the due one, or else that of the next period, which begins. A
    /// subscription that was to end with its period ends instead, and has no invoice.
    fn next_invoice(&mut self, id: &str) -> Result<Option<String>, NotPossible> {
        if self.running(id).is_err() {
            return Err(NotPossible(format!("{id} is not running")));
        }
        let subscription = self.get(id);
        if subscription["status"] == "past_due" {
            return Ok(Some(self.text(id, "latest_invoice")));
        }
        if subscription["cancel_at_period_end"] == true {
            self.end_subscription(id);
            return Ok(None);
        }
        let intent = json!({
            "amount": subscription["_amount"],
            "currency": subscription["currency"],
            "customer": subscription["customer"],
        });
        let intent = self.new_intent(intent);
        Ok(Some(self.begin_period(id, &intent)))
    }
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
