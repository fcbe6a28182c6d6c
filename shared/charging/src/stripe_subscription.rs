//! Collection by a subscription at Stripe: we follow what Stripe collects.
//!
//! Events arrive in any order, so we trust none of them: after each event, and when a period ends,
//! we look up the subscription and its latest invoice.
//!
//! Invariant: nothing here charges. An invoice is paid or not; a payment that was not owed is
//! refunded.

use account::add_on::GenerationId;
use account::billing::PRICE_CENTS;
use account::{Account, AddOn, AddOnStatus, Period, Profile};
use billing::{RemoteStatus, period_ending};
use payments::{Invoice, InvoiceId, InvoiceStatus, PaymentError, PaymentMethodId, SubscriptionId};
use store::{PaymentOrder, Purchase};

use crate::context::Context;
use crate::error::Result;
use crate::outcome::{PaymentUpdate, apply_payment, mismatch, via};

struct Subscriber {
    order: PaymentOrder,
    generation: GenerationId,
    account: Option<Account>,
}

impl Subscriber {
    async fn find(cx: Context<'_>, id: &SubscriptionId) -> Result<Option<Self>> {
        let Some((order, _)) = cx.store.payments.order(id.as_str()).await? else {
            return Ok(None);
        };
        let Purchase::Via { session } = &order.purchase else {
            return Ok(None);
        };
        Ok(Some(Self {
            generation: GenerationId::new(session.as_str()),
            account: cx.store.accounts.by_number(&order.account_number).await?,
            order,
        }))
    }

    fn period_of(&self, invoice: &Invoice) -> Option<Period> {
        let add_on = self.account.as_ref().map(|account| &account.profile.add_on);
        let current = add_on.filter(|add_on| add_on.generation() == Some(&self.generation));
        // An earlier generation owes nothing, so the time of its order is close enough.
        let anchor = current.and_then(AddOn::anchor);
        let anchor = anchor.unwrap_or(self.order.created_at);
        Some(period_ending(anchor, invoice.period_end?))
    }
}

/// Applies the state of a subscription, and of `invoice` or else its latest invoice.
pub(crate) async fn apply_subscription(
    cx: Context<'_>,
    id: &SubscriptionId,
    invoice: Option<&InvoiceId>,
) -> Result<PaymentUpdate> {
    let Some(subscriber) = Subscriber::find(cx, id).await? else {
        return Ok(PaymentUpdate::TooEarly);
    };
    if let Some(invoice) = invoice {
        let update = apply_invoice(cx, &subscriber, invoice).await?;
        if let PaymentUpdate::Ignored(_) = update {
            return Ok(update);
        }
    }
    check(cx, &subscriber, id, invoice).await
}

/// Looks up a subscription, and its latest invoice unless that is already `applied`.
async fn check(
    cx: Context<'_>,
    subscriber: &Subscriber,
    id: &SubscriptionId,
    applied: Option<&InvoiceId>,
) -> Result<PaymentUpdate> {
    let (status, invoice) = match cx.stripe.subscription(id).await {
        Ok(found) if found.is_over => (RemoteStatus::Over, found.latest_invoice),
        Ok(found) => {
            let ends = found.cancel_at_period_end.unwrap_or_default();
            (RemoteStatus::Runs { ends }, found.latest_invoice)
        }
        Err(PaymentError::Missing { .. }) => (RemoteStatus::Over, None),
        Err(error) => return Err(error.into()),
    };
    // A payment is applied before the end of the subscription.
    let update = match invoice {
        Some(invoice) if status == RemoteStatus::Over => {
            void_invoice(cx, subscriber, &invoice).await?
        }
        Some(invoice) if Some(&invoice) != applied => {
            apply_invoice(cx, subscriber, &invoice).await?
        }
        _ => PaymentUpdate::NoPayment,
    };
    if let Some(account) = &subscriber.account {
        let before = &account.profile.billing;
        if before.has_subscription(id.as_str()) {
            let apply = |profile: &mut Profile| {
                billing::apply_remote_status(profile, before, status, cx.now);
            };
            cx.change(&account.id, apply).await?;
        }
    }
    Ok(update)
}

async fn apply_invoice(
    cx: Context<'_>,
    subscriber: &Subscriber,
    id: &InvoiceId,
) -> Result<PaymentUpdate> {
    let invoice = match cx.stripe.invoice(id).await {
        Err(PaymentError::Missing { .. }) => {
            return Ok(PaymentUpdate::Ignored("an invoice that no longer exists"));
        }
        found => found?,
    };
    let Some(period) = subscriber.period_of(&invoice) else {
        return Ok(PaymentUpdate::Ignored("an invoice without a period"));
    };
    if invoice.status != InvoiceStatus::Paid {
        let failed = invoice.status == InvoiceStatus::Open && invoice.attempted;
        if let (true, Some(account)) = (failed, &subscriber.account) {
            let failed = |profile: &mut Profile| {
                billing::collection_failed(profile, &subscriber.generation, period);
            };
            cx.change(&account.id, failed).await?;
        }
        return Ok(PaymentUpdate::NoPayment);
    }
    let payments = &cx.store.payments;
    let stripe_id = invoice.id.as_str();
    if let Some((known, _)) = payments.order(stripe_id).await?
        && matches!(known.purchase, Purchase::Via { .. })
    {
        // The Checkout Session is applied instead.
        return Ok(PaymentUpdate::NoPayment);
    }
    let order = PaymentOrder {
        stripe_id: stripe_id.to_owned(),
        account_number: subscriber.order.account_number.clone(),
        purchase: Purchase::Period { generation: subscriber.generation.clone(), period },
        amount_cents: PRICE_CENTS,
        created_at: cx.now,
    };
    let (amount, currency) = (invoice.subtotal, invoice.currency);
    if let Some(reason) = mismatch(cx, &order, amount, currency, invoice.livemode) {
        return Ok(PaymentUpdate::Ignored(reason));
    }
    payments.create_order(&order).await?;
    let via = invoice.intent.as_ref().map(|intent| via(&order, intent.to_string()));
    apply_payment(cx, stripe_id, cx.now, via.as_slice(), |_| {}).await
}

/// Voids the invoice of a subscription that is over. If it was paid, applies the payment.
async fn void_invoice(
    cx: Context<'_>,
    subscriber: &Subscriber,
    id: &InvoiceId,
) -> Result<PaymentUpdate> {
    let stripe = &cx.stripe;
    let status = match stripe.invoice(id).await?.status {
        InvoiceStatus::Draft => stripe.hold_invoice(id).await?.status,
        InvoiceStatus::Open | InvoiceStatus::Uncollectible => stripe.void_invoice(id).await?.status,
        status => status,
    };
    if status == InvoiceStatus::Paid {
        return apply_invoice(cx, subscriber, id).await;
    }
    Ok(PaymentUpdate::NoPayment)
}

/// Cancels a subscription and its open invoice, unless it has collected a period that is
/// still owed.
pub(crate) async fn cancel_subscription(cx: Context<'_>, subscription: &str) -> Result<()> {
    let (stripe, id) = (&cx.stripe, SubscriptionId::new(subscription)?);
    let Some(subscriber) = Subscriber::find(cx, &id).await? else {
        return Ok(());
    };
    let latest = match stripe.subscription(&id).await {
        Ok(found) => found.latest_invoice,
        Err(PaymentError::Missing { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    if let (Some(account), Some(latest)) = (&subscriber.account, &latest) {
        apply_invoice(cx, &subscriber, latest).await?;
        let stored = cx.store.accounts.get(&account.id).await?;
        if stored.is_some_and(|stored| billing::collects(&stored.profile, subscription)) {
            return Ok(());
        }
    }
    stripe.cancel_subscription(&id).await?;
    if let Some(latest) = latest {
        void_invoice(cx, &subscriber, &latest).await?;
    }
    if let Some(account) = &subscriber.account {
        let ended = |profile: &mut Profile| billing::subscription_ended(profile, subscription);
        cx.change(&account.id, ended).await?;
    }
    Ok(())
}

/// Moves the subscription to a new card, and charges that card at once if the add-on is past due.
pub(crate) async fn charge_subscription(
    cx: Context<'_>,
    account: &Account,
    card: &PaymentMethodId,
) -> Result<()> {
    let (stripe, profile) = (&cx.stripe, &account.profile);
    let Some(subscription) = &profile.billing.subscription else {
        return Ok(());
    };
    let id = SubscriptionId::new(subscription.id.as_str())?;
    let found = match stripe.charge_subscription_to(&id, card).await {
        Ok(found) => found,
        Err(error @ (PaymentError::Missing { .. } | PaymentError::Refused { .. })) => {
            edge::log_error(&error, "Stripe refused to move a subscription to a new card");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    if let (AddOnStatus::PastDue, Some(open)) = (profile.add_on.status(), found.latest_invoice) {
        stripe.pay_invoice(&open).await?;
    }
    Ok(())
}
