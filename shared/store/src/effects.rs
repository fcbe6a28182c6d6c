//! Effects: further writes in the transaction that changes the profile.

use account::add_on::GenerationId;
use account::{Account, KeyId, Period};
use jiff::Timestamp;

use crate::db::Database;
use crate::domain_events::DomainEvent;
use crate::error::StoreError;
use crate::history::{HistoryEntry, put_history};
use crate::orders::{PaymentOrder, order_item, put_order, set_waived};
use crate::outbox::put_event;
use crate::secrets::{delete_secret, put_secret};
use crate::write::Write;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The key's secret is no longer used: delete it from `due` on.
    SecretDue { key: KeyId, due: Timestamp },
    /// The key's secret comes into use, and its name is forgotten. The change is refused unless
    /// that name is still due at `due`: a clean-up or another save may have deleted the secret.
    SecretInForce { key: KeyId, due: Timestamp },
    /// Other systems learn of the change.
    Event(DomainEvent),
    /// The account's history says who made the change.
    History(HistoryEntry),
    /// Something can be paid at Stripe from now on.
    PaymentOrder(PaymentOrder),
    /// The period was missed, and is not charged.
    Waived { generation: GenerationId, period: Period, at: Timestamp },
}

impl Effect {
    /// The effect as a write. `before` is the account without the change.
    pub(crate) fn write(&self, db: &Database, before: &Account) -> Result<Write, StoreError> {
        let id = &before.id;
        Ok(match self {
            Self::SecretDue { key, due } => put_secret(db, id, key, *due),
            Self::SecretInForce { key, due } => delete_secret(db, id, key, *due),
            Self::Event(event) => put_event(db, id, event, before.revision + 1)?,
            Self::History(entry) => put_history(db, &before.number, entry),
            Self::PaymentOrder(order) => put_order(db, order_item(order)?),
            Self::Waived { generation, period, at } => {
                set_waived(db, &before.number, generation, *period, *at)
            }
        })
    }
}
