//! Incoming payments and cards.

use account::add_on::{Collection, Fact, GenerationId};
use account::billing::{AddOnPurchase, Card};
use account::{Period, Profile};
use jiff::Timestamp;

use crate::checkout;

/// Applies a payment of a period, made with `stripe_id`. False if the payment does not count.
#[must_use = "a payment that does not count has to be refunded"]
pub fn period_paid(
    profile: &mut Profile,
    generation: &GenerationId,
    period: Period,
    stripe_id: &str,
) -> bool {
    let counts = routing::payment_counts(profile, generation, period);
    if counts {
        profile.add_on.apply(Fact::Paid { generation: generation.clone(), period });
    }
    forget_paid(profile, stripe_id);
    counts
}

/// Applies the payment of a new generation, named after its payment. False if it does not count.
#[must_use = "a payment that does not count has to be refunded"]
pub fn activate(
    profile: &mut Profile,
    generation: GenerationId,
    at: Timestamp,
    collection: Collection,
) -> bool {
    let counts = checkout::is_wanted(profile, &AddOnPurchase::Generation);
    forget_paid(profile, generation.as_str());
    if counts {
        profile.add_on.apply(Fact::Activated { generation, at, collection });
    }
    counts
}

/// Keeps a card, unless a later one is on file. A period that the previous card failed to pay is
/// retried at once. False if another card stays.
pub fn keep_card(profile: &mut Profile, payment_method: String, given_at: Timestamp) -> bool {
    if let Some(known) = &profile.billing.card
        && known.given_at >= given_at
    {
        return known.payment_method == payment_method;
    }
    profile.billing.card = Some(Card { payment_method, given_at });
    let is_charged_by_us = !profile.add_on.is_run_by_stripe();
    if let Some(charge) = &mut profile.billing.charge
        && (charge.declines > 0 || charge.was_refused || charge.attempt_at.is_none())
        && is_charged_by_us
    {
        charge.attempt_at = Some(given_at);
    }
    true
}

/// Replaces a customer that no longer exists at Stripe, and forgets its card, which is gone as
/// well. False if the account has a different customer by now.
pub fn replace_customer(profile: &mut Profile, gone: &str, new: &str) -> bool {
    if profile.billing.customer.as_deref() == Some(gone) {
        profile.billing.customer = Some(new.to_owned());
        profile.billing.card = None;
    }
    profile.billing.customer.as_deref() == Some(new)
}

/// Forgets the charge or checkout that `stripe_id` paid.
fn forget_paid(profile: &mut Profile, stripe_id: &str) {
    let billing = &mut profile.billing;
    let intent = billing.charge.as_ref().and_then(|charge| charge.intent.id());
    if intent == Some(stripe_id) {
        billing.charge = None;
    }
    let session = billing.checkout.as_ref().and_then(|it| it.session.as_ref());
    if session.is_some_and(|session| session.id == stripe_id) {
        billing.checkout = None;
    }
}
