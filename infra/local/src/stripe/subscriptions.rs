//! Subscriptions and their invoices.

use jiff::Timestamp;
use serde_json::Value;

use super::card::{Card, ChargeOutcome, decline_message};
use super::checkout::PayError;
use super::error::ApiError;
use super::params::Params;
use super::resources::{Invoice, Session, Subscription};
use super::state::{NotPossible, StripeState, existing};

impl StripeState {
    /// Starts the subscription that was bought in `session`. Returns the ids of the subscription
    /// and of its first invoice.
    pub(super) fn subscribe(
        &mut self,
        session: &Session,
        intent: &str,
        method: String,
    ) -> (String, String) {
        let id = self.new_id("sub");
        let invoice = self.new_id("in");
        let subscription = Subscription {
            id: id.clone(),
            anchor: self.now,
            currency: session.currency.clone().unwrap_or_default(),
            customer: session.customer.clone().unwrap_or_default(),
            method,
            metadata: session.inner_metadata.clone(),
            latest_invoice: invoice.clone(),
            period: 1,
            amount: session.amount.unwrap_or_default(),
            ..Subscription::default()
        };
        self.subscriptions.insert(id.clone(), subscription);
        self.new_invoice(&invoice, &id, 1, intent);
        self.emit("customer.subscription.created", &id);
        self.invoice_paid(&invoice);
        (id, invoice)
    }

    /// The id of a running subscription: one that has ended can no longer be changed.
    fn running(&self, id: &str) -> Result<String, ApiError> {
        let found = self.subscriptions.get(id);
        match found.filter(|subscription| subscription.is_running()) {
            Some(_) => Ok(id.to_owned()),
            None => Err(ApiError::no_such("subscription", id)),
        }
    }

    pub(super) fn update_subscription(
        &mut self,
        id: &str,
        params: &Params,
    ) -> Result<String, ApiError> {
        params.only("cancel_at_period_end default_payment_method metadata")?;
        let id = self.running(id)?;
        let at_end = params.boolean("cancel_at_period_end")?;
        let subscription = existing(&mut self.subscriptions, &id);
        if at_end.is_some() && subscription.scheduled {
            let message = "The subscription is managed by the subscription schedule, and updating \
                           any cancelation behavior directly is not allowed.";
            return Err(ApiError::state(None, message));
        }
        if let Some(method) = params.owned("default_payment_method") {
            let known = self.methods.get(&method);
            let owner = known.and_then(|known| known.customer.as_ref());
            if owner != Some(&subscription.customer) {
                return Err(ApiError::no_such_value("default_payment_method", &method));
            }
            subscription.method = method;
        }
        subscription.cancel_at_period_end = at_end.unwrap_or(subscription.cancel_at_period_end);
        subscription.metadata.extend(params.map("metadata"));
        self.emit("customer.subscription.updated", &id);
        Ok(id)
    }

    pub(super) fn cancel_subscription(&mut self, id: &str) -> Result<String, ApiError> {
        let id = self.running(id)?;
        self.end_subscription(&id);
        Ok(id)
    }

    fn end_subscription(&mut self, id: &str) {
        existing(&mut self.subscriptions, id).canceled_at = Some(self.now);
        self.emit("customer.subscription.deleted", id);
    }

    fn new_invoice(&mut self, id: &str, subscription: &str, period: i32, intent: &str) {
        existing(&mut self.intents, intent).invoice = Some(id.to_owned());
        let invoice = Invoice {
            id: id.to_owned(),
            created: self.now,
            auto_advance: true,
            subscription: subscription.to_owned(),
            period,
            payment_intent: intent.to_owned(),
            ..Invoice::default()
        };
        self.invoices.insert(id.to_owned(), invoice);
    }

    fn invoice_paid(&mut self, id: &str) {
        let invoice = existing(&mut self.invoices, id);
        invoice.attempts += 1;
        invoice.paid_at = Some(self.now);
        self.emit("invoice.paid", id);
    }

    pub(super) fn update_invoice(&mut self, id: &str, params: &Params) -> Result<String, ApiError> {
        params.only("auto_advance")?;
        let id = self.known("invoice", id)?;
        let advance = params.boolean("auto_advance")?;
        let invoice = existing(&mut self.invoices, &id);
        invoice.auto_advance = advance.unwrap_or(invoice.auto_advance);
        Ok(id)
    }

    /// Pays the invoice with the subscription's card.
    pub(super) fn pay_invoice(&mut self, id: &str) -> Result<String, ApiError> {
        let id = self.known("invoice", id)?;
        let method = &self.subscriptions[&self.invoices[&id].subscription].method;
        let card = self.methods[method].card;
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
        if !self.invoices[&id].is_open() {
            let message = "You can only void open or uncollectible invoices.";
            return Err(ApiError::state(None, message));
        }
        existing(&mut self.invoices, &id).void = true;
        self.emit("invoice.voided", &id);
        Ok(id)
    }

    pub(super) fn invoice_payment(&self, invoice: &Invoice) -> Value {
        invoice.payment_json(&self.subscriptions[&invoice.subscription], self.livemode)
    }

    /// The customer pays an open invoice on its page.
    pub fn pay_open_invoice(&mut self, id: &str, card: Card) -> Result<(), PayError> {
        let invoice = self.invoices.get(id).ok_or(PayError::NotFound)?;
        if invoice.paid_at.is_some() {
            return Err(PayError::Complete);
        }
        if !invoice.is_open() {
            return Err(PayError::Expired);
        }
        let (intent, subscription) = (invoice.payment_intent.clone(), invoice.subscription.clone());
        let customer = self.subscriptions[&subscription].customer.clone();
        let method = self.add_method(Some(customer), card);
        let outcome = match card.charge(false) {
            declined @ ChargeOutcome::Declined(_) => declined,
            _ => ChargeOutcome::Succeeded,
        };
        self.attempt(&intent, &method, outcome);
        if let ChargeOutcome::Declined(reason) = outcome {
            return Err(PayError::Declined(decline_message(reason)));
        }
        let of = existing(&mut self.subscriptions, &subscription);
        of.past_due &= of.latest_invoice != id;
        self.invoice_paid(id);
        self.emit("customer.subscription.updated", &subscription);
        Ok(())
    }

    /// Retries what is due, and renews the subscriptions whose period is over.
    pub fn renew_due(&mut self) {
        self.retry_due();
        self.renew_ended();
    }

    /// Retries what subscriptions could not collect.
    pub fn retry_due(&mut self) {
        let is_due = |it: &Subscription| it.past_due && self.invoices[&it.latest_invoice].is_open();
        for id in self.running_where(is_due) {
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
            // It is running.
            let _ = self.draft_renewal(&id);
        }
    }

    fn with_ended_period(&self) -> Vec<String> {
        self.running_where(|it| !it.past_due && it.end_of_period(it.period) <= self.now)
    }

    /// The ids of the running subscriptions for which this holds, oldest first.
    fn running_where(&self, condition: impl Fn(&Subscription) -> bool) -> Vec<String> {
        let all = self.subscriptions.values();
        let found = all.filter(|it| it.is_running() && condition(it));
        let mut found: Vec<(Timestamp, String)> =
            found.map(|it| (it.anchor, it.id.clone())).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, id)| id).collect()
    }

    fn collect_by_card(&mut self, subscription: &str) {
        let outcome = self.unattended(&self.subscriptions[subscription].method);
        // It is running.
        let _ = self.collect(subscription, outcome);
    }

    /// Starts the next period with a draft invoice, which is not collected yet. A subscription that
    /// was to end with its period ends instead.
    pub fn draft_renewal(&mut self, subscription: &str) -> Result<(), NotPossible> {
        let Some(invoice) = self.next_invoice(subscription)? else {
            return Ok(());
        };
        existing(&mut self.invoices, &invoice).draft = true;
        self.emit("invoice.created", &invoice);
        self.emit("customer.subscription.updated", subscription);
        Ok(())
    }

    /// A subscription schedule made in the dashboard decides when the subscription ends, or no
    /// longer does.
    pub fn schedule(&mut self, subscription: &str, scheduled: bool) {
        existing(&mut self.subscriptions, subscription).scheduled = scheduled;
    }

    /// Finalizes the drafts and collects them, even if their subscription has ended.
    pub fn finalize_drafts(&mut self) {
        let drafts = self.invoices.values();
        let drafts = drafts.filter(|invoice| invoice.draft && invoice.auto_advance);
        let mut drafts: Vec<_> = drafts.map(|invoice| invoice.id.clone()).collect();
        drafts.sort_unstable();
        for id in drafts {
            let invoice = existing(&mut self.invoices, &id);
            invoice.draft = false;
            let of = invoice.subscription.clone();
            let outcome = self.unattended(&self.subscriptions[&of].method);
            self.charge_invoice(&id, outcome);
            let is_due = self.invoices[&id].paid_at.is_none();
            let subscription = existing(&mut self.subscriptions, &of);
            if subscription.is_running() && subscription.latest_invoice == id {
                subscription.past_due = is_due;
                self.emit("customer.subscription.updated", &of);
            }
        }
    }

    /// One attempt to collect an invoice.
    fn charge_invoice(&mut self, id: &str, outcome: ChargeOutcome) {
        let invoice = &self.invoices[id];
        let method = self.subscriptions[&invoice.subscription].method.clone();
        let intent = invoice.payment_intent.clone();
        self.attempt(&intent, &method, outcome);
        if matches!(outcome, ChargeOutcome::Succeeded) {
            self.invoice_paid(id);
        } else {
            existing(&mut self.invoices, id).attempts += 1;
            self.emit("invoice.payment_failed", id);
        }
    }

    /// One attempt to collect what is due, or the next period, which begins. A subscription that
    /// was to end with its period ends instead.
    pub(super) fn collect(
        &mut self,
        subscription: &str,
        outcome: ChargeOutcome,
    ) -> Result<(), NotPossible> {
        let Some(invoice) = self.next_invoice(subscription)? else {
            return Ok(());
        };
        let is_paid = matches!(outcome, ChargeOutcome::Succeeded);
        existing(&mut self.subscriptions, subscription).past_due = !is_paid;
        self.charge_invoice(&invoice, outcome);
        self.emit("customer.subscription.updated", subscription);
        Ok(())
    }

    /// The invoice to collect now: the one that is due, or the next period's, which begins. None
    /// for a subscription that was to end with its period: it ends.
    fn next_invoice(&mut self, subscription: &str) -> Result<Option<String>, NotPossible> {
        let found = self.subscriptions.get(subscription);
        let Some(found) = found.filter(|it| it.is_running()).cloned() else {
            return Err(NotPossible(format!("{subscription} is not running")));
        };
        if found.past_due {
            return Ok(Some(found.latest_invoice));
        }
        if found.cancel_at_period_end {
            self.end_subscription(subscription);
            return Ok(None);
        }
        let intent = self.new_intent(found.amount, found.currency, Some(found.customer));
        let invoice = self.new_id("in");
        let period = found.period + 1;
        self.new_invoice(&invoice, subscription, period, &intent);
        let running = existing(&mut self.subscriptions, subscription);
        running.period = period;
        running.latest_invoice.clone_from(&invoice);
        Ok(Some(invoice))
    }
}
