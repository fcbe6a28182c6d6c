//! Accounts to try things with, brought into any state.

use account::add_on::{Collection, Fact, GenerationId};
use account::{
    Account, AccountId, AccountNumber, AddOn, AddOnStatus, Credits, EntryId, Period, Plan, Profile,
};
use edge::{ApiError, Code};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use serde::Deserialize;
use store::{Created, EntryKind, HistoryEntry, PostError, PostRefused, Posting, Store};

use crate::stripe::StripeHandle;

const ACTOR: &str = "_dev";

/// The demo accounts: id, description, and state.
pub const DEMO: [(&str, &str, AccountChange); 3] = [
    ("demo-enterprise", "enterprise: BYOK is included", demo(Plan::Enterprise, 20, None)),
    (
        "demo-standard",
        "standard, with the add-on",
        demo(Plan::Standard, 50, Some(AddOnStatus::Active)),
    ),
    ("demo-free", "standard, without the add-on", demo(Plan::Standard, 10, None)),
];

const fn demo(plan: Plan, credits: i64, add_on: Option<AddOnStatus>) -> AccountChange {
    let credits = Credits::from_micros(credits * 1_000_000);
    AccountChange { plan: Some(plan), credits: Some(credits), add_on }
}

/// An account's target state.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountChange {
    /// A new account is standard unless this says otherwise.
    pub plan: Option<Plan>,
    pub credits: Option<Credits>,
    /// The target status, as of now.
    pub add_on: Option<AddOnStatus>,
}

fn invalid(detail: impl Into<std::borrow::Cow<'static, str>>) -> ApiError {
    ApiError::new(Code::InvalidRequest, detail)
}

pub(crate) async fn stored(store: &Store, id: &AccountId) -> Result<Option<Account>, ApiError> {
    let account = store.accounts.get(id).await;
    account.map_err(|error| ApiError::storage(&error))
}

/// Creates or changes an account. With a Stripe, an account that gets the add-on also gets a card.
pub async fn change_account(
    store: &Store,
    stripe: Option<&StripeHandle>,
    id: &AccountId,
    change: AccountChange,
    now: Timestamp,
) -> Result<Account, ApiError> {
    if stored(store, id).await?.is_none() {
        let number = AccountNumber::new(edge::random_id("acct"));
        let number = number.map_err(|error| ApiError::internal(&error))?;
        let profile = Profile::new(change.plan.unwrap_or(Plan::Standard), 1, now);
        let why = HistoryEntry {
            id: edge::random_id("dev"),
            at: now,
            actor: ACTOR.to_owned(),
            what: "created".to_owned(),
        };
        let created = store.accounts.create(id, &number, &profile, &why).await;
        let created = created.map_err(|error| ApiError::storage(&error))?;
        if created == Created::Deleted {
            return Err(invalid("the account was deleted; use another id"));
        }
    }
    let has_add_on = change.add_on.is_some_and(|status| status != AddOnStatus::None);
    let stripe = stripe.filter(|_| has_add_on);
    let payer = stripe.map(StripeHandle::add_payer);
    let changed = store
        .accounts
        .update(id, None, now, |profile| {
            change_profile(profile, id, change, now);
            if let Some((customer, card)) = payer.clone() {
                profile.billing.customer = Some(customer);
                billing::keep_card(profile, card, now);
            }
            Ok::<_, std::convert::Infallible>(Vec::new())
        })
        .await;
    let account = changed.map_err(|error| ApiError::internal(&error))?;
    match change.credits {
        Some(balance) => reach_balance(store, account, balance, now).await,
        None => Ok(account),
    }
}

fn change_profile(profile: &mut Profile, id: &AccountId, change: AccountChange, now: Timestamp) {
    if let Some(plan) = change.plan.filter(|plan| *plan != profile.plan()) {
        profile.apply_plan(plan, profile.plans.version() + 1, now);
    }
    if let Some(status) = change.add_on {
        profile.add_on = add_on_in(status, id, now);
        *profile.billing = account::Billing::default();
    }
}

/// An add-on whose facts amount to `status` at `now`.
fn add_on_in(status: AddOnStatus, id: &AccountId, now: Timestamp) -> AddOn {
    // Stripe's times are whole seconds.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let generation = GenerationId::new(format!("dev-{id}-{}", now.as_second()));
    let fact = |fact: fn(GenerationId) -> Fact| fact(generation.clone());
    let declined = |generation| Fact::Declined { generation, period: Period::FIRST.next() };
    let grace_over = |generation| Fact::GraceOver { generation, period: Period::FIRST.next() };
    let cancelled = |generation| Fact::Cancelled { generation, counter: 1, while_due: None };
    let period_over = |generation| Fact::PeriodOver { generation, period: Period::FIRST };
    let month_ago = now.to_zoned(TimeZone::UTC).saturating_sub(1.month()).timestamp();
    let (at, facts) = match status {
        AddOnStatus::None => return AddOn::default(),
        AddOnStatus::Active => (now, vec![]),
        AddOnStatus::PastDue => (month_ago, vec![fact(declined)]),
        AddOnStatus::Cancelling => (now, vec![fact(cancelled)]),
        AddOnStatus::Suspended => {
            let at = month_ago - SignedDuration::from_hours(8 * 24);
            (at, vec![fact(declined), fact(grace_over)])
        }
        AddOnStatus::Ended => (month_ago, vec![fact(cancelled), fact(period_over)]),
    };
    let mut add_on = AddOn::default();
    add_on.apply(Fact::Activated { generation, at, collection: Collection::Card });
    for fact in facts {
        add_on.apply(fact);
    }
    add_on
}

async fn reach_balance(
    store: &Store,
    account: Account,
    balance: Credits,
    now: Timestamp,
) -> Result<Account, ApiError> {
    if balance.is_negative() {
        return Err(invalid("`credits` is the balance to reach; it cannot be negative"));
    }
    let missing = balance.checked_sub(account.balance.balance());
    let missing = missing.ok_or_else(|| invalid("the amount of credits is too large"))?;
    if missing != Credits::ZERO {
        let id = EntryId::new(edge::new_id("adj")).map_err(|error| ApiError::internal(&error))?;
        let posting = Posting {
            id: &id,
            kind: EntryKind::Adjustment,
            amount: missing,
            at: now,
            note: "set by a development helper",
            actor: ACTOR,
        };
        let posted = store.ledger.post(&account.id, &posting).await;
        posted.map_err(|error| match error {
            PostError::Store(error) => ApiError::storage(&error),
            PostError::Refused(PostRefused::Insufficient(_)) => {
                invalid("calls in progress hold more credits than that; wait for them to end")
            }
            PostError::Refused(refused) => invalid(refused.to_string()),
        })?;
    }
    let account = stored(store, &account.id).await?;
    account.ok_or_else(ApiError::account_not_found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_of_the_add_on_can_be_reached() {
        use AddOnStatus::{Active, Cancelling, Ended, None, PastDue, Suspended};
        for text in ["2026-03-31T12:00:00Z", "2026-11-23T00:00:00Z"] {
            let now = text.parse().unwrap();
            let id = AccountId::new("acme").unwrap();
            for status in [None, Active, PastDue, Cancelling, Suspended, Ended] {
                let add_on = add_on_in(status, &id, now);
                assert_eq!(add_on.status(), status);
                let paid_through = add_on.paid_through();
                match status {
                    None => assert_eq!(paid_through, Option::None),
                    Active | Cancelling => assert!(paid_through > Some(now)),
                    PastDue | Suspended | Ended => assert!(paid_through <= Some(now)),
                }
            }
        }
    }
}
