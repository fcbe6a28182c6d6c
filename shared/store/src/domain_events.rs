//! Domain events: changes of an account that Greta's other systems learn about.
//!
//! An event is written in the transaction of its change, under an id derived from that change.

use std::collections::BTreeMap;

use account::{Account, AddOnStatus, Credits, KeyId};
use aws_sdk_dynamodb::types::builders::UpdateBuilder;
use jiff::Timestamp;

use crate::item::micros;

/// An event's content by name: texts, and times in RFC 3339. Never a secret.
pub type Facts = BTreeMap<String, Option<String>>;

/// An event for Greta's other systems, delivered from an outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainEvent {
    /// Deterministic: a change never makes two events, and no two changes make the same one.
    pub id: String,
    /// For example `key.rejected`.
    pub kind: &'static str,
    pub at: Timestamp,
    pub facts: Facts,
}

impl DomainEvent {
    /// OpenRouter rejected `key` at `at`.
    pub fn key_rejected(key: &KeyId, at: Timestamp) -> Self {
        Self {
            id: format!("{key}-rejected-{}", at.as_microsecond()),
            kind: "key.rejected",
            at,
            facts: facts([("key_id", Some(key.to_string()))]),
        }
    }

    /// The event of the change from `before` to `after`, if any. Its id contains the revision.
    pub(crate) fn add_on(before: &Account, after: &Account, at: Timestamp) -> Option<Self> {
        let add_on = &after.profile.add_on;
        let generation = add_on.generation()?.as_str();
        let time_of = |at: Timestamp| Some(at.to_string());
        let paid_through = add_on.paid_through();
        let charge = after.profile.billing.charge.as_ref();
        let reason = || vec![("reason", add_on.reason().map(|reason| reason.as_str().to_owned()))];
        let (kind, more) = match add_on.change_since(&before.profile.add_on)? {
            AddOnStatus::Active => {
                let renews = add_on.status() == AddOnStatus::Active;
                let next = paid_through.filter(|_| renews);
                ("add_on.activated", vec![("next_charge_at", next.and_then(time_of))])
            }
            AddOnStatus::PastDue => {
                let next = charge.and_then(|charge| charge.attempt_at);
                let ends = charge.map(|charge| charge.grace_ends);
                let attempt = ("next_attempt_at", next.and_then(time_of));
                ("add_on.past_due", vec![attempt, ("access_until", ends.and_then(time_of))])
            }
            AddOnStatus::Suspended => ("add_on.suspended", reason()),
            AddOnStatus::Ended => ("add_on.ended", reason()),
            AddOnStatus::None | AddOnStatus::Cancelling => return None,
        };
        let paid_through = ("paid_through", paid_through.and_then(time_of));
        let name = kind.strip_prefix("add_on.")?;
        Some(Self {
            id: format!("{generation}-{name}-{}", after.revision),
            kind,
            at,
            facts: facts(more.into_iter().chain([paid_through])),
        })
    }
}

/// A movement that may take a standard account's balance below the minimum. Whether it does is a
/// condition of the transaction, so that each crossing makes one event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crossing {
    minimum: Credits,
    /// The lowest balance that the movement does not take below the minimum.
    enough: Credits,
}

impl Crossing {
    /// `None` if nothing is taken, or there is no minimum.
    pub(crate) fn by(taken: Credits, minimum: Option<Credits>) -> Option<Self> {
        let minimum = minimum.filter(|minimum| *minimum > Credits::ZERO)?;
        let enough = minimum.checked_add(taken)?;
        (taken > Credits::ZERO).then_some(Self { minimum, enough })
    }

    pub(crate) fn begins_at(self, balance: Credits) -> bool {
        self.minimum <= balance && balance < self.enough
    }

    /// Adds the condition that `update` takes the balance below the minimum, or that it does not.
    pub(crate) fn condition(self, update: UpdateBuilder, crosses: bool) -> UpdateBuilder {
        let own = if crosses {
            "(attribute_exists(profile) AND balance >= :minimum AND balance < :enough)"
        } else {
            "(balance < :minimum OR balance >= :enough)"
        };
        let condition = match update.get_condition_expression() {
            Some(before) => format!("{before} AND {own}"),
            None => own.to_owned(),
        };
        update
            .condition_expression(condition)
            .expression_attribute_values(":minimum", micros(self.minimum))
            .expression_attribute_values(":enough", micros(self.enough))
    }

    /// The event of the crossing. `cause` names the movement.
    pub(crate) fn event(self, cause: &str, at: Timestamp) -> DomainEvent {
        DomainEvent {
            id: format!("{cause}-credits-low"),
            kind: "credits.low",
            at,
            facts: facts([("minimum", Some(self.minimum.to_string()))]),
        }
    }
}

fn facts(facts: impl IntoIterator<Item = (&'static str, Option<String>)>) -> Facts {
    let named = facts.into_iter();
    named.map(|(name, fact)| (name.to_owned(), fact)).collect()
}
