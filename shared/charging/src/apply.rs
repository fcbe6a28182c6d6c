//! Applies the state of PaymentIntents and Checkout Sessions, wherever it was reported.

use account::add_on::{Collection, GenerationId};
use account::billing::Subscription;
use account::{Credits, EntryId, Profile};
use jiff::Timestamp;
use payments::{
    CheckoutSession, IntentStatus, PaymentError, PaymentIntent, SessionId, SessionStatus,
    SubscriptionId,
};
use store::{Applied, EntryKind, Outcome, PaymentOrder, PostError, PostRefused, Posting, Purchase};

use crate::context::Charging;
use crate::error::ChargingError;
use crate::outcome::{PaymentUpdate, apply_payment, finish, mismatch, via};
use crate::reversal::STRIPE;
use crate::stripe_subscription::charge_subscription;

/// Applies the state of a PaymentIntent. An old state is believed only if it is a success, which is
/// final. Applying it again is safe.
pub async fn apply_intent(
    charging: &Charging,
    intent: &PaymentIntent,
    now: Timestamp,
) -> Result<PaymentUpdate, ChargingError> {
    let stripe_id = intent.id.as_str();
    let Some((order, _)) = charging.store.payments.order(stripe_id).await? else {
        return Ok(PaymentUpdate::Ignored("not a PaymentIntent of ours"));
    };
    if matches!(order.purchase, Purchase::Via { .. }) {
        // Its session is applied instead.
        return Ok(PaymentUpdate::NoPayment);
    }
    if intent.status != IntentStatus::Succeeded {
        // Only a look-up shows whether it failed for good.
        if let Some(account) = charging
            .store
            .accounts
            .by_number(&order.account_number)
            .await?
        {
            let look_up = |profile: &mut Profile| billing::look_up_now(profile, stripe_id, now);
            charging.change(&account.id, now, look_up).await?;
        }
        return Ok(PaymentUpdate::NoPayment);
    }
    let amount = intent.amount_received.or(intent.amount);
    let currency = intent.currency.as_deref();
    if let Some(reason) = mismatch(charging, &order, amount, currency, intent.livemode) {
        return Ok(PaymentUpdate::Ignored(reason));
    }
    apply_payment(charging, stripe_id, now, &[], |_| {}, now).await
}

/// Applies the state of a Checkout Session. Applying it again is safe.
pub async fn apply_session(
    charging: &Charging,
    session: &CheckoutSession,
    now: Timestamp,
) -> Result<PaymentUpdate, ChargingError> {
    let stripe_id = session.id.as_str();
    let Some((order, outcome)) = charging.store.payments.order(stripe_id).await? else {
        return Ok(PaymentUpdate::Ignored("not a Checkout Session of ours"));
    };
    if !session.paid {
        return Ok(PaymentUpdate::NoPayment);
    }
    if order.purchase == Purchase::Card {
        return apply_card(charging, &order, session, now).await;
    }
    let (amount, currency) = (session.amount_total, session.currency.as_deref());
    if let Some(reason) = mismatch(charging, &order, amount, currency, session.livemode) {
        // A payment that counted is not undone by an event that says otherwise.
        if let (None, Some(subscription)) = (outcome, &session.subscription) {
            charging.stripe.cancel_subscription(subscription).await?;
        }
        return Ok(PaymentUpdate::Ignored(reason));
    }
    if let Some(outcome) = outcome {
        let applied = Applied {
            order,
            outcome,
            by_this_call: false,
        };
        return finish(charging, applied).await;
    }
    let via = session
        .intent
        .as_ref()
        .map(|intent| via(&order, intent.to_string()));
    if let Purchase::Credits { entry, credits } = &order.purchase {
        if let Some(via) = &via {
            charging.store.payments.create_order(via).await?;
        }
        let outcome = post_purchase(charging, &order, entry, *credits, now).await?;
        let set_outcome = charging.store.payments.set_outcome(&order, outcome, now);
        let by_this_call = set_outcome.await?;
        let applied = Applied {
            order,
            outcome,
            by_this_call,
        };
        return finish(charging, applied).await;
    }
    let collection = Collection::Provider;
    if let (true, Some(subscription)) = (
        order.purchase == Purchase::Generation { collection },
        &session.subscription,
    ) {
        return apply_new_subscription(charging, &order, session, subscription, now).await;
    }
    // The card, and Stripe's own time of the payment.
    let intent = match &session.intent {
        Some(id) => Some(charging.stripe.intent(id).await?),
        None => None,
    };
    let paid_at = intent
        .as_ref()
        .and_then(|intent| intent.paid_at)
        .unwrap_or(now);
    let keep_card = |profile: &mut Profile| {
        let Some(intent) = &intent else { return };
        if let Some(customer) = intent.customer.as_ref().or(session.customer.as_ref()) {
            profile.billing.customer = Some(customer.to_string());
        }
        if let Some(card) = &intent.payment_method {
            billing::keep_card(profile, card.to_string(), paid_at);
        }
    };
    apply_payment(charging, stripe_id, paid_at, via.as_slice(), keep_card, now).await
}

/// Applies the first payment of a subscription. Stripe's later updates name the subscription, its
/// invoice or the invoice's PaymentIntent.
async fn apply_new_subscription(
    charging: &Charging,
    order: &PaymentOrder,
    session: &CheckoutSession,
    subscription: &SubscriptionId,
    now: Timestamp,
) -> Result<PaymentUpdate, ChargingError> {
    let invoice = match &session.invoice {
        Some(invoice) => Some(charging.stripe.invoice(invoice).await?),
        None => None,
    };
    let paid_at = invoice
        .as_ref()
        .and_then(|invoice| invoice.paid_at)
        .unwrap_or(now);
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
    apply_payment(charging, stripe_id, paid_at, &via, keep_subscription, now).await
}

/// Posts credits that were paid for, once for each order.
async fn post_purchase(
    charging: &Charging,
    order: &PaymentOrder,
    entry: &EntryId,
    credits: Credits,
    now: Timestamp,
) -> Result<Outcome, ChargingError> {
    let account = charging
        .store
        .accounts
        .by_number(&order.account_number)
        .await?;
    let posted = match account {
        Some(account) => {
            let posting = Posting {
                id: entry,
                kind: EntryKind::Purchase,
                amount: credits,
                at: now,
                note: "credits bought",
                actor: STRIPE,
            };
            charging.store.ledger.post(&account.id, &posting).await
        }
        None => Err(PostRefused::NoAccount.into()),
    };
    match posted {
        Ok(_) => Ok(Outcome::Counted),
        Err(PostError::Store(error)) => Err(error.into()),
        Err(PostError::Refused(refused)) => {
            edge::log_error(&refused, "a purchase of credits cannot be posted");
            Ok(Outcome::RefundDue)
        }
    }
}

/// Keeps the card that a setup session saved.
async fn apply_card(
    charging: &Charging,
    order: &PaymentOrder,
    session: &CheckoutSession,
    now: Timestamp,
) -> Result<PaymentUpdate, ChargingError> {
    let Some(setup) = &session.setup_intent else {
        return Ok(PaymentUpdate::Ignored("a setup session without a card"));
    };
    let card = charging.stripe.setup_intent(setup).await?;
    let account = charging
        .store
        .accounts
        .by_number(&order.account_number)
        .await?;
    if let (Some(card), Some(account)) = (card, account) {
        let mut is_latest = false;
        let keep_card = |profile: &mut Profile| {
            is_latest = billing::keep_card(profile, card.to_string(), order.created_at);
        };
        let account = charging.change(&account.id, now, keep_card).await?;
        if is_latest {
            charge_subscription(charging, &account, &card).await?;
        }
    }
    Ok(PaymentUpdate::NoPayment)
}

/// Looks up a Checkout Session that should have closed, in case Stripe's event was lost. False if it
/// is still open: look it up again later.
pub async fn check_session(
    charging: &Charging,
    stripe_id: &str,
    now: Timestamp,
) -> Result<bool, ChargingError> {
    match charging.stripe.session(&SessionId::new(stripe_id)?).await {
        Ok(found) => {
            apply_session(charging, &found, now).await?;
            if found.status == SessionStatus::Open {
                return Ok(false);
            }
        }
        Err(PaymentError::Missing { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    charging.store.payments.close_session(stripe_id).await?;
    Ok(true)
}
