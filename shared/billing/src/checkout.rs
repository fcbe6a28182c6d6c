//! Checkout Sessions for paying the add-on: one at a time.

use account::add_on::Collection;
use account::billing::{AddOnPurchase, Checkout, Session};
use account::{AddOnStatus, Profile};
use jiff::{SignedDuration, Timestamp};

use crate::task::{Step, Task, later};

/// Life of a Checkout Session. Stripe accepts 30 minutes to 24 hours.
pub const CHECKOUT_LIFE: SignedDuration = SignedDuration::from_hours(1);

/// Maximum time for creating a session. After that, its end would be too near for Stripe.
pub(crate) const CREATION_TIME: SignedDuration = SignedDuration::from_mins(20);

pub(crate) fn next_step(profile: &Profile) -> Option<(Timestamp, Step)> {
    let checkout = profile.billing.checkout.as_ref()?;
    let wanted = is_wanted(profile, &checkout.purchase);
    let Some(session) = &checkout.session else {
        let at = if wanted { later(checkout.created_at, CREATION_TIME) } else { Timestamp::MIN };
        return Some((at, Step::DropCheckout));
    };
    let at = if wanted {
        // The next due attempt replaces the checkout.
        let charge = profile.billing.charge.as_ref();
        let attempt = charge.and_then(|charge| charge.attempt_at);
        attempt.map_or(session.expires_at, |at| at.min(session.expires_at))
    } else {
        Timestamp::MIN
    };
    let task = Task::ExpireCheckout { session: session.id.clone() };
    Some((at.max(checkout.next_at), Step::Checkout(task)))
}

/// What a checkout would pay for now; `None` if there is nothing to buy.
pub fn next_purchase(profile: &Profile) -> Option<AddOnPurchase> {
    let purchase = match profile.add_on.status() {
        AddOnStatus::PastDue => {
            let charge = profile.billing.charge.as_ref();
            let period = charge.map(|charge| charge.period);
            AddOnPurchase::Period {
                generation: profile.add_on.generation()?.clone(),
                period: period.max(profile.add_on.last_declined())?,
            }
        }
        _ => AddOnPurchase::Generation,
    };
    // If Stripe collects, its own open invoice covers the period.
    let asked_by_stripe =
        matches!(purchase, AddOnPurchase::Period { .. }) && profile.add_on.is_run_by_stripe();
    Some(purchase).filter(|purchase| !asked_by_stripe && is_wanted(profile, purchase))
}

/// Whether the checkout can be paid until `until`.
pub fn is_payable(profile: &Profile, checkout: &Checkout, until: Timestamp) -> bool {
    let ends = match &checkout.session {
        Some(session) => session.expires_at,
        None => later(checkout.created_at, CREATION_TIME),
    };
    is_wanted(profile, &checkout.purchase) && until < ends
}

/// Whether the account may still buy this.
pub(crate) fn is_wanted(profile: &Profile, purchase: &AddOnPurchase) -> bool {
    match purchase {
        // While a subscription could still collect, this would be a second payment.
        AddOnPurchase::Generation => {
            routing::may_buy_add_on(profile) && profile.billing.subscription.is_none()
        }
        AddOnPurchase::Period { generation, period } => {
            routing::owes_period(profile, generation, *period)
        }
    }
}

pub fn begin_checkout(
    profile: &mut Profile,
    order: String,
    purchase: AddOnPurchase,
    collection: Collection,
    now: Timestamp,
) {
    profile.billing.checkout = Some(Checkout {
        order,
        purchase,
        collection,
        created_at: now,
        session: None,
        next_at: now,
    });
}

/// Records that the session was created. False if it is no longer wanted.
#[must_use = "an unwanted session has to be expired"]
pub fn checkout_created(profile: &mut Profile, order: &str, session: Session) -> bool {
    let checkout = profile.billing.checkout.as_ref();
    let wanted = checkout.is_some_and(|it| it.order == order && is_wanted(profile, &it.purchase));
    if let (true, Some(checkout)) = (wanted, &mut profile.billing.checkout) {
        checkout.session = Some(session);
    }
    wanted
}

/// Records that the session can no longer be paid.
pub fn checkout_closed(profile: &mut Profile, session: &str) {
    let checkout = profile.billing.checkout.as_ref();
    let known = checkout.and_then(|checkout| checkout.session.as_ref());
    if known.is_some_and(|known| known.id == session) {
        profile.billing.checkout = None;
    }
}
