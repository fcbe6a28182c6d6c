//! Buying the add-on, and paying for its open period.

use account::add_on::Collection;
use account::billing::{AddOnPurchase, IntentState, Subscription};
use account::{Account, AddOnStatus, Profile};
use payments::{IntentId, IntentStatus, InvoiceStatus, PaymentError, SubscriptionId};
use store::CreditPayment;
use url::Url;

use crate::apply::apply_intent;
use crate::checkout::reopen;
use crate::context::Context;
use crate::credits::{activate, pay_period};
use crate::error::{ChargingError, NotBought, Result};
use crate::run_due::run_due;
use crate::stripe_subscription::{apply_subscription, cancel_subscription};

/// Maximum number of steps of a purchase, in case the account keeps changing.
const MAX_STEPS: usize = 8;

#[derive(Debug, Clone, PartialEq)]
pub enum Bought {
    Checkout(Url),
    Paid,
    /// The add-on continues; nothing has to be paid.
    Resumed,
}

/// Starts the add-on, pays its open period or resumes it, depending on the account's state. At most
/// one payment is possible at any time.
pub async fn buy_add_on(cx: Context<'_>, mut account: Account) -> Result<Bought, NotBought> {
    let mut may_retry = true;
    for _ in 0..MAX_STEPS {
        match Box::pin(step(cx, &account)).await {
            Ok(Some(bought)) => return Ok(bought),
            Ok(None) => {}
            Err(NotBought::NotCreated(error)) if may_retry && error.is_failure_response() => {
                edge::log_error(&error, "could not create a Checkout Session; creating another");
                may_retry = false;
            }
            Err(error) => return Err(error),
        }
        account = cx.account(&account.id).await?;
    }
    Err(ChargingError::Contended.into())
}

/// One step of a purchase; `None` if the next step needs the changed account.
async fn step(cx: Context<'_>, account: &Account) -> Result<Option<Bought>, NotBought> {
    let profile = &account.profile;
    if !routing::needs_add_on(profile.plan()) {
        return Err(NotBought::NotNeeded);
    }
    if billing::is_over(profile, cx.now) {
        run_due(cx, &account.id).await?;
        return Ok(None);
    }
    let status = profile.add_on.status();
    match status {
        AddOnStatus::Cancelling if billing::can_resume(profile) => {
            return resume(cx, account).await;
        }
        AddOnStatus::Active | AddOnStatus::Cancelling => return Err(NotBought::AlreadyActive),
        _ => {}
    }
    let charge = profile.billing.charge.as_ref();
    let intent = charge.map(|charge| &charge.intent);
    if let Some(subscription) = &profile.billing.subscription {
        if status == AddOnStatus::PastDue {
            let url = open_invoice(cx, subscription).await?;
            return Ok(url.map(Bought::Checkout));
        }
        cancel_subscription(cx, &subscription.id).await?;
    } else if let Some(intent) = intent.filter(|intent| **intent != IntentState::None) {
        clear(cx, account, intent).await?;
    } else if billing::period_has_ended(profile, cx.now) {
        // Charges the current period, or finds that nothing is owed.
        run_due(cx, &account.id).await?;
    } else if let Some(checkout) = &profile.billing.checkout {
        let url = reopen(cx, account, checkout).await?;
        return Ok(url.map(Bought::Checkout));
    } else if let Some(wanted) = billing::next_purchase(profile) {
        // A generation keeps the collection method that it began with.
        let kept = profile.add_on.collection();
        let kept = kept.filter(|_| matches!(wanted, AddOnPurchase::Period { .. }));
        let collection = kept.unwrap_or(cx.settings.collection);
        if collection == Collection::Credits {
            return buy_with_credits(cx, account, &wanted).await;
        }
        let order = edge::new_id("ord");
        let begin = |profile: &mut Profile| {
            if profile.billing.checkout.is_none()
                && billing::next_purchase(profile).as_ref() == Some(&wanted)
            {
                let (order, wanted) = (order.clone(), wanted.clone());
                billing::begin_checkout(profile, order, wanted, collection, cx.now);
            }
        };
        cx.change(&account.id, begin).await?;
    } else {
        run_due(cx, &account.id).await?;
    }
    Ok(None)
}

async fn resume(cx: Context<'_>, account: &Account) -> Result<Option<Bought>, NotBought> {
    let resume = |profile: &mut Profile| {
        billing::resume(profile, cx.now);
        // Our state may be stale: updating Stripe shows whether the subscription still runs.
        let subscription = profile.billing.subscription.as_ref();
        if let Some(id) = subscription.map(|subscription| subscription.id.clone()) {
            billing::subscription_uncertain(profile, &id);
        }
    };
    let resumed = cx.change(&account.id, resume).await?;
    if resumed.profile.add_on.status() == AddOnStatus::Cancelling {
        return Ok(None);
    }
    if let Err(error) = run_due(cx, &account.id).await {
        edge::log_error(&error, "could not resume a subscription; the billing tick retries");
    }
    // The update may have shown that the subscription is over.
    let profile = cx.account(&account.id).await?.profile;
    if profile.add_on.status() == AddOnStatus::Cancelling && !billing::can_resume(&profile) {
        return Err(NotBought::AlreadyActive);
    }
    Ok(Some(Bought::Resumed))
}

async fn buy_with_credits(
    cx: Context<'_>,
    account: &Account,
    wanted: &AddOnPurchase,
) -> Result<Option<Bought>, NotBought> {
    let paid = match wanted {
        AddOnPurchase::Generation => activate(cx, account).await?,
        AddOnPurchase::Period { generation, period } => {
            pay_period(cx, account, generation, *period).await?
        }
    };
    match paid {
        CreditPayment::Paid => Ok(Some(Bought::Paid)),
        CreditPayment::NotOwed => Err(NotBought::AlreadyActive),
        CreditPayment::Insufficient => Err(NotBought::InsufficientCredits(cx.settings.price)),
    }
}

/// Makes sure that an unresolved PaymentIntent cannot be paid in addition to a checkout.
async fn clear(cx: Context<'_>, account: &Account, intent: &IntentState) -> Result<(), NotBought> {
    let stripe = &cx.stripe;
    let (known, found) = match intent {
        IntentState::None => return Ok(()),
        IntentState::Creating => return Err(NotBought::InProgress),
        IntentState::Idle { id } => (id, stripe.cancel_intent(&IntentId::new(id.as_str())?).await),
        IntentState::Confirming { id, .. } => {
            (id, stripe.intent(&IntentId::new(id.as_str())?).await)
        }
    };
    let found = match found {
        Err(PaymentError::Missing { .. }) => {
            let gone = |profile: &mut Profile| billing::intent_cancelled(profile, known);
            cx.change(&account.id, gone).await?;
            return Ok(());
        }
        found => found?,
    };
    let id = found.id.as_str();
    match (found.status, intent) {
        (IntentStatus::Succeeded, _) => {
            apply_intent(cx, &found).await?;
        }
        (IntentStatus::Canceled, _) => {
            let cancelled = |profile: &mut Profile| billing::intent_cancelled(profile, id);
            cx.change(&account.id, cancelled).await?;
        }
        // A known decline, which the next task stores.
        (
            IntentStatus::RequiresPaymentMethod | IntentStatus::RequiresAction,
            IntentState::Confirming { .. },
        ) => {
            let look_up = |profile: &mut Profile| billing::look_up_now(profile, id, cx.now);
            cx.change(&account.id, look_up).await?;
            run_due(cx, &account.id).await?;
        }
        _ => return Err(NotBought::InProgress),
    }
    Ok(())
}

/// The Stripe page for paying the subscription's open invoice. `None` if it was paid.
async fn open_invoice(
    cx: Context<'_>,
    subscription: &Subscription,
) -> Result<Option<Url>, NotBought> {
    let (stripe, id) = (&cx.stripe, SubscriptionId::new(subscription.id.as_str())?);
    let latest = match stripe.subscription(&id).await {
        Err(PaymentError::Missing { .. }) => {
            apply_subscription(cx, &id, None).await?;
            return Ok(None);
        }
        found => found?.latest_invoice,
    };
    let Some(latest) = latest else {
        return Err(NotBought::InProgress);
    };
    let invoice = stripe.invoice(&latest).await?;
    match (invoice.status, invoice.payment_url) {
        (InvoiceStatus::Open | InvoiceStatus::Uncollectible, Some(url)) => Ok(Some(url.parse()?)),
        (InvoiceStatus::Paid, _) => {
            apply_subscription(cx, &id, Some(&latest)).await?;
            Ok(None)
        }
        _ => Err(NotBought::InProgress),
    }
}
