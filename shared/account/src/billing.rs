//! The state at Stripe of an account's add-on: the facts, without the rules.
//!
//! This state is stored in the account's item beside the add-on and changed by the same conditional
//! writes, so that cancelling and charging meet in one value and nowhere else. The crate `billing`
//! decides the next step.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::add_on::{Collection, GenerationId};
use crate::period::Period;

/// The price of a period, in US cents.
pub const PRICE_CENTS: u64 = 500;

/// Open payments and subscriptions at Stripe, by Stripe's own ids.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Billing {
    pub customer: Option<String>,
    pub card: Option<Card>,
    /// Counts cancellations and resumptions.
    pub actions: u64,
    pub checkout: Option<Checkout>,
    pub charge: Option<Charge>,
    /// The last charge that was abandoned. If it starts again, its PaymentIntents stay counted.
    pub abandoned: Option<AbandonedCharge>,
    /// The subscription that collects, if Stripe runs one.
    pub subscription: Option<Subscription>,
}

/// The payment method that periods are charged to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    pub payment_method: String,
    /// When the user gave it; the latest counts.
    pub given_at: Timestamp,
}

/// How we collect one period, attempt by attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    pub generation: GenerationId,
    pub period: Period,
    /// PaymentIntents created so far: more than one only if one was cancelled for a checkout.
    pub intents: u32,
    pub intent: IntentState,
    /// Known declines; the next attempt has the next number.
    pub declines: u32,
    /// When the next attempt is due; `None` after the last one, or without a card.
    pub attempt_at: Option<Timestamp>,
    /// The time of the first request for a PaymentIntent.
    pub first_tried_at: Option<Timestamp>,
    /// Stripe refused an attempt without asking the card's bank.
    #[serde(default)]
    pub was_refused: bool,
    pub grace_ends: Timestamp,
    /// No other worker touches the charge before this time.
    pub next_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbandonedCharge {
    pub generation: GenerationId,
    pub period: Period,
    pub intents: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntentState {
    /// No PaymentIntent could be paid.
    None,
    /// It is being created.
    Creating,
    /// An attempt is under way and its outcome is not known.
    Confirming {
        id: String,
        /// The payment method. A repeated attempt uses the same one.
        card: Option<String>,
        since: Timestamp,
        /// Look-ups that did not reveal the outcome.
        checks: u32,
    },
    /// It exists, and nothing is under way.
    Idle { id: String },
}

/// A Checkout Session for paying the add-on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkout {
    /// Our name for the checkout, and the idempotency key of its creation.
    pub order: String,
    pub purchase: AddOnPurchase,
    pub collection: Collection,
    /// The request to Stripe depends on this time, so that it can be repeated unchanged.
    pub created_at: Timestamp,
    /// `None` while it is being created.
    pub session: Option<Session>,
    /// No other worker closes it before this time.
    pub next_at: Timestamp,
}

/// What a checkout of the add-on pays for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddOnPurchase {
    /// The first period of a new generation.
    Generation,
    /// The open period.
    Period { generation: GenerationId, period: Period },
}

/// Stripe's side of a checkout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub id: String,
    pub url: String,
    pub expires_at: Timestamp,
}

/// A subscription at Stripe. We follow what it collects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    pub id: String,
    pub generation: GenerationId,
    /// Whether it ends with its period. `None`: an update was sent, and Stripe has not responded.
    pub ends: Option<bool>,
    /// When Stripe last reported its status.
    pub checked_at: Option<Timestamp>,
    /// When to check next whether a period was paid.
    pub follow_at: Timestamp,
    /// No other worker touches it before this time.
    pub next_at: Timestamp,
}

impl Subscription {
    pub fn new(id: String, generation: GenerationId) -> Self {
        Self {
            id,
            generation,
            ends: Some(false),
            checked_at: None,
            follow_at: Timestamp::MIN,
            next_at: Timestamp::MIN,
        }
    }
}

impl IntentState {
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Confirming { id, .. } | Self::Idle { id } => Some(id),
            Self::None | Self::Creating => None,
        }
    }

    pub fn is_confirming(&self, intent: &str) -> bool {
        matches!(self, Self::Confirming { id, .. } if id == intent)
    }
}

impl Billing {
    pub fn payment_method(&self) -> Option<String> {
        self.card.as_ref().map(|card| card.payment_method.clone())
    }

    pub fn has_subscription(&self, id: &str) -> bool {
        self.subscription.as_ref().is_some_and(|it| it.id == id)
    }

    /// The ids of everything that could still be paid at Stripe.
    pub fn open_payments(&self) -> Vec<String> {
        let intent = self.charge.as_ref().and_then(|charge| charge.intent.id());
        let checkout = self.checkout.as_ref();
        let session = checkout.and_then(|checkout| checkout.session.as_ref());
        let session = session.map(|session| session.id.as_str());
        let subscription = self.subscription.as_ref().map(|it| it.id.as_str());
        let open = [intent, session, subscription];
        open.into_iter().flatten().map(str::to_owned).collect()
    }
}
