//! Accounts, credits with holds, and the ledger, in DynamoDB.
//!
//! # What one AI call costs here
//!
//! | path | requests |
//! |---|---|
//! | OpenRouter pays | one strongly consistent `GetItem` |
//! | credits pay | one `GetItem`, one `TransactWriteItems` (balance and hold), one `UpdateItem` (generation id), one `TransactWriteItems` (balance, hold, ledger entry, day) |
//!
//! The call that takes the balance below the minimum, and only that one, has its last transaction
//! refused, looks at its hold, and sends it again with the event that tells of it.
//!
//! The account's profile and its balance are one item, so that one read answers "who pays" and "is
//! it covered". They are written apart: a change of the profile is conditional on `revision`, a
//! change of the balance on the amounts themselves, and neither disturbs the other.
//!
//! # Items
//!
//! | table | key | item |
//! |---|---|---|
//! | accounts | `account_id`, `account` | profile (JSON text; `always_use_key` beside it) and balance |
//! | accounts | `account_id`, `attempts` | key checks, and payment pages opened, of the last hour |
//! | accounts | `account_id`, `secret#<key id>` | a secret to delete unless it is the account's key by `due_at` |
//! | accounts | `account_id`, `event#<event id>` | a domain event to deliver (outbox) |
//! | accounts | `<account number>`, `number` | the way from an account's number to the account |
//! | ledger | `account_number`, `e#<time>#<id>` | a ledger entry, never changed |
//! | ledger | `account_number`, `id#<id>` | a posting's id, so that it is posted once |
//! | ledger | `account_number`, `h#<time>#<id>` | something done to the account: its history |
//! | ledger | `account_number`, `d#<date>` | credits spent and calls made on a day |
//! | holds | `account_number`, `<call id>` | a hold |
//! | holds | `account_number`, `idem#<hash>` | an idempotency key in use |
//! | charges | `object#<provider's id>`, `object` | what we asked for under this id, and what became of it |
//! | charges | `account_number`, `<generation>#<period>` | a period of the add-on, and what paid for it |
//! | charges | `account_number`, `cleanup` | what a deleted account left at the provider |
//! | charges | `rate#<kind>`, `pace` | when the provider may be asked next, for what is of a kind |
//! | webhooks | `<event id>` | an event of the payment provider, and what became of it |
//!
//! Architecture invariant: every movement of credits is one transaction of balance, ledger entry and
//! what caused it; the balance's attributes are changed nowhere else than in `balance.rs`.

mod accounts;
mod balance;
mod checkout_sessions;
mod cleanup;
mod deletion;
mod due_index;
mod error;
mod events;
mod holds;
mod item;
mod json;
mod ledger;
mod pace;
mod payments;
mod postings;
mod read;
mod reconcile;
mod refunds;
mod signature;
mod transaction;
mod webhooks;

pub use account::hold::Resolution;
pub use accounts::{Created, Effect, UpdateError};
pub use cleanup::DueCleanup;
pub use deletion::{Deletion, Presence};
pub use due_index::{DueAccount, DueDeletion, DueHold, DueSecret, shard_of, shards};
pub use error::StoreError;
pub use events::{DomainEvent, Facts, StoredEvent};
pub use holds::{Hold, HoldRefused, NewHold, OpenHold};
pub use ledger::{Cursor, Day, EntryKind, HistoryEntry, LedgerEntry, LedgerPage};
pub use pace::Pace;
pub use payments::{Applied, DuePayment, Outcome, PaymentOrder, Purchase};
pub use postings::{CreditPayment, PostRefused, Posted, Posting, StoredPosting};
pub use reconcile::{AccountsCursor, AccountsPage, Reconciliation, Segment, StoredHold};
pub use webhooks::{DueEvent, EventState, Recorded};

use account::Credits;
use aws_sdk_dynamodb::Client;

use crate::read::Reads;

/// The tables' names.
#[derive(Debug, Clone)]
pub struct Tables {
    pub accounts: String,
    pub ledger: String,
    pub holds: String,
    pub charges: String,
    pub webhooks: String,
}

impl Tables {
    /// `value_of` gives each setting's value.
    pub fn from_settings(mut value_of: impl FnMut(&'static str) -> String) -> Self {
        Self {
            accounts: value_of("ACCOUNTS_TABLE"),
            ledger: value_of("LEDGER_TABLE"),
            holds: value_of("HOLDS_TABLE"),
            charges: value_of("CHARGES_TABLE"),
            webhooks: value_of("WEBHOOKS_TABLE"),
        }
    }
}

/// All access to DynamoDB. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    client: Client,
    reads: Reads,
    tables: Tables,
    low_below: Option<Credits>,
}

impl Store {
    pub fn new(client: Client, tables: Tables) -> Self {
        Self {
            client,
            reads: Reads::default(),
            tables,
            low_below: None,
        }
    }

    /// A store that tells others when a standard account's balance goes below `minimum`
    /// (`MIN_CREDIT_BALANCE`): by a posting of its own, or by a call whose hold it takes, whoever
    /// settles that.
    #[must_use]
    pub fn telling_of_credits_below(mut self, minimum: Credits) -> Self {
        self.low_below = Some(minimum);
        self
    }
}
