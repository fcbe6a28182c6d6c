//! Accounts to try things with.

use std::error::Error;

use account::{AccountId, AddOnStatus, Credits, Plan};

use crate::dev::{AccountChange, change_account};
use crate::provider::PaymentProvider;
use crate::system::System;

/// Each account's id, what it is, and how it gets there.
pub const ACCOUNTS: [(&str, &str, AccountChange); 3] = [
    (
        "demo-enterprise",
        "enterprise: BYOK is included",
        AccountChange {
            plan: Some(Plan::Enterprise),
            credits: Some(Credits::from_micros(20_000_000)),
            add_on: None,
        },
    ),
    (
        "demo-standard",
        "standard, with the add-on",
        AccountChange {
            plan: Some(Plan::Standard),
            credits: Some(Credits::from_micros(50_000_000)),
            add_on: Some(AddOnStatus::Active),
        },
    ),
    (
        "demo-free",
        "standard, without the add-on",
        AccountChange {
            plan: Some(Plan::Standard),
            credits: Some(Credits::from_micros(10_000_000)),
            add_on: None,
        },
    ),
];

/// Makes them.
///
/// # Errors
/// If the storage does not answer.
pub async fn make_accounts(system: &System) -> Result<(), Box<dyn Error>> {
    let provider = system.payment_provider.as_ref();
    let payers = provider.map(PaymentProvider::payers);
    for (id, _, change) in ACCOUNTS {
        let (id, now) = (AccountId::new(id)?, system.clock.now());
        change_account(&system.store, payers.as_ref(), &id, change, now).await?;
    }
    Ok(())
}
