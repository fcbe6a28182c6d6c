//! Applies updates about payments, wherever they come from.

use account::add_on::{Collection, GenerationId};
use account::billing::Subscription;
use account::{Credits, EntryId, Profile};
use jiff::Timestamp;
use payments::{
    Cents, Checkout, CheckoutStatus, Intent, IntentId, IntentStatus, InvoiceId, PaymentError,
    Refund, SessionId, SubscriptionId,
};
use store::{
    Applied, Effect, EntryKind, Outcome, PaymentOrder, PostError, PostRefused, Posting, Purchase,
};

use crate::rate_limit::RequestKind;
use crate::refunds::refund_failed;
use crate::{CURRENCY, Charging, ChargingError};

/// Who posts what was paid for, in the ledger.
pub(crate) const ACTOR: &str = "stripe";

/// What news of a payment came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PaymentUpdate {
    Taken(Applied),
    /// Nothing was paid by it.
    Nothing,
    /// It is about a payment that was not heard of yet.
    Ahead,
    /// It is none of ours, or not what we asked for; the reason is kept.
    Ignored(&'static str),
}

impl Charging {
    /// Takes in how a payment object stands. Only that it succeeded is believed of old news: it is how
    /// an object ends.
    ///
    /// # Errors
    /// [`ChargingError`]; hearing of it again is safe.
    pub async fn apply_intent(
        &self,
        intent: &Intent,
        now: Timestamp,
    ) -> Result<PaymentUpdate, ChargingError> {
        let object = intent.id.as_str();
        let Some((order, _)) = self.store.payments.order(object).await? else {
            return Ok(PaymentUpdate::Ignored("no payment object of ours"));
        };
        if matches!(order.purchase, Purchase::Via { .. }) {
            // Its checkout tells.
            return Ok(PaymentUpdate::Nothing);
        }
        if intent.status != IntentStatus::Succeeded {
            // Whether it failed for good, the provider is asked.
            if let Some(account) = self.store.accounts.by_number(&order.account_number).await? {
                self.change(&account.id, now, |profile| {
                    billing::look_up_now(profile, object, now)
                })
                .await?;
            }
            return Ok(PaymentUpdate::Nothing);
        }
        let amount = intent.amount_received.or(intent.amount);
        if let Some(reason) =
            self.not_as_asked(&order, amount, intent.currency.as_deref(), intent.livemode)
        {
            return Ok(PaymentUpdate::Ignored(reason));
        }
        let applied = self.store.payments.apply(object, now, |order, profile| {
            let owed = match &order.purchase {
                Purchase::Period { generation, period } => {
                    billing::period_paid(profile, generation, *period, object)
                }
                // Sessions pay for these.
                Purchase::Generation { .. }
                | Purchase::Credits { .. }
                | Purchase::Card
                | Purchase::Via { .. } => false,
            };
            (owed, Vec::new())
        });
        self.finish(applied.await?).await
    }

    /// Takes in how a checkout stands.
    ///
    /// # Errors
    /// [`ChargingError`]; hearing of it again is safe.
    pub async fn apply_checkout(
        &self,
        checkout: &Checkout,
        now: Timestamp,
    ) -> Result<PaymentUpdate, ChargingError> {
        let object = checkout.id.as_str();
        let Some((order, known)) = self.store.payments.order(object).await? else {
            return Ok(PaymentUpdate::Ignored("no checkout of ours"));
        };
        if !checkout.paid {
            return Ok(PaymentUpdate::Nothing);
        }
        if order.purchase == Purchase::Card {
            return self.card_given(&order, checkout, now).await;
        }
        let (amount, currency) = (checkout.amount_total, checkout.currency.as_deref());
        if let Some(reason) = self.not_as_asked(&order, amount, currency, checkout.livemode) {
            // What counted before is not undone by an event that reads otherwise.
            if let (None, Some(subscription)) = (known, &checkout.subscription) {
                let stripe = self.ask(RequestKind::Subscription).await?;
                stripe
                    .cancel_subscription(&*self.key().await?, subscription)
                    .await?;
            }
            return Ok(PaymentUpdate::Ignored(reason));
        }
        if known.is_some() {
            return self.finish(self.known(object).await?).await;
        }
        // What the provider later says of the payment object is about this.
        let through = checkout.intent.as_ref().map(|intent| PaymentOrder {
            stripe_id: intent.to_string(),
            purchase: Purchase::Via {
                session: object.to_owned(),
            },
            ..order.clone()
        });
        if let Purchase::Credits { entry, credits } = &order.purchase {
            if let Some(through) = &through {
                self.store.payments.create_order(through).await?;
            }
            let applied = self.purchase(&order, entry, *credits, now).await?;
            return self.finish(Some(applied)).await;
        }
        if let (
            Purchase::Generation {
                collection: Collection::Provider,
            },
            Some(subscription),
        ) = (&order.purchase, &checkout.subscription)
        {
            let (id, order) = (subscription, &order);
            return self.apply_subscribed(order, checkout, id, now).await;
        }
        // The card, and the provider's own time of the payment.
        let intent = match &checkout.intent {
            Some(id) => {
                let stripe = self.ask(RequestKind::LookUp).await?;
                Some(stripe.intent(&*self.key().await?, id).await?)
            }
            None => None,
        };
        let paid_at = intent.as_ref().and_then(|intent| intent.paid_at);
        let paid_at = paid_at.unwrap_or(now);
        let keep_card = |profile: &mut Profile| {
            let Some(intent) = &intent else { return };
            if let Some(customer) = intent.customer.as_ref().or(checkout.customer.as_ref()) {
                profile.billing.customer = Some(customer.to_string());
            }
            if let Some(card) = &intent.payment_method {
                billing::keep_card(profile, card.to_string(), paid_at);
            }
        };
        let applied = self.store.payments.apply(object, now, |order, profile| {
            let owed = match &order.purchase {
                Purchase::Generation { collection } => {
                    billing::activate(profile, GenerationId::new(object), paid_at, *collection)
                }
                Purchase::Period { generation, period } => {
                    billing::period_paid(profile, generation, *period, object)
                }
                Purchase::Credits { .. } | Purchase::Card | Purchase::Via { .. } => false,
            };
            if owed {
                keep_card(profile);
            }
            (
                owed,
                through.iter().cloned().map(Effect::PaymentOrder).collect(),
            )
        });
        self.finish(applied.await?).await
    }

    /// A checkout began a subscription: what the provider later says of it, its invoice and the payment
    /// is about this.
    async fn apply_subscribed(
        &self,
        order: &PaymentOrder,
        checkout: &Checkout,
        id: &SubscriptionId,
        now: Timestamp,
    ) -> Result<PaymentUpdate, ChargingError> {
        let object = order.stripe_id.as_str();
        let invoice = match &checkout.invoice {
            Some(invoice) => {
                let stripe = self.ask(RequestKind::LookUp).await?;
                Some(stripe.invoice(&*self.key().await?, invoice).await?)
            }
            None => None,
        };
        let paid_at = invoice.as_ref().and_then(|invoice| invoice.paid_at);
        let paid_at = paid_at.unwrap_or(now);
        let intent = invoice.as_ref().and_then(|invoice| invoice.intent.as_ref());
        let objects = [
            Some(id.to_string()),
            invoice.as_ref().map(|invoice| invoice.id.to_string()),
            intent.map(ToString::to_string),
        ];
        let through = objects.into_iter().flatten().map(|name| PaymentOrder {
            stripe_id: name,
            purchase: Purchase::Via {
                session: object.to_owned(),
            },
            ..order.clone()
        });
        let through: Vec<_> = through.map(Effect::PaymentOrder).collect();
        let applied = self.store.payments.apply(object, now, |_, profile| {
            let generation = GenerationId::new(object);
            let subscription = Subscription::new(id.to_string(), generation.clone());
            let owed = billing::activate(profile, generation, paid_at, Collection::Provider);
            if owed {
                profile.billing.subscription = Some(subscription);
                if let Some(customer) = &checkout.customer {
                    profile.billing.customer = Some(customer.to_string());
                }
            }
            (owed, through.clone())
        });
        self.finish(applied.await?).await
    }

    /// Credits that were paid for: posted once, by the order's name.
    async fn purchase(
        &self,
        order: &PaymentOrder,
        entry: &EntryId,
        credits: Credits,
        now: Timestamp,
    ) -> Result<Applied, ChargingError> {
        let account = self.store.accounts.by_number(&order.account_number).await?;
        let posted = match account {
            Some(account) => {
                let posting = Posting {
                    id: entry,
                    kind: EntryKind::Purchase,
                    amount: credits,
                    at: now,
                    note: "credits bought",
                    actor: ACTOR,
                };
                self.store.ledger.post(&account.id, &posting).await
            }
            None => Err(PostRefused::NoAccount.into()),
        };
        let outcome = match posted {
            Ok(_) => Outcome::Counted,
            Err(PostError::Store(error)) => return Err(error.into()),
            Err(PostError::Refused(refused)) => {
                edge::log_error(&refused, "a purchase of credits cannot be posted");
                Outcome::RefundDue
            }
        };
        let by_this_call = self.store.payments.set_outcome(order, outcome, now);
        Ok(Applied {
            by_this_call: by_this_call.await?,
            order: order.clone(),
            outcome,
        })
    }

    /// The card that a setup session was for.
    async fn card_given(
        &self,
        order: &PaymentOrder,
        checkout: &Checkout,
        now: Timestamp,
    ) -> Result<PaymentUpdate, ChargingError> {
        let Some(setup) = &checkout.setup_intent else {
            return Ok(PaymentUpdate::Ignored("a session that gave no card"));
        };
        let stripe = self.ask(RequestKind::Other).await?;
        let card = stripe.setup_intent(&*self.key().await?, setup).await?;
        let account = self.store.accounts.by_number(&order.account_number).await?;
        if let (Some(card), Some(account)) = (card, account) {
            let mut is_the_latest = false;
            let account = self.change(&account.id, now, |profile| {
                is_the_latest = billing::keep_card(profile, card.to_string(), order.created_at);
            });
            let account = account.await?;
            if is_the_latest {
                self.charge_subscription(&account, &card).await?;
            }
        }
        Ok(PaymentUpdate::Nothing)
    }

    async fn known(&self, object: &str) -> Result<Option<Applied>, ChargingError> {
        let known = self.store.payments.order(object).await?;
        Ok(known.and_then(|(order, outcome)| {
            Some(Applied {
                order,
                outcome: outcome?,
                by_this_call: false,
            })
        }))
    }

    pub(crate) async fn finish(
        &self,
        applied: Option<Applied>,
    ) -> Result<PaymentUpdate, ChargingError> {
        let Some(applied) = applied else {
            return Ok(PaymentUpdate::Ignored("no payment of ours"));
        };
        if applied.outcome == Outcome::RefundDue {
            if applied.by_this_call {
                tracing::error!(
                    object = applied.order.stripe_id,
                    "a payment was not owed; it is given back"
                );
                edge::metric("payments_not_owed", 1);
            }
            if let Err(error) = self.refund_unowed(&applied.order.stripe_id).await {
                edge::log_error(&error, "a refund is left to the billing tick");
            }
        }
        Ok(PaymentUpdate::Taken(applied))
    }

    /// Looks up the outcome of a Checkout Session, in case Stripe's own event was lost. True if the
    /// session has closed.
    ///
    /// # Errors
    /// [`ChargingError`]; it stays due.
    pub async fn look_at_page(
        &self,
        stripe_id: &str,
        now: Timestamp,
    ) -> Result<bool, ChargingError> {
        let (key, page) = (self.key().await?, SessionId::new(stripe_id)?);
        match self
            .ask(RequestKind::Other)
            .await?
            .checkout(&key, &page)
            .await
        {
            Ok(found) => {
                Box::pin(self.apply_checkout(&found, now)).await?;
                if matches!(found.status, CheckoutStatus::Open) {
                    return Ok(false);
                }
            }
            Err(PaymentError::Missing { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.store.payments.close_session(stripe_id).await?;
        Ok(true)
    }

    /// Refunds a payment that was not owed. Safe to do twice.
    ///
    /// # Errors
    /// [`ChargingError`]; it stays due.
    pub async fn refund_unowed(&self, object: &str) -> Result<(), ChargingError> {
        let key = self.key().await?;
        let intent = if object.starts_with("cs_") {
            let session = self
                .ask(RequestKind::Other)
                .await?
                .checkout(&key, &SessionId::new(object)?)
                .await?;
            match session.subscription {
                Some(subscription) => {
                    // It is not wanted either.
                    self.ask(RequestKind::Other)
                        .await?
                        .cancel_subscription(&key, &subscription)
                        .await?;
                    self.paid_with(session.invoice.as_ref()).await?
                }
                None => session.intent,
            }
        } else if object.starts_with("in_") {
            self.paid_with(Some(&InvoiceId::new(object)?)).await?
        } else {
            Some(IntentId::new(object)?)
        };
        let refund = match intent {
            Some(intent) => {
                self.ask_through(object, &intent).await?;
                self.refund(&intent).await?
            }
            // It was paid past the provider.
            None => Refund::Failed,
        };
        let outcome = match refund {
            Refund::Made | Refund::AlreadyMade => Outcome::Refunded,
            Refund::Failed => {
                refund_failed(object);
                Outcome::RefundFailed
            }
        };
        Ok(self.store.payments.end_refund(object, outcome).await?)
    }

    /// What a refund's own events name is known, also where it was paid for an account that is gone.
    async fn ask_through(&self, object: &str, intent: &IntentId) -> Result<(), ChargingError> {
        if object == intent.as_str() {
            return Ok(());
        }
        let Some((order, _)) = self.store.payments.order(object).await? else {
            return Ok(());
        };
        let through = PaymentOrder {
            stripe_id: intent.to_string(),
            purchase: Purchase::Via {
                session: object.to_owned(),
            },
            ..order
        };
        Ok(self.store.payments.create_order(&through).await?)
    }

    async fn refund(&self, intent: &IntentId) -> Result<Refund, ChargingError> {
        let (key, stripe) = (self.key().await?, self.ask(RequestKind::Other).await?);
        match stripe
            .refund(&key, intent, &format!("{intent}-refund"))
            .await
        {
            // RequestKind again it would say the same: the payment is disputed, or too old.
            Err(error @ PaymentError::Refused { .. }) => {
                edge::log_error(&error, "the provider does not give a payment back");
                Ok(Refund::Failed)
            }
            refund => Ok(refund?),
        }
    }

    /// What paid an invoice.
    async fn paid_with(
        &self,
        invoice: Option<&InvoiceId>,
    ) -> Result<Option<IntentId>, ChargingError> {
        let Some(invoice) = invoice else {
            return Ok(None);
        };
        let stripe = self.ask(RequestKind::Other).await?;
        Ok(stripe.invoice(&*self.key().await?, invoice).await?.intent)
    }

    /// Why a payment is not the one that we asked for. It then changes nothing, and somebody has to look:
    /// who paid has nothing for it.
    pub(crate) fn not_as_asked(
        &self,
        order: &PaymentOrder,
        amount: Option<Cents>,
        currency: Option<&str>,
        livemode: Option<bool>,
    ) -> Option<&'static str> {
        let reason = if livemode.is_some_and(|livemode| livemode != self.settings.livemode) {
            "a payment of the other mode (live or test)"
        } else if currency != Some(CURRENCY) {
            "a payment in another currency than we asked for"
        } else if amount != Some(Cents::new(order.amount_cents)) {
            "a payment of another amount than we asked for"
        } else {
            return None;
        };
        let object = order.stripe_id.as_str();
        tracing::error!(object, reason, "a payment is not what we asked for");
        edge::metric("payments_not_as_asked", 1);
        Some(reason)
    }
}
