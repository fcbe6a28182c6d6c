//! Applies the state of PaymentIntents and Checkout Sessions, wherever it was reported.

use account::add_on::{Collection, GenerationId};
use account::billing::Subscription;
use account::{Credits, EntryId, Profile};
use payments::{
    CheckoutSession, IntentStatus, PaymentError, PaymentIntent, SessionId, SessionStatus,
    SubscriptionId,
};
use store::{
    Applied, EntryKind, Outcome, PaymentOrder, PostError, PostRefused, Posting, Purchase,
    STRIPE_ACTOR,
};

use crate::context::Context;
use crate::error::Result;
use crate::outcome::{PaymentUpdate, apply_payment, finish, mismatch, via};
use crate::stripe_subscription::charge_subscription;

/// Applies the state of a PaymentIntent; safe to repeat. A state that may be stale counts only if
/// it is a success.
pub async fn apply_intent(cx: Context<'_>, intent: &PaymentIntent) -> Result<PaymentUpdate> {
    let stripe_id = intent.id.as_str();
    let Some((order, _)) = cx.store.payments.order(stripe_id).await? else {
        return Ok(PaymentUpdate::Ignored("not a PaymentIntent of ours"));
    };
    if matches!(order.purchase, Purchase::Via { .. }) {
        // The session is applied instead.
        return Ok(PaymentUpdate::NoPayment);
    }
    if intent.status != IntentStatus::Succeeded {
        // Only a look-up shows whether the payment failed for good.
        if let Some(account) = cx.store.accounts.by_number(&order.account_number).await? {
            let look_up = |profile: &mut Profile| billing::look_up_now(profile, stripe_id, cx.now);
            cx.change(&account.id, look_up).await?;
        }
        return Ok(PaymentUpdate::NoPayment);
    }
    let amount = intent.amount_received.or(intent.amount);
    if let Some(reason) = mismatch(cx, &order, amount, intent.currency, intent.livemode) {
        return Ok(PaymentUpdate::Ignored(reason));
    }
    apply_payment(cx, stripe_id, cx.now, &[], |_| {}).await
}

/// Applies the state of a Checkout Session. Applying it again is safe.
pub async fn apply_session(cx: Context<'_>, session: &CheckoutSession) -> Result<PaymentUpdate> {
    let stripe_id = session.id.as_str();
    let Some((order, outcome)) = cx.store.payments.order(stripe_id).await? else {
        return Ok(PaymentUpdate::Ignored("not a Checkout Session of ours"));
    };
    if !session.paid {
        return Ok(PaymentUpdate::NoPayment);
    }
    if order.purchase == Purchase::Card {
        return apply_card(cx, &order, session).await;
    }
    let (amount, currency) = (session.amount_total, session.currency);
    if let Some(reason) = mismatch(cx, &order, amount, currency, session.livemode) {
        // A payment that counted is not undone by an event that says otherwise.
        if let (None, Some(subscription)) = (outcome, &session.subscription) {
            cx.stripe.cancel_subscription(subscription).await?;
        }
        return Ok(PaymentUpdate::Ignored(reason));
    }
    let intent = session.intent.as_ref();
    let via = intent.map(|intent| via(&order, intent.to_string()));
    if let (None, Purchase::Credits { .. }, Some(via)) = (outcome, &order.purchase, &via) {
        cx.store.payments.create_order(via).await?;
    }
    let finished = match (outcome, &order.purchase) {
        (Some(outcome), _) => Some((outcome, false)),
        (None, Purchase::Credits { entry, credits }) => {
            Some(post_purchase(cx, &order, entry, *credits).await?)
        }
        _ => None,
    };
    if let Some((outcome, by_this_call)) = finished {
        let applied = Applied { order, outcome, by_this_call };
        return Ok(finish(cx, applied).await);
    }
    let collection = Collection::Provider;
    if let (true, Some(subscription)) =
        (order.purchase == Purchase::Generation { collection }, &session.subscription)
    {
        return apply_new_subscription(cx, &order, session, subscription).await;
    }
    // The card, and the time of the payment by Stripe's clock.
    let intent = match &session.intent {
        Some(id) => found_at_stripe(cx.stripe.intent(id).await)?,
        None => None,
    };
    let paid_at = intent.as_ref().and_then(|intent| intent.paid_at).unwrap_or(cx.now);
    let keep_card = |profile: &mut Profile| {
        let Some(intent) = &intent else { return };
        if let Some(customer) = intent.customer.as_ref().or(session.customer.as_ref()) {
            profile.billing.customer = Some(customer.to_string());
        }
        if let Some(card) = &intent.payment_method {
            billing::keep_card(profile, card.to_string(), paid_at);
        }
    };
    apply_payment(cx, stripe_id, paid_at, via.as_slice(), keep_card).await
}

/// Applies the first payment of a subscription. Stripe's later updates name the subscription, its
/// invoice or the invoice's PaymentIntent.
async fn apply_new_subscription(
    cx: Context<'_>,
    order: &PaymentOrder,
    session: &CheckoutSession,
    subscription: &SubscriptionId,
) -> Result<PaymentUpdate> {
    let invoice = match &session.invoice {
        Some(invoice) => found_at_stripe(cx.stripe.invoice(invoice).await)?,
        None => None,
    };
    let paid_at = invoice.as_ref().and_then(|invoice| invoice.paid_at).unwrap_or(cx.now);
    let intent = invoice.as_ref().and_then(|invoice| invoice.intent.as_ref());
    let stripe_ids = [
        Some(subscription.to_string()),
        invoice.as_ref().map(|invoice| invoice.id.to_string()),
        intent.map(ToString::to_string),
    ];
    let stripe_ids = stripe_ids.into_iter().flatten();
    let via: Vec<_> = stripe_ids.map(|stripe_id| via(order, stripe_id)).collect();
    let keep_subscription = |profile: &mut Profile| {
        let generation = GenerationId::new(session.id.as_str());
        let subscription = Subscription::new(subscription.to_string(), generation);
        profile.billing.subscription = Some(subscription);
        if let Some(customer) = &session.customer {
            profile.billing.customer = Some(customer.to_string());
        }
    };
    let stripe_id = session.id.as_str();
    apply_payment(cx, stripe_id, paid_at, &via, keep_subscription).await
}

/// Posts bought credits once per order. Returns the outcome, and whether this call stored it.
async fn post_purchase(
    cx: Context<'_>,
    order: &PaymentOrder,
    entry: &EntryId,
    credits: Credits,
) -> Result<(Outcome, bool)> {
    let posting = Posting {
        id: entry,
        kind: EntryKind::Purchase,
        amount: credits,
        at: cx.now,
        note: "credits bought",
        actor: STRIPE_ACTOR,
    };
    let posted = match cx.store.accounts.by_number(&order.account_number).await? {
        Some(account) => cx.store.ledger.post(&account.id, &posting).await,
        None => Err(PostRefused::NoAccount.into()),
    };
    let outcome = match posted {
        Ok(_) => Outcome::Counted,
        Err(PostError::Refused(refused)) => {
            edge::log_error(&refused, "could not post a purchase of credits");
            Outcome::RefundDue
        }
        Err(error) => return Err(error.into()),
    };
    let set_outcome = cx.store.payments.set_outcome(order, outcome, cx.now);
    Ok((outcome, set_outcome.await?))
}

async fn apply_card(
    cx: Context<'_>,
    order: &PaymentOrder,
    session: &CheckoutSession,
) -> Result<PaymentUpdate> {
    let Some(setup) = &session.setup_intent else {
        return Ok(PaymentUpdate::Ignored("a setup session without a card"));
    };
    let card = found_at_stripe(cx.stripe.setup_intent(setup).await)?.flatten();
    let account = cx.store.accounts.by_number(&order.account_number).await?;
    if let (Some(card), Some(account)) = (card, account) {
        let mut is_latest = false;
        let keep_card = |profile: &mut Profile| {
            is_latest = billing::keep_card(profile, card.to_string(), order.created_at);
        };
        let account = cx.change(&account.id, keep_card).await?;
        if is_latest {
            charge_subscription(cx, &account, &card).await?;
        }
    }
    Ok(PaymentUpdate::NoPayment)
}

/// `None` if it no longer exists at Stripe.
fn found_at_stripe<T>(found: Result<T, PaymentError>) -> Result<Option<T>> {
    match found {
        Err(PaymentError::Missing { .. }) => Ok(None),
        found => Ok(Some(found?)),
    }
}

/// Looks up a Checkout Session in case Stripe's event was lost. False if it is still open.
pub async fn check_session(cx: Context<'_>, stripe_id: &str) -> Result<bool> {
    match cx.stripe.session(&SessionId::new(stripe_id)?).await {
        Ok(found) => {
            apply_session(cx, &found).await?;
            if found.status == SessionStatus::Open {
                return Ok(false);
            }
        }
        Err(PaymentError::Missing { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    cx.store.payments.close_session(stripe_id).await?;
    Ok(true)
}
