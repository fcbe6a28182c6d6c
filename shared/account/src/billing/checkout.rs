//! Pages of the provider on which the add-on is paid: one at a time.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Charge, Step, later};
use crate::add_on::{Collection, GenerationId};
use crate::period::Period;
use crate::{AddOnStatus, Plan, Profile};

/// How long a checkout can be paid. The provider takes 30 minutes to 24 hours.
pub const CHECKOUT_LIFE: SignedDuration = SignedDuration::from_hours(1);

/// How long a checkout may be in the making; after that the provider may find its end too near.
pub(super) const MAKING: SignedDuration = SignedDuration::from_mins(20);

/// A page of the provider on which the add-on can be paid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkout {
    /// Our own name of it, and the idempotency key of its making.
    pub order: String,
    pub purchase: AddOnPurchase,
    pub collection: Collection,
    /// All that is sent to the provider follows from this, so that it can be sent again.
    pub made_at: Timestamp,
    /// `None` while it is in the making.
    pub session: Option<Session>,
    /// Nobody else closes it before.
    pub(super) next_at: Timestamp,
}

/// What a checkout pays for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddOnPurchase {
    /// A new generation's first period.
    Generation,
    /// The open period.
    Period {
        generation: GenerationId,
        period: Period,
    },
}

/// The provider's side of a checkout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub id: String,
    pub url: String,
    pub expires_at: Timestamp,
}

impl Profile {
    pub(super) fn next_of_checkout(&self) -> Option<(Timestamp, Step)> {
        let checkout = self.billing.checkout.as_ref()?;
        let Some(session) = &checkout.session else {
            let at = if self.wants(&checkout.purchase) {
                later(checkout.made_at, MAKING)
            } else {
                Timestamp::MIN
            };
            return Some((at, Step::ForgetCheckout));
        };
        let at = if self.wants(&checkout.purchase) {
            // The next due attempt takes its place.
            let attempt = self.billing.charge.as_ref().and_then(Charge::attempt_at);
            attempt.map_or(session.expires_at, |at| at.min(session.expires_at))
        } else {
            Timestamp::MIN
        };
        Some((at.max(checkout.next_at), Step::Close))
    }

    /// What a checkout would pay for now; `None` if there is nothing to pay.
    pub fn can_buy(&self) -> Option<AddOnPurchase> {
        let period = self.billing.charge.as_ref().map(|charge| charge.period);
        let open = period.max(self.add_on.last_declined());
        let open = open.zip(self.add_on.generation());
        let open = open.map(|(period, generation)| AddOnPurchase::Period {
            generation: generation.clone(),
            period,
        });
        match self.add_on.status() {
            // The provider asks for it itself.
            AddOnStatus::PastDue if self.is_run_by_provider() => None,
            AddOnStatus::PastDue => open,
            _ => Some(AddOnPurchase::Generation),
        }
        .filter(|purchase| self.wants(purchase))
    }

    /// Is the checkout one that can be paid until `until`?
    pub fn can_be_paid(&self, checkout: &Checkout, until: Timestamp) -> bool {
        let ends = match &checkout.session {
            Some(session) => session.expires_at,
            None => later(checkout.made_at, MAKING),
        };
        self.wants(&checkout.purchase) && until < ends
    }

    /// May what a checkout purchase still be bought?
    pub(super) fn wants(&self, purchase: &AddOnPurchase) -> bool {
        match purchase {
            AddOnPurchase::Generation => {
                let may_begin = matches!(
                    self.add_on.status(),
                    AddOnStatus::None | AddOnStatus::Suspended | AddOnStatus::Ended
                );
                // Of two that could be charged, one is too many.
                self.plan() == Plan::Standard && may_begin && self.billing.subscription.is_none()
            }
            AddOnPurchase::Period { generation, period } => self.is_owed(generation, *period),
        }
    }

    /// A checkout is about to be made.
    pub fn begin_checkout(
        &mut self,
        order: String,
        purchase: AddOnPurchase,
        collection: Collection,
        now: Timestamp,
    ) {
        self.billing.checkout = Some(Checkout {
            order,
            purchase,
            collection,
            made_at: now,
            session: None,
            next_at: now,
        });
    }

    /// The checkout was made. False if nobody wants it any more: then it is to be closed.
    #[must_use = "a checkout that nobody wants is to be closed"]
    pub fn checkout_made(&mut self, order: &str, session: Session) -> bool {
        let checkout = self.billing.checkout.as_ref();
        let wanted = checkout
            .is_some_and(|checkout| checkout.order == order && self.wants(&checkout.purchase));
        if let (true, Some(checkout)) = (wanted, &mut self.billing.checkout) {
            checkout.session = Some(session);
        }
        wanted
    }

    /// The checkout cannot be paid any more.
    pub fn checkout_closed(&mut self, session: &str) {
        let checkout = self.billing.checkout.as_ref();
        let known = checkout.and_then(|checkout| checkout.session.as_ref());
        if known.is_some_and(|known| known.id == session) {
            self.billing.checkout = None;
        }
    }
}
