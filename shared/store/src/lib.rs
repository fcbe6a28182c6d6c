//! Accounts, credits with holds, and the ledger, in DynamoDB.
//!
//! # Requests of an AI call
//!
//! - OpenRouter pays: one strongly consistent `GetItem`.
//! - Credits pay: one `GetItem`, one `TransactWriteItems` (balance and hold), one `UpdateItem`
//!   (generation id), one `TransactWriteItems` (balance, hold, ledger entry, day).
//!
//! The last transaction is refused only for the call that takes the balance below the minimum. The
//! store then reads the hold, and sends the transaction again with the event `credits.low`.
//!
//! The account's profile and its balance are one item, so that one read shows who pays and whether
//! the balance covers it. They are written separately: a change of the profile is conditional on
//! `revision`, a change of the balance on the amounts themselves, and neither disturbs the other.
//!
//! # Items
//!
//! | table | key | item |
//! |---|---|---|
//! | accounts | `account_id`, `account` | profile (as JSON), `always_use_key`, balance |
//! | accounts | `account_id`, `attempts` | key checks and payment pages of the last hour |
//! | accounts | `account_id`, `secret#<key id>` | a secret to delete unless it is in use |
//! | accounts | `account_id`, `event#<event id>` | a domain event to deliver (outbox) |
//! | accounts | `account_id`, `deletion` | a deleted account to scrub |
//! | accounts | `<account number>`, `number` | the account's id |
//! | ledger | `account_number`, `e#<time>#<id>` | a ledger entry, never changed |
//! | ledger | `account_number`, `id#<id>` | a posting's id, so that it is posted once |
//! | ledger | `account_number`, `h#<time>#<id>` | a change of the account: its history |
//! | ledger | `account_number`, `d#<date>` | credits spent and calls made on a day |
//! | holds | `account_number`, `<call id>` | a hold |
//! | holds | `account_number`, `idem#<hash>` | an idempotency key in use |
//! | charges | `object#<Stripe id>`, `object` | a payment order and its outcome |
//! | charges | `account_number`, `<generation>#<period>` | a period of the add-on and its payment |
//! | charges | `account_number`, `cleanup` | a deleted account's open payments at Stripe |
//! | webhooks | `<event id>` | a Stripe event and its state |
//!
//! Architecture invariant: every movement of credits is one transaction of balance, ledger entry
//! and cause; only `balance.rs` names the balance's attributes in an update.

mod accounts;
mod attempts;
mod balance;
mod books;
mod cleanup;
mod db;
mod deletion;
mod domain_events;
mod due_index;
mod effects;
mod error;
mod history;
mod holds;
mod inbox;
mod item;
mod ledger;
mod open_holds;
mod orders;
mod outbox;
mod payments;
mod postings;
mod refunds;
mod retry;
mod secrets;
mod write;

use std::sync::Arc;

use account::Credits;
use aws_sdk_dynamodb::Client;

pub use account::hold::Resolution;
pub use accounts::{
    Accounts, AccountsCursor, AccountsPage, Created, Presence, Segment, UpdateError,
};
pub use books::{Books, Reconciliation};
pub use db::Tables;
pub use deletion::Deletion;
pub use domain_events::{DomainEvent, Facts};
pub use due_index::{Due, DueIndex, DueKind, DueTask, shard_of, shards};
pub use effects::Effect;
pub use error::StoreError;
pub use history::HistoryEntry;
pub use holds::{HoldOutcome, NewHold};
pub use inbox::{EventState, Inbox, Recorded};
pub use ledger::{Cursor, Day, EntryKind, Ledger, LedgerEntry, LedgerPage};
pub use open_holds::{DueHold, Hold, Holds, OpenHold, StoredHold};
pub use orders::{Outcome, PaymentOrder, Purchase};
pub use outbox::{Outbox, StoredEvent};
pub use payments::{Applied, Payments};
pub use postings::{CreditPayment, PostError, PostRefused, Posted, Posting, StoredPosting};
pub use refunds::STRIPE_ACTOR;

use db::{Database, Db};

/// All access to DynamoDB, by subject. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pub accounts: Accounts,
    pub holds: Holds,
    pub ledger: Ledger,
    pub books: Books,
    pub payments: Payments,
    pub inbox: Inbox,
    pub outbox: Outbox,
    pub due: DueIndex,
    db: Db,
}

impl Store {
    pub fn new(client: Client, tables: Tables) -> Self {
        Self::of(Database { client, tables, low_below: None })
    }

    /// Publishes `credits.low` when a standard account's balance goes below `minimum`.
    #[must_use]
    pub fn with_low_credits_events(self, minimum: Credits) -> Self {
        Self::of(Database { low_below: Some(minimum), ..(*self.db).clone() })
    }

    fn of(database: Database) -> Self {
        let db = Arc::new(database);
        Self {
            accounts: Accounts { db: db.clone() },
            holds: Holds { db: db.clone() },
            ledger: Ledger { db: db.clone() },
            books: Books { db: db.clone() },
            payments: Payments { db: db.clone() },
            inbox: Inbox { db: db.clone() },
            outbox: Outbox { db: db.clone() },
            due: DueIndex { db: db.clone() },
            db,
        }
    }
}
