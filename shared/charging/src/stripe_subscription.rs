//! Collection by the provider, which runs a subscription: we follow what it did.
//!
//! Events tie and overtake each other, so none is believed: whenever one comes, and when a period ends,
//! the provider is asked how its objects stand.
//!
//! Invariant: nothing here charges. An invoice is paid or not; what was paid and not owed is given back.

use account::add_on::GenerationId;
use account::billing::{PRICE_CENTS, Subscription};
use account::{Account, AddOn, AddOnStatus, Period};
use billing::{RemoteStatus, period_ending};
use jiff::Timestamp;
use payments::{Invoice, InvoiceId, InvoiceStatus, PaymentError, PaymentMethodId, SubscriptionId};
use store::{Applied, Effect, Outcome, PaymentOrder, Purchase};
use url::Url;

use crate::buy::NotBought;
use crate::rate_limit::RequestKind;
use crate::run_due::ChargeReport;
use crate::{Charging, ChargingError, PaymentUpdate};

/// What a subscription is for.
struct Of {
    /// What was stored when it was bought; of it, the account's number.
    order: PaymentOrder,
    generation: GenerationId,
    account: Option<Account>,
}

impl Of {
    /// The period that an invoice asks for.
    fn period(&self, invoice: &Invoice) -> Option<Period> {
        let add_on = self.account.as_ref().map(|account| &account.profile.add_on);
        let is_current = add_on.and_then(|add_on| add_on.generation()) == Some(&self.generation);
        let anchor = add_on.filter(|_| is_current);
        // Of one that is over nothing is owed; when it was bought is near enough.
        let anchor = anchor.and_then(AddOn::anchor);
        let anchor = anchor.unwrap_or(self.order.created_at);
        Some(period_ending(anchor, invoice.period_end?))
    }
}

impl Charging {
    /// Takes in how a subscription stands, and its `invoice` or else its latest one.
    pub(crate) async fn apply_subscription(
        &self,
        id: &SubscriptionId,
        invoice: Option<&InvoiceId>,
        now: Timestamp,
    ) -> Result<PaymentUpdate, ChargingError> {
        let Some(of) = self.bought_with(id).await? else {
            return Ok(PaymentUpdate::Ahead);
        };
        if let Some(invoice) = invoice {
            let news = self.take_in_invoice(&of, invoice, now).await?;
            if let PaymentUpdate::Ignored(_) = news {
                return Ok(news);
            }
        }
        self.ask_about(&of, id, invoice, now).await
    }

    /// Asks the provider what it collected for the account.
    pub(crate) async fn follow(
        &self,
        subscription: &str,
        now: Timestamp,
        report: &mut ChargeReport,
    ) -> Result<(), ChargingError> {
        let id = SubscriptionId::new(subscription)?;
        let Some(of) = self.bought_with(&id).await? else {
            return Ok(());
        };
        report.count(&self.ask_about(&of, &id, None, now).await?);
        Ok(())
    }

    async fn ask_about(
        &self,
        of: &Of,
        id: &SubscriptionId,
        known: Option<&InvoiceId>,
        now: Timestamp,
    ) -> Result<PaymentUpdate, ChargingError> {
        let (standing, invoice) = match self
            .ask(RequestKind::Subscription)
            .await?
            .subscription(&*self.key().await?, id)
            .await
        {
            Ok(found) if found.is_over() => (RemoteStatus::Over, found.latest_invoice),
            Ok(found) => {
                let ends = found.cancel_at_period_end.unwrap_or_default();
                (RemoteStatus::Runs { ends }, found.latest_invoice)
            }
            Err(PaymentError::Missing { .. }) => (RemoteStatus::Over, None),
            Err(error) => return Err(error.into()),
        };
        // What was paid counts before what is over.
        let news = match invoice {
            Some(invoice) if standing == RemoteStatus::Over => {
                Box::pin(self.call_off_invoice(of, &invoice, now)).await?
            }
            Some(invoice) if Some(&invoice) != known => {
                Box::pin(self.take_in_invoice(of, &invoice, now)).await?
            }
            _ => PaymentUpdate::Nothing,
        };
        if let Some(account) = &of.account {
            let before = &account.profile.billing;
            let asked = before.subscription.as_ref();
            if asked.is_some_and(|asked| asked.id == id.as_str()) {
                self.change(&account.id, now, |profile| {
                    billing::apply_remote_status(profile, before, standing, now);
                })
                .await?;
            }
        }
        Ok(news)
    }

    /// Takes in how an invoice stands.
    async fn take_in_invoice(
        &self,
        of: &Of,
        id: &InvoiceId,
        now: Timestamp,
    ) -> Result<PaymentUpdate, ChargingError> {
        let stripe = self.ask(RequestKind::Subscription).await?;
        let invoice = stripe.invoice(&*self.key().await?, id).await?;
        let object = invoice.id.as_str();
        let Some(period) = of.period(&invoice) else {
            return Ok(PaymentUpdate::Ignored("an invoice of no period"));
        };
        if invoice.status != InvoiceStatus::Paid {
            let failed = invoice.status == InvoiceStatus::Open && invoice.attempted;
            if let (true, Some(account)) = (failed, &of.account) {
                self.change(&account.id, now, |profile| {
                    billing::collection_failed(profile, &of.generation, period);
                })
                .await?;
            }
            return Ok(PaymentUpdate::Nothing);
        }
        if let Some((known, _)) = self.store.payments.order(object).await?
            && matches!(known.purchase, Purchase::Via { .. })
        {
            // Its checkout tells.
            return Ok(PaymentUpdate::Nothing);
        }
        let order = PaymentOrder {
            stripe_id: object.to_owned(),
            account_number: of.order.account_number.clone(),
            purchase: Purchase::Period {
                generation: of.generation.clone(),
                period,
            },
            amount_cents: PRICE_CENTS,
            created_at: now,
        };
        let (amount, currency) = (invoice.subtotal, invoice.currency.as_deref());
        if let Some(reason) = self.not_as_asked(&order, amount, currency, invoice.livemode) {
            return Ok(PaymentUpdate::Ignored(reason));
        }
        self.store.payments.create_order(&order).await?;
        let through = invoice.intent.as_ref().map(|intent| PaymentOrder {
            stripe_id: intent.to_string(),
            purchase: Purchase::Via {
                session: object.to_owned(),
            },
            ..order.clone()
        });
        let applied = self.store.payments.apply(object, now, |_, profile| {
            let owed = billing::period_paid(profile, &of.generation, period, object);
            (
                owed,
                through.iter().cloned().map(Effect::PaymentOrder).collect(),
            )
        });
        self.finish(applied.await?).await
    }

    /// Sees to it that nobody can pay the invoice of a subscription that is over. If it was paid, that is
    /// taken in.
    async fn call_off_invoice(
        &self,
        of: &Of,
        id: &InvoiceId,
        now: Timestamp,
    ) -> Result<PaymentUpdate, ChargingError> {
        let key = self.key().await?;
        let stripe = self.ask(RequestKind::Subscription).await?;
        let invoice = stripe.invoice(&key, id).await?;
        let stands = match invoice.status {
            InvoiceStatus::Draft => {
                let stripe = self.ask(RequestKind::Subscription).await?;
                stripe.hold_invoice(&key, id).await?.status
            }
            InvoiceStatus::Open | InvoiceStatus::Uncollectible => {
                let stripe = self.ask(RequestKind::Subscription).await?;
                stripe.void_invoice(&key, id).await?.status
            }
            status => status,
        };
        if stands == InvoiceStatus::Paid {
            return self.take_in_invoice(of, id, now).await;
        }
        Ok(PaymentUpdate::Nothing)
    }

    /// Has a subscription end with its period, or go on.
    pub(crate) async fn tell(
        &self,
        account: &Account,
        subscription: &str,
        ends: bool,
        now: Timestamp,
        report: &mut ChargeReport,
    ) -> Result<(), ChargingError> {
        let (key, id) = (self.key().await?, SubscriptionId::new(subscription)?);
        let stripe = self.ask(RequestKind::Subscription).await?;
        let told = stripe.end_subscription_with_its_period(&key, &id, ends);
        let Err(error) = told.await else {
            let told = self.change(&account.id, now, |profile| {
                billing::subscription_updated(profile, subscription, ends);
            });
            return told.await.map(drop);
        };
        match &error {
            // It may be over; or somebody's plan says when it ends, and what it collects is looked at all
            // the same.
            PaymentError::Missing { .. } | PaymentError::Refused { .. } => {
                self.follow(subscription, now, report).await?;
                let stored = self.store.accounts.get(&account.id).await?;
                if !stored.is_some_and(|it| it.profile.billing.has_subscription(subscription)) {
                    return Ok(());
                }
            }
            // Another one may have told it otherwise meanwhile.
            PaymentError::Unknown(_) => {
                self.change(&account.id, now, |profile| {
                    billing::subscription_uncertain(profile, subscription);
                })
                .await?;
            }
            _ => {}
        }
        Err(error.into())
    }

    /// Ends a subscription at once, and calls off what it asks for. If it turns out that what it is to go
    /// on for was paid, it stays.
    pub(crate) async fn stop(
        &self,
        subscription: &str,
        now: Timestamp,
    ) -> Result<(), ChargingError> {
        let id = SubscriptionId::new(subscription)?;
        let Some(of) = self.bought_with(&id).await? else {
            return Ok(());
        };
        let (key, stripe) = (
            self.key().await?,
            self.ask(RequestKind::Subscription).await?,
        );
        let latest = match stripe.subscription(&key, &id).await {
            Ok(found) => found.latest_invoice,
            Err(PaymentError::Missing { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        if let (Some(account), Some(latest)) = (&of.account, &latest) {
            Box::pin(self.take_in_invoice(&of, latest, now)).await?;
            let stands = self.store.accounts.get(&account.id).await?;
            if stands.is_some_and(|it| billing::collects(&it.profile, subscription)) {
                return Ok(());
            }
        }
        let stripe = self.ask(RequestKind::Subscription).await?;
        stripe.cancel_subscription(&key, &id).await?;
        if let Some(latest) = latest {
            Box::pin(self.call_off_invoice(&of, &latest, now)).await?;
        }
        if let Some(account) = &of.account {
            self.change(&account.id, now, |profile| {
                billing::subscription_ended(profile, subscription);
            })
            .await?;
        }
        Ok(())
    }

    /// The provider's page on which what the subscription asks for can be paid. `None` if it was paid.
    pub(crate) async fn open_invoice(
        &self,
        subscription: &Subscription,
        now: Timestamp,
    ) -> Result<Option<Url>, NotBought> {
        let id = SubscriptionId::new(subscription.id.as_str())?;
        let (key, stripe) = (
            self.key().await?,
            self.ask(RequestKind::Subscription).await?,
        );
        let Some(latest) = stripe.subscription(&key, &id).await?.latest_invoice else {
            return Err(NotBought::InProgress);
        };
        let invoice = stripe.invoice(&key, &latest).await?;
        match (invoice.status, invoice.page) {
            (InvoiceStatus::Open | InvoiceStatus::Uncollectible, Some(page)) => {
                Ok(Some(page.parse().map_err(ChargingError::Url)?))
            }
            (InvoiceStatus::Paid, _) => {
                Box::pin(self.apply_subscription(&id, Some(&latest), now)).await?;
                Ok(None)
            }
            _ => Err(NotBought::InProgress),
        }
    }

    /// Has the account's subscription be charged to a card from now on, and at once with what the card
    /// before it did not pay.
    pub(crate) async fn charge_subscription(
        &self,
        account: &Account,
        card: &PaymentMethodId,
    ) -> Result<(), ChargingError> {
        let profile = &account.profile;
        let Some(subscription) = &profile.billing.subscription else {
            return Ok(());
        };
        let id = SubscriptionId::new(subscription.id.as_str())?;
        let (key, stripe) = (
            self.key().await?,
            self.ask(RequestKind::Subscription).await?,
        );
        let found = match stripe.charge_subscription_to(&key, &id, card).await {
            Ok(found) => found,
            Err(error @ (PaymentError::Missing { .. } | PaymentError::Refused { .. })) => {
                edge::log_error(&error, "a subscription does not take a card");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if let (AddOnStatus::PastDue, Some(open)) = (profile.add_on.status(), found.latest_invoice)
        {
            let stripe = self.ask(RequestKind::Subscription).await?;
            stripe.pay_invoice(&key, &open).await?;
        }
        Ok(())
    }

    async fn bought_with(&self, id: &SubscriptionId) -> Result<Option<Of>, ChargingError> {
        let Some((order, _)) = self.store.payments.order(id.as_str()).await? else {
            return Ok(None);
        };
        let Purchase::Via { session } = &order.purchase else {
            return Ok(None);
        };
        Ok(Some(Of {
            generation: GenerationId::new(session.as_str()),
            account: self.store.accounts.by_number(&order.account_number).await?,
            order,
        }))
    }
}

impl ChargeReport {
    /// Counts a payment that was taken in.
    pub(crate) fn count(&mut self, news: &PaymentUpdate) {
        let counted =
            |applied: &Applied| applied.by_this_call && applied.outcome == Outcome::Counted;
        self.charged +=
            u32::from(matches!(news, PaymentUpdate::Taken(applied) if counted(applied)));
    }
}
