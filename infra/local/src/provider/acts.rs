//! What the customer, the bank and time itself do, past the API.

use jiff::Timestamp;

use super::card::{Card, Decline, Verdict};
use super::objects::{
    Dispute, IntentStatus, Invoice, Mode, Session, SessionStatus, SetupIntent, Subscription,
};
use super::state::{ProviderState, kept};

/// Why a checkout session was not paid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayError {
    #[error("there is no such checkout session")]
    NoSuchSession,
    #[error("this checkout session was paid already")]
    Complete,
    #[error("this checkout session has expired")]
    Expired,
    #[error("{0}")]
    Declined(&'static str),
    /// The payer's browser gets no answer; the session says whether it was paid.
    #[error("the connection was closed")]
    NoAnswer,
}

/// An act that does not fit the object's state, or an object that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Impossible(pub(super) String);

fn impossible<T>(why: impl Into<String>) -> Result<T, Impossible> {
    Err(Impossible(why.into()))
}

impl ProviderState {
    /// Makes a customer, and returns its id.
    pub fn add_customer(&mut self, now: Timestamp) -> String {
        self.new_customer(None, now).id.clone()
    }

    /// Gives a customer a card, as a checkout session does that keeps it. Returns the id of the
    /// payment method.
    ///
    /// # Errors
    /// If there is no such customer.
    pub fn add_card(
        &mut self,
        customer: &str,
        card: Card,
        now: Timestamp,
    ) -> Result<String, Impossible> {
        if !self.customers.contains_key(customer) {
            return impossible(format!("there is no customer {customer}"));
        }
        Ok(self.new_method(Some(customer.to_owned()), card, now))
    }

    /// From now on all cards that the customer has behave like this.
    pub fn set_card(&mut self, customer: &str, card: Card) {
        let owner = self.customers.get(customer);
        for id in owner.map(|it| it.methods.clone()).unwrap_or_default() {
            kept(&mut self.methods, &id).card = card;
        }
    }

    /// The next attempts to charge the customer through the API do this, one after the other, and
    /// those after them what the card does.
    pub fn script(&mut self, customer: &str, attempts: &[Card]) {
        if let Some(owner) = self.customers.get_mut(customer) {
            owner.script = attempts.iter().copied().collect();
        }
    }

    /// How an intent ends that is `processing` or waits for the customer's authentication.
    ///
    /// # Errors
    /// If it is neither.
    pub fn finish(
        &mut self,
        intent: &str,
        succeeded: bool,
        now: Timestamp,
    ) -> Result<(), Impossible> {
        let found = self.intents.get(intent).filter(|it| {
            use IntentStatus::{Processing, RequiresAction};
            matches!(it.status, Processing | RequiresAction)
        });
        let Some(found) = found else {
            return impossible(format!("{intent} is not under way"));
        };
        let (method, session) = (
            found.method.clone().unwrap_or_default(),
            found.session.clone(),
        );
        let verdict = if succeeded {
            Verdict::Charge
        } else {
            Verdict::Decline(&Decline::GENERIC)
        };
        self.attempt(intent, &method, verdict, now);
        if let Some(session) = session {
            kept(&mut self.sessions, &session).paid = succeeded;
            let told = if succeeded {
                "checkout.session.async_payment_succeeded"
            } else {
                "checkout.session.async_payment_failed"
            };
            self.tell(told, &session, now);
        }
        Ok(())
    }

    /// The customer pays on the checkout page. Returns where the page sends the browser then.
    ///
    /// # Errors
    /// [`PayError`]; with [`PayError::NoAnswer`] it may have been paid all the same.
    pub fn pay(&mut self, session: &str, card: Card, now: Timestamp) -> Result<String, PayError> {
        self.advance_to(now);
        let found = self
            .sessions
            .get(session)
            .ok_or(PayError::NoSuchSession)?
            .clone();
        match found.status {
            SessionStatus::Open => {}
            SessionStatus::Complete => return Err(PayError::Complete),
            SessionStatus::Expired => return Err(PayError::Expired),
        }
        let verdict = match card.verdict(false) {
            Verdict::Nothing => return Err(PayError::NoAnswer),
            // The customer is present and does it.
            Verdict::Authenticate => Verdict::Charge,
            // Only one-time payments take a while.
            Verdict::Process if found.mode != Mode::Payment => Verdict::Charge,
            verdict => verdict,
        };
        if let Verdict::Decline(decline) = verdict {
            if found.mode != Mode::Setup {
                let intent = self.session_intent(&found, now);
                let method = self.new_method(None, card, now);
                self.attempt(&intent, &method, verdict, now);
            }
            return Err(if card.loses_the_answer() {
                PayError::NoAnswer
            } else {
                PayError::Declined(decline.message)
            });
        }
        self.complete(found, card, verdict, now);
        if card.loses_the_answer() {
            return Err(PayError::NoAnswer);
        }
        let session = &self.sessions[session];
        Ok(session
            .success_url
            .replace("{CHECKOUT_SESSION_ID}", &session.id))
    }

    /// The customer tries to pay with a card that is declined.
    ///
    /// # Errors
    /// Always; [`PayError::Declined`] if the session was open.
    pub fn decline(&mut self, session: &str, now: Timestamp) -> Result<String, PayError> {
        self.pay(session, Card::DeclinesSoftly, now)
    }

    /// The intent of a session: one for all attempts in it.
    fn session_intent(&mut self, session: &Session, now: Timestamp) -> String {
        if let Some(intent) = &session.intent {
            return intent.clone();
        }
        let id = self.new_intent(
            session.amount.unwrap_or_default(),
            session.currency.clone().unwrap_or_default(),
            session.customer.clone(),
            now,
        );
        let intent = kept(&mut self.intents, &id);
        intent.session = Some(session.id.clone());
        intent.keeps_method = session.keeps_method;
        if session.mode == Mode::Payment {
            intent.metadata.clone_from(&session.inner_metadata);
        }
        let session = kept(&mut self.sessions, &session.id);
        session.intent = Some(id.clone());
        id
    }

    fn complete(&mut self, mut session: Session, card: Card, verdict: Verdict, now: Timestamp) {
        if session.customer.is_none() && session.makes_customer {
            let customer = self.new_customer(session.email.clone(), now);
            session.customer = Some(customer.id.clone());
        }
        let owner = session.customer.clone().filter(|_| session.keeps_method);
        let method = self.new_method(owner, card, now);
        if session.mode != Mode::Setup {
            let intent = self.session_intent(&session, now);
            let made = kept(&mut self.intents, &intent);
            made.customer.clone_from(&session.customer);
            session.intent = Some(intent.clone());
            self.attempt(&intent, &method, verdict, now);
            session.paid = matches!(verdict, Verdict::Charge);
        }
        match session.mode {
            Mode::Payment => {}
            Mode::Subscription => {
                let (subscription, invoice) = self.subscribe(&session, method, now);
                session.subscription = Some(subscription);
                session.invoice = Some(invoice);
            }
            Mode::Setup => {
                let id = self.new_id("seti");
                session.setup_intent = Some(id.clone());
                let setup = SetupIntent {
                    id: id.clone(),
                    created: now,
                    customer: session.customer.clone(),
                    method,
                    metadata: session.inner_metadata.clone(),
                };
                self.setup_intents.insert(id, setup);
            }
        }
        session.status = SessionStatus::Complete;
        let id = session.id.clone();
        self.open_sessions.remove(&(session.expires_at, id.clone()));
        self.sessions.insert(id.clone(), session);
        self.tell("checkout.session.completed", &id, now);
    }

    fn subscribe(&mut self, session: &Session, method: String, now: Timestamp) -> (String, String) {
        let id = self.new_id("sub");
        let intent = session.intent.clone().unwrap_or_default();
        let invoice = self.new_id("in");
        let subscription = Subscription {
            id: id.clone(),
            anchor: now,
            period: 1,
            amount: session.amount.unwrap_or_default(),
            currency: session.currency.clone().unwrap_or_default(),
            customer: session.customer.clone().unwrap_or_default(),
            method,
            metadata: session.inner_metadata.clone(),
            past_due: false,
            cancel_at_period_end: false,
            canceled_at: None,
            latest_invoice: invoice.clone(),
            scheduled: false,
        };
        self.subscriptions.insert(id.clone(), subscription);
        self.new_invoice(&invoice, &id, 1, intent, now);
        self.tell("customer.subscription.created", &id, now);
        self.pay_invoice(&invoice, now);
        (id, invoice)
    }

    fn new_invoice(
        &mut self,
        id: &str,
        subscription: &str,
        period: i32,
        intent: String,
        now: Timestamp,
    ) {
        kept(&mut self.intents, &intent).invoice = Some(id.to_owned());
        let invoice = Invoice {
            id: id.to_owned(),
            created: now,
            subscription: subscription.to_owned(),
            period,
            intent,
            attempts: 0,
            paid_at: None,
            void: false,
            draft: false,
            advances: true,
        };
        self.invoices.insert(id.to_owned(), invoice);
    }

    fn pay_invoice(&mut self, id: &str, now: Timestamp) {
        let invoice = kept(&mut self.invoices, id);
        invoice.attempts += 1;
        invoice.paid_at = Some(now);
        self.tell("invoice.paid", id, now);
    }

    /// The subscription's next period begins and is paid, or the one that is due is paid at last.
    /// One that was to end with its period ends instead.
    ///
    /// # Errors
    /// If there is no such subscription, or it has ended.
    pub fn renew(&mut self, subscription: &str, now: Timestamp) -> Result<(), Impossible> {
        self.collect(subscription, Verdict::Charge, now)
    }

    /// The subscription's next period begins, or is still due, and its payment fails.
    ///
    /// # Errors
    /// If there is no such subscription, or it has ended.
    pub fn fail_renewal(&mut self, subscription: &str, now: Timestamp) -> Result<(), Impossible> {
        self.collect(subscription, Verdict::Decline(&Decline::GENERIC), now)
    }

    /// What is due is tried again, and the subscriptions whose period is over by `now` go on to the next,
    /// one period after the other, as their cards do.
    pub fn renew_due(&mut self, now: Timestamp) {
        self.retry_due(now);
        self.renew_ended(now);
    }

    /// What subscriptions could not collect is tried again.
    pub fn retry_due(&mut self, now: Timestamp) {
        for id in self.those(|it| it.past_due && self.invoices[&it.latest_invoice].is_open()) {
            self.collect_by_card(&id, now);
        }
    }

    /// The subscriptions whose period is over by `now` go on to the next, one period after the other, as
    /// their cards do.
    pub fn renew_ended(&mut self, now: Timestamp) {
        loop {
            let ended = self.those(|it| !it.past_due && it.end_of(it.period) <= now);
            if ended.is_empty() {
                return;
            }
            for id in ended {
                self.collect_by_card(&id, now);
            }
        }
    }

    /// The subscriptions whose period is over by `now` go on to the next, and do not ask for it yet.
    pub fn draft_ended(&mut self, now: Timestamp) {
        for id in self.those(|it| !it.past_due && it.end_of(it.period) <= now) {
            // It runs.
            let _ = self.draft_renewal(&id, now);
        }
    }

    /// The subscriptions that are not over, by age.
    fn those(&self, is_it: impl Fn(&Subscription) -> bool) -> Vec<String> {
        let all = self.subscriptions.values();
        let found = all.filter(|it| it.canceled_at.is_none() && is_it(it));
        let mut found: Vec<_> = found.map(|it| (it.anchor, it.id.clone())).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, id)| id).collect()
    }

    fn collect_by_card(&mut self, subscription: &str, now: Timestamp) {
        let verdict = self.verdict_of_card(subscription);
        // It runs.
        let _ = self.collect(subscription, verdict, now);
    }

    /// What the subscription's card says while nobody is there.
    fn verdict_of_card(&self, subscription: &str) -> Verdict {
        let method = &self.subscriptions[subscription].method;
        match self.methods[method].card.verdict(true) {
            Verdict::Charge => Verdict::Charge,
            Verdict::Decline(decline) => Verdict::Decline(decline),
            _ => Verdict::Decline(&Decline::GENERIC),
        }
    }

    /// The customer pays an open invoice on its page.
    ///
    /// # Errors
    /// [`PayError`]
    pub fn pay_open_invoice(
        &mut self,
        id: &str,
        card: Card,
        now: Timestamp,
    ) -> Result<(), PayError> {
        let invoice = self.invoices.get(id).ok_or(PayError::NoSuchSession)?;
        if invoice.paid_at.is_some() {
            return Err(PayError::Complete);
        }
        if !invoice.is_open() {
            return Err(PayError::Expired);
        }
        let (intent, subscription) = (invoice.intent.clone(), invoice.subscription.clone());
        let customer = self.subscriptions[&subscription].customer.clone();
        let method = self.new_method(Some(customer), card, now);
        let verdict = match card.verdict(false) {
            Verdict::Decline(decline) => Verdict::Decline(decline),
            _ => Verdict::Charge,
        };
        self.attempt(&intent, &method, verdict, now);
        if let Verdict::Decline(decline) = verdict {
            return Err(PayError::Declined(decline.message));
        }
        let is_latest = self.subscriptions[&subscription].latest_invoice == id;
        let of = kept(&mut self.subscriptions, &subscription);
        of.past_due &= !is_latest;
        self.pay_invoice(id, now);
        self.tell("customer.subscription.updated", &subscription, now);
        Ok(())
    }

    /// The subscription's next period begins; its invoice is a draft, and not asked for yet. One that was
    /// to end with its period ends instead.
    ///
    /// # Errors
    /// If there is no such subscription, or it has ended.
    pub fn draft_renewal(&mut self, subscription: &str, now: Timestamp) -> Result<(), Impossible> {
        let Some(invoice) = self.next_invoice(subscription, now)? else {
            return Ok(());
        };
        kept(&mut self.invoices, &invoice).draft = true;
        self.tell("invoice.created", &invoice, now);
        self.tell("customer.subscription.updated", subscription, now);
        Ok(())
    }

    /// A plan that somebody made in the dashboard says when the subscription ends, or no longer does.
    pub fn schedule(&mut self, subscription: &str, scheduled: bool) {
        kept(&mut self.subscriptions, subscription).scheduled = scheduled;
    }

    /// Drafts are asked for, whether or not their subscriptions still run.
    pub fn finalize_drafts(&mut self, now: Timestamp) {
        let drafts = self.invoices.values().filter(|it| it.draft && it.advances);
        let mut drafts: Vec<_> = drafts.map(|it| it.id.clone()).collect();
        drafts.sort_unstable();
        for id in drafts {
            let invoice = kept(&mut self.invoices, &id);
            invoice.draft = false;
            let of = invoice.subscription.clone();
            let verdict = self.verdict_of_card(&of);
            self.charge_invoice(&id, verdict, now);
            let invoice = &self.invoices[&id];
            let is_due = invoice.paid_at.is_none();
            let running = kept(&mut self.subscriptions, &of);
            if running.canceled_at.is_none() && running.latest_invoice == id {
                running.past_due = is_due;
                self.tell("customer.subscription.updated", &of, now);
            }
        }
    }

    /// One attempt to collect an invoice.
    fn charge_invoice(&mut self, id: &str, verdict: Verdict, now: Timestamp) {
        let invoice = &self.invoices[id];
        let method = self.subscriptions[&invoice.subscription].method.clone();
        let intent = invoice.intent.clone();
        self.attempt(&intent, &method, verdict, now);
        if matches!(verdict, Verdict::Charge) {
            self.pay_invoice(id, now);
        } else {
            kept(&mut self.invoices, id).attempts += 1;
            self.tell("invoice.payment_failed", id, now);
        }
    }

    fn collect(
        &mut self,
        subscription: &str,
        verdict: Verdict,
        now: Timestamp,
    ) -> Result<(), Impossible> {
        let Some(invoice) = self.next_invoice(subscription, now)? else {
            return Ok(());
        };
        kept(&mut self.subscriptions, subscription).past_due = !matches!(verdict, Verdict::Charge);
        self.charge_invoice(&invoice, verdict, now);
        self.tell("customer.subscription.updated", subscription, now);
        Ok(())
    }

    /// What a subscription asks for now: what is due, or the next period, which begins. None where it was
    /// to end with its period, and ends.
    fn next_invoice(
        &mut self,
        subscription: &str,
        now: Timestamp,
    ) -> Result<Option<String>, Impossible> {
        let found = self.subscriptions.get(subscription);
        let Some(found) = found.filter(|it| it.canceled_at.is_none()).cloned() else {
            return impossible(format!("{subscription} does not run"));
        };
        if found.past_due {
            return Ok(Some(found.latest_invoice));
        }
        if found.cancel_at_period_end {
            self.end_subscription(subscription, now);
            return Ok(None);
        }
        let intent = self.new_intent(found.amount, found.currency, Some(found.customer), now);
        let invoice = self.new_id("in");
        let period = found.period + 1;
        self.new_invoice(&invoice, subscription, period, intent, now);
        let running = kept(&mut self.subscriptions, subscription);
        running.period = period;
        running.latest_invoice.clone_from(&invoice);
        Ok(Some(invoice))
    }

    /// Somebody gives money back in the provider's dashboard.
    ///
    /// # Errors
    /// If so much is not left of a payment.
    pub fn refund_from_outside(
        &mut self,
        intent: &str,
        cents: i64,
        now: Timestamp,
    ) -> Result<(), Impossible> {
        match self.refund(intent, Some(cents), now) {
            Ok(_) => Ok(()),
            Err(refusal) => impossible(refusal.error["message"].as_str().unwrap_or_default()),
        }
    }

    /// The bank does not take what was given back for an intent, days later.
    ///
    /// # Errors
    /// If nothing was given back.
    pub fn bounce_refund(&mut self, intent: &str, now: Timestamp) -> Result<(), Impossible> {
        let refunds = self.refunds.values();
        let made = refunds.filter(|it| it.intent == intent && !it.failed);
        let Some(made) = made.map(|it| it.id.clone()).min() else {
            return impossible(format!("nothing was given back for {intent}"));
        };
        self.bounce(&made, now);
        Ok(())
    }

    /// The cardholder disputes what is not yet refunded. Returns the dispute's id.
    ///
    /// # Errors
    /// If there was no such payment, nothing is left of it, or it is disputed already.
    pub fn dispute(&mut self, intent: &str, now: Timestamp) -> Result<String, Impossible> {
        let found = self.intents.get(intent);
        let charge = found.and_then(|it| it.latest_charge.as_ref());
        let charge = charge.and_then(|id| self.charges.get_mut(id));
        let charge = charge.filter(|it| it.failure.is_none() && !it.disputed);
        let (Some(found), Some(charge)) = (found, charge) else {
            return impossible(format!("{intent} is no payment that can be disputed"));
        };
        let amount = charge.amount - charge.refunded;
        if amount == 0 {
            return impossible(format!("{intent} was refunded in full"));
        }
        charge.disputed = true;
        let (charge, currency) = (charge.id.clone(), found.currency.clone());
        let id = self.new_id("du");
        let dispute = Dispute {
            id: id.clone(),
            created: now,
            charge,
            intent: intent.to_owned(),
            amount,
            currency,
            won: None,
        };
        self.disputes.insert(id.clone(), dispute);
        self.tell("charge.dispute.created", &id, now);
        Ok(id)
    }

    /// The bank decides: `won` means that the money stays with the merchant.
    ///
    /// # Errors
    /// If there is no such open dispute.
    pub fn close_dispute(&mut self, id: &str, won: bool, now: Timestamp) -> Result<(), Impossible> {
        let open = self.disputes.get_mut(id).filter(|it| it.won.is_none());
        let Some(dispute) = open else {
            return impossible(format!("{id} is no open dispute"));
        };
        dispute.won = Some(won);
        if won {
            kept(&mut self.charges, &dispute.charge).disputed = false;
        }
        self.tell("charge.dispute.closed", id, now);
        Ok(())
    }
}
