//! Another writer acts between a read and the write that depends on it.

use std::convert::Infallible;

use account::add_on::{Collection, GenerationId};
use account::hold::HoldState;
use account::{
    Account, AccountId, AccountNumber, CallId, Credits, EntryId, KeyId, Period, Plan, Profile,
    Purpose,
};
use aws_sdk_dynamodb::types::AttributeValue::{N, S};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use store::{
    Created, CreditPayment, Deletion, DueHold, EntryKind, HistoryEntry, Hold, PaymentOrder,
    PostRefused, Posted, Posting, Presence, Purchase, Resolution, Store, UpdateError,
};

use crate::support::{World, new_hold, refused};

const TRANSACTION: &str = "TransactWriteItems";

fn acme() -> AccountId {
    AccountId::new("acme").unwrap()
}

fn credits(micros: i64) -> Credits {
    Credits::from_micros(micros)
}

fn why(at: Timestamp) -> HistoryEntry {
    HistoryEntry { id: "why".to_owned(), at, actor: "test".to_owned(), what: "a test".to_owned() }
}

/// A world with one account of 7 credits, and a store whose requests can be disturbed.
async fn world() -> (World, Store, Account) {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let account = world.system.account("acme").await;
    let store = world.store_over_the_wire();
    (world, store, account)
}

async fn hold(store: &Store, account: &Account, call: &str, at: Timestamp) -> Hold {
    let call = CallId::new(call).unwrap();
    let new = new_hold(&call, credits(1_000), at);
    store.holds.take(account, &new).await.unwrap().taken().unwrap()
}

async fn post(
    store: &Store,
    id: &str,
    kind: EntryKind,
    amount: i64,
    at: Timestamp,
) -> Result<Posted, PostRefused> {
    let posting = Posting {
        id: &EntryId::new(id).unwrap(),
        kind,
        amount: credits(amount),
        at,
        note: "why",
        actor: "test",
    };
    refused(store.ledger.post(&acme(), &posting).await)
}

/// Credits spent between the read and the posting are not taken twice.
#[tokio::test]
async fn a_posting_takes_only_available_credits() {
    let (world, disturbed, _) = world().await;
    let (store, now) = (world.system.store.clone(), world.system.clock.now());
    world.wire.meanwhile(TRANSACTION, async move {
        post(&store, "adj_1", EntryKind::Adjustment, -5_000_000, now).await.unwrap();
    });
    let taken = post(&disturbed, "adj_2", EntryKind::Adjustment, -3_000_000, now).await;
    assert!(matches!(taken, Err(PostRefused::Insufficient(_))), "{taken:?}");
    assert_eq!(world.settled_balance("acme").await, "2");
    // A reversal takes what is left by then.
    let store = world.system.store.clone();
    world.wire.meanwhile(TRANSACTION, async move {
        post(&store, "adj_3", EntryKind::Adjustment, -1_500_000, now).await.unwrap();
    });
    let reversal = post(&disturbed, "rev_1", EntryKind::Reversal, -2_000_000, now).await;
    let moved = Posted::Now { balance: credits(-500_000), owed: credits(1_500_000) };
    assert_eq!(reversal, Ok(moved));
    world.settled_balance("acme").await;
}

/// Two concurrent grants: the debt is paid once.
#[tokio::test]
async fn a_debt_is_paid_once() {
    let (world, disturbed, _) = world().await;
    let (store, now) = (world.system.store.clone(), world.system.clock.now());
    post(&store, "rev_1", EntryKind::Reversal, -9_000_000, now).await.unwrap();
    world.wire.meanwhile(TRANSACTION, async move {
        post(&store, "grant_1", EntryKind::Grant, 5_000_000, now).await.unwrap();
    });
    post(&disturbed, "grant_2", EntryKind::Grant, 5_000_000, now).await.unwrap();
    let balance = world.system.account("acme").await.balance;
    assert_eq!((balance.owed(), balance.balance()), (Credits::ZERO, credits(8_000_000)));
    world.settled_balance("acme").await;
}

/// An account that is being deleted gets no credits.
#[tokio::test]
async fn a_posting_does_not_revive_an_account() {
    let (world, disturbed, _) = world().await;
    let (store, now) = (world.system.store.clone(), world.system.clock.now());
    world.wire.meanwhile(TRANSACTION, async move {
        store.accounts.delete(&acme(), 9, &why(now)).await.unwrap();
    });
    let posted = post(&disturbed, "grant_1", EntryKind::Grant, 1, now).await;
    assert_eq!(posted, Err(PostRefused::NoAccount));
}

/// A ledger entry is never overwritten, not even by one of the same name.
#[tokio::test]
async fn the_ledger_is_append_only() {
    let (world, store, account) = world().await;
    let now = world.system.clock.now();
    let held = hold(&store, &account, "call_1", now).await;
    let number = account.number.as_str().to_owned();
    let planted = world.engines().dynamodb();
    planted
        .put_item()
        .table_name("LedgerTable")
        .item("account_number", S(number.clone()))
        .item("entry", S(format!("e#{now:.6}#call_1")))
        .item("amount", N("-7".to_owned()))
        .send()
        .await
        .unwrap();
    let settled = store.holds.settle(&held, credits(400), now, "test", None).await.unwrap();
    assert_eq!(settled, Resolution::Already(Some(HoldState::Open)));
    let balance = world.system.account("acme").await.balance;
    assert_eq!(balance.held(), credits(1_000), "nothing moved");
}

/// Two sweepers find the same hold: one claims it.
#[tokio::test]
async fn a_due_hold_is_claimed_once() {
    let (world, disturbed, account) = world().await;
    let now = world.system.clock.now();
    let held = hold(&disturbed, &account, "call_1", now).await;
    let later = now + SignedDuration::from_mins(30);
    let shard = store::shard_of(held.call.as_str());
    let due = || async {
        let mut due = world.system.store.holds.due(shard, later, 10).await.unwrap();
        due.remove(0).unwrap()
    };
    let found: DueHold = due().await;
    let (store, same) = (world.system.store.clone(), found.clone());
    world.wire.meanwhile("UpdateItem", async move {
        assert!(store.holds.claim(&same, later).await.unwrap().is_some());
    });
    assert_eq!(disturbed.holds.claim(&found, later).await.unwrap(), None);
    // It is due again later, and is resolved just when it is claimed.
    let later = later + SignedDuration::from_hours(2);
    let found = {
        let mut due = world.system.store.holds.due(shard, later, 10).await.unwrap();
        due.remove(0).unwrap()
    };
    let (store, ending) = (world.system.store.clone(), held.clone());
    world.wire.meanwhile("UpdateItem", async move {
        store.holds.release(&ending, later, "test", None).await.unwrap();
    });
    assert_eq!(disturbed.holds.claim(&found, later).await.unwrap(), None);
    assert_eq!(disturbed.holds.claim(&found, later).await.unwrap(), None);
    let left = world.system.store.holds.due(shard, later, 10).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

/// Updates of a hold apply only while it is open: a resolved one stays as it is, and an expired one
/// is not recreated.
#[tokio::test]
async fn a_resolved_hold_stays_as_it_is() {
    let (world, store, account) = world().await;
    let now = world.system.clock.now();
    let held = hold(&store, &account, "call_1", now).await;
    let item = || async {
        let read = world.engines().dynamodb().get_item().table_name("HoldsTable");
        let read = read
            .key("account_number", S(account.number.as_str().to_owned()))
            .key("hold", S("call_1".to_owned()));
        read.send().await.unwrap().item
    };
    store.holds.settle(&held, credits(7), now, "test", None).await.unwrap();
    let ended = item().await.unwrap();
    store.holds.record_generation(&held, "gen-late").await.unwrap();
    store.holds.check_at(&held, now).await.unwrap();
    assert_eq!(item().await.unwrap(), ended);
    let expired = world.engines().dynamodb().delete_item().table_name("HoldsTable");
    expired
        .key("account_number", S(account.number.as_str().to_owned()))
        .key("hold", S("call_1".to_owned()))
        .send()
        .await
        .unwrap();
    store.holds.record_generation(&held, "gen-late").await.unwrap();
    assert_eq!(item().await, None);
    let late = store.holds.settle(&held, credits(7), now, "test", None).await.unwrap();
    assert_eq!(late, Resolution::Already(None));
    assert_eq!(item().await, None);
}

/// Two concurrent changes of an account do not undo each other.
#[tokio::test]
async fn concurrent_changes_do_not_undo_each_other() {
    let (world, disturbed, account) = world().await;
    let now = world.system.clock.now();
    // As a plain update, and in a transaction with another item.
    for (version, operation) in [(2, "UpdateItem"), (5, TRANSACTION)] {
        let store = world.system.store.clone();
        world.wire.meanwhile(operation, async move {
            let upgrade = |profile: &mut account::Profile| {
                profile.apply_plan(Plan::Enterprise, version, now);
                Ok::<_, Infallible>(Vec::new())
            };
            store.accounts.update(&acme(), None, now, upgrade).await.unwrap();
        });
        let changed = disturbed.accounts.update(&account.id, None, now, |profile| {
            profile.apply_plan(Plan::Standard, version + 1, now);
            Ok::<_, Infallible>(match operation {
                TRANSACTION => vec![store::Effect::History(why(now))],
                _ => Vec::new(),
            })
        });
        changed.await.unwrap();
        let plans = world.system.account("acme").await.profile.plans;
        assert_eq!((plans.plan(), plans.version()), (Plan::Standard, version + 1));
        let change = plans.last_change().unwrap();
        assert_eq!(change.version, version + 1, "the last change wins");
    }
}

/// A change to an account that is deleted meanwhile finds nothing.
#[tokio::test]
async fn a_change_does_not_revive_an_account() {
    let (world, disturbed, account) = world().await;
    let (store, now) = (world.system.store.clone(), world.system.clock.now());
    world.wire.meanwhile("UpdateItem", async move {
        store.accounts.delete(&acme(), 9, &why(now)).await.unwrap();
    });
    let changed = disturbed.accounts.update(&account.id, None, now, |profile| {
        profile.apply_plan(Plan::Enterprise, 2, now);
        Ok::<_, Infallible>(Vec::new())
    });
    let changed = changed.await;
    assert!(matches!(changed, Err(UpdateError::NotFound)), "{changed:?}");
}

/// An account is created, changed or deleted while it is being deleted.
#[tokio::test]
async fn deletions_race_with_other_events() {
    let (world, disturbed, account) = world().await;
    let now = world.system.clock.now();
    let other = AccountId::new("other").unwrap();
    // It is created by an event newer than the deletion.
    let store = world.system.store.clone();
    let (id, number) = (other.clone(), account::AccountNumber::new("n-1").unwrap());
    world.wire.meanwhile(TRANSACTION, async move {
        let profile = account::Profile::new(Plan::Standard, 9, now);
        let created = store.accounts.create(&id, &number, &profile, &why(now)).await;
        assert_eq!(created.unwrap(), Created::Now);
    });
    let deleted = disturbed.accounts.delete(&other, 5, &why(now)).await.unwrap();
    assert_eq!(deleted, Deletion::Late);
    // It changes.
    let store = world.system.store.clone();
    world.wire.meanwhile(TRANSACTION, async move {
        let upgrade = |profile: &mut account::Profile| {
            profile.apply_plan(Plan::Enterprise, 12, now);
            Ok::<_, Infallible>(Vec::new())
        };
        store.accounts.update(&acme(), None, now, upgrade).await.unwrap();
    });
    let deleted = disturbed.accounts.delete(&account.id, 11, &why(now)).await.unwrap();
    assert_eq!(deleted, Deletion::Late);
    // Two events delete it at once: the higher version stays.
    disturbed.accounts.delete(&account.id, 20, &why(now)).await.unwrap();
    let store = world.system.store.clone();
    world.wire.meanwhile(TRANSACTION, async move {
        store.accounts.delete(&acme(), 30, &why(now)).await.unwrap();
    });
    let deleted = disturbed.accounts.delete(&account.id, 25, &why(now)).await.unwrap();
    assert_eq!(deleted, Deletion::Done(None));
    let presence = world.system.store.accounts.presence(&account.id).await.unwrap();
    assert_eq!(presence, Presence::Deleted { version: 30, scrubbed: false });
    // It is recreated while a late deletion is running.
    assert!(world.system.store.accounts.scrub(&account.id).await.unwrap());
    let store = world.system.store.clone();
    world.wire.meanwhile(TRANSACTION, async move {
        let profile = account::Profile::new(Plan::Standard, 50, now);
        let number = account::AccountNumber::new("n-2").unwrap();
        let created = store.accounts.create(&acme(), &number, &profile, &why(now)).await;
        assert_eq!(created.unwrap(), Created::Now);
    });
    let deleted = disturbed.accounts.delete(&account.id, 40, &why(now)).await.unwrap();
    assert_eq!(deleted, Deletion::Late);
    assert_eq!(world.settled_balance("acme").await, "0");
}

/// Deletes the account and recreates it under its old id.
async fn delete_and_recreate(store: Store, now: Timestamp) {
    store.accounts.delete(&acme(), 9, &why(now)).await.unwrap();
    assert!(store.accounts.scrub(&acme()).await.unwrap());
    let number = account::AccountNumber::new("n-2").unwrap();
    let profile = account::Profile::new(Plan::Enterprise, 50, now);
    let created = store.accounts.create(&acme(), &number, &profile, &why(now)).await;
    assert_eq!(created.unwrap(), Created::Now);
    post(&store, "grant_2", EntryKind::Grant, 5_000_000, now).await.unwrap();
}

/// A stale read of the old account changes nothing in the new one.
#[tokio::test]
async fn a_new_account_under_an_old_id_is_separate() {
    let (world, disturbed, old) = world().await;
    let (store, now) = (world.system.store.clone(), world.system.clock.now());
    delete_and_recreate(store.clone(), now).await;
    let call = CallId::new("call_1").unwrap();
    let new = new_hold(&call, Credits::ZERO, now);
    let held = store.holds.take(&old, &new).await.unwrap();
    assert_eq!(held, store::HoldOutcome::NoAccount);
    assert_eq!(world.settled_balance("acme").await, "5");
    let changed = disturbed.accounts.update(&old.id, Some(old.clone()), now, |profile| {
        profile.apply_plan(Plan::Standard, 51, now);
        Ok::<_, Infallible>(Vec::new())
    });
    changed.await.unwrap();
    let plans = world.system.account("acme").await.profile.plans;
    assert_eq!(plans.last_change().unwrap().version, 51, "the new account's plan changed");
}

/// The same in the middle of a deletion, and of a posting.
#[tokio::test]
async fn an_old_deletion_does_not_end_a_new_account() {
    let (world, disturbed, old) = world().await;
    let (store, now) = (world.system.store.clone(), world.system.clock.now());
    world.wire.meanwhile(TRANSACTION, delete_and_recreate(store.clone(), now));
    let deleted = disturbed.accounts.delete(&old.id, 11, &why(now)).await.unwrap();
    assert_eq!(deleted, Deletion::Late);
    assert_eq!(world.settled_balance("acme").await, "5");

    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let disturbed = world.store_over_the_wire();
    world.wire.meanwhile(TRANSACTION, delete_and_recreate(world.system.store.clone(), now));
    post(&disturbed, "grant_3", EntryKind::Grant, 1_000_000, now).await.unwrap();
    assert_eq!(world.settled_balance("acme").await, "6", "it is the new account's");
}

/// Only a deleted account is scrubbed, and only when nothing is held.
#[tokio::test]
async fn a_live_account_is_not_scrubbed() {
    let (world, store, account) = world().await;
    let now = world.system.clock.now();
    assert!(!store.accounts.scrub(&account.id).await.unwrap());
    assert_eq!(world.settled_balance("acme").await, "7");
    let held = hold(&store, &account, "call_1", now).await;
    store.accounts.delete(&account.id, 9, &why(now)).await.unwrap();
    assert!(!store.accounts.scrub(&account.id).await.unwrap());
    let settled = store.holds.settle(&held, credits(7), now, "test", None).await.unwrap();
    assert_eq!(settled, Resolution::Done(HoldState::Settled(credits(7))));
    for _ in 0..2 {
        assert!(store.accounts.scrub(&account.id).await.unwrap());
    }
}

/// Removing an older record of a secret keeps the newer one.
#[tokio::test]
async fn removing_an_old_secret_record_keeps_a_newer_one() {
    let (world, store, account) = world().await;
    let now = world.system.clock.now();
    let key = KeyId::new("key_1").unwrap();
    let later = now + SignedDuration::from_hours(1);
    store.accounts.remember_secret(&account.id, &key, now).await.unwrap();
    store.accounts.remember_secret(&account.id, &key, later).await.unwrap();
    store.accounts.forget_secret(&account.id, &key, now).await.unwrap();
    let all = || async {
        let mut found = 0;
        for shard in store::shards() {
            found += store.due.find(store::DueKind::Secret, shard, later, 10).await.unwrap().len();
        }
        found
    };
    assert_eq!(all().await, 1);
    store.accounts.forget_secret(&account.id, &key, later).await.unwrap();
    assert_eq!(all().await, 0);
}

/// Two ticks find the same due work: one claims it.
#[tokio::test]
async fn due_work_is_claimed_once() {
    let (world, disturbed, account) = world().await;
    let now = world.system.clock.now();
    let later = now + SignedDuration::from_hours(1);
    let key = KeyId::new("key_1").unwrap();
    disturbed.accounts.remember_secret(&account.id, &key, now).await.unwrap();
    disturbed.accounts.delete(&account.id, 9, &why(now)).await.unwrap();
    let store = world.system.store.clone();
    let (mut secrets, mut deletions) = (Vec::new(), Vec::new());
    for shard in store::shards() {
        secrets.extend(store.due.find(store::DueKind::Secret, shard, now, 10).await.unwrap());
        deletions.extend(store.due.find(store::DueKind::Deletion, shard, now, 10).await.unwrap());
    }
    let secret = secrets.remove(0).unwrap();
    let deletion = deletions.remove(0).unwrap();
    let (other, same) = (store.clone(), secret.clone());
    world.wire.meanwhile("UpdateItem", async move {
        assert!(other.due.postpone(&same, later).await.unwrap());
    });
    assert!(!disturbed.due.postpone(&secret, later).await.unwrap());
    let (other, same) = (store.clone(), deletion.clone());
    world.wire.meanwhile("UpdateItem", async move {
        assert!(other.due.postpone(&same, later).await.unwrap());
    });
    assert!(!disturbed.due.postpone(&deletion, later).await.unwrap());
}

/// Two concurrent checks of a key count as two.
#[tokio::test]
async fn concurrent_checks_are_all_counted() {
    let (world, disturbed, account) = world().await;
    let now = world.system.clock.now();
    let second = move |n| now + SignedDuration::from_secs(n);
    for n in 0..9 {
        let counted = disturbed.accounts.count_attempt(&account.id, Purpose::Test, second(n)).await;
        assert_eq!(counted.unwrap(), None);
    }
    let store = world.system.store.clone();
    let id = account.id.clone();
    world.wire.meanwhile("PutItem", async move {
        let counted = store.accounts.count_attempt(&id, Purpose::Test, second(9)).await;
        assert_eq!(counted.unwrap(), None);
    });
    let eleventh = disturbed.accounts.count_attempt(&account.id, Purpose::Test, second(10)).await;
    assert!(eleventh.unwrap().is_some());
}

/// Pays 5 credits for the add-on, unless a concurrent change forbids it.
async fn pay_add_on(store: &Store, account: &Account, at: Timestamp) -> CreditPayment {
    let id = EntryId::new("addon_1").unwrap();
    let generation = GenerationId::new(id.as_str());
    let posting = Posting {
        id: &id,
        kind: EntryKind::AddOn,
        amount: credits(-5_000_000),
        at,
        note: "why",
        actor: "test",
    };
    let order = PaymentOrder {
        stripe_id: id.to_string(),
        account_number: account.number.clone(),
        purchase: Purchase::Period { generation: generation.clone(), period: Period::FIRST },
        amount_cents: 500,
        created_at: at,
    };
    let judge = |profile: &mut Profile| {
        billing::activate(profile, generation.clone(), at, Collection::Credits)
    };
    let paid = store.ledger.pay_add_on(&account.id, &posting, &order, judge);
    paid.await.unwrap()
}

/// The price is taken from available credits, from the account that was judged, and only while it
/// is owed.
#[tokio::test]
async fn the_add_on_is_paid_only_while_owed_and_affordable() {
    let (world, disturbed, account) = world().await;
    let (store, now) = (world.system.store.clone(), world.system.clock.now());
    world.wire.meanwhile(TRANSACTION, async move {
        post(&store, "adj_1", EntryKind::Adjustment, -3_000_000, now).await.unwrap();
    });
    let paid = pay_add_on(&disturbed, &account, now).await;
    assert_eq!(paid, CreditPayment::Insufficient);
    assert_eq!(world.settled_balance("acme").await, "4");
    // The plan changes.
    let store = world.system.store.clone();
    post(&store, "grant_1", EntryKind::Grant, 10_000_000, now).await.unwrap();
    world.wire.meanwhile(TRANSACTION, async move {
        let upgrade = |profile: &mut Profile| {
            profile.apply_plan(Plan::Enterprise, 9, now);
            Ok::<_, Infallible>(Vec::new())
        };
        store.accounts.update(&acme(), None, now, upgrade).await.unwrap();
    });
    let paid = pay_add_on(&disturbed, &account, now).await;
    assert_eq!(paid, CreditPayment::NotOwed);
    assert_eq!(world.settled_balance("acme").await, "14");
}

/// A new account with the same id does not owe the old one's price.
#[tokio::test]
async fn a_recreated_account_does_not_pay_for_the_old_one() {
    let (world, disturbed, account) = world().await;
    let (store, now) = (world.system.store.clone(), world.system.clock.now());
    world.wire.meanwhile(TRANSACTION, async move {
        store.accounts.delete(&acme(), 9, &why(now)).await.unwrap();
        assert!(store.accounts.scrub(&acme()).await.unwrap());
        let number = AccountNumber::new("acct_another").unwrap();
        let profile = Profile::new(Plan::Standard, 10, now);
        let (id, why) = (acme(), why(now));
        let created = store.accounts.create(&id, &number, &profile, &why).await;
        assert_eq!(created.unwrap(), Created::Now);
        post(&store, "grant_1", EntryKind::Grant, 10_000_000, now).await.unwrap();
    });
    let paid = pay_add_on(&disturbed, &account, now).await;
    assert_eq!(paid, CreditPayment::NotOwed);
    assert_eq!(world.settled_balance("acme").await, "10");
    assert_eq!(account.revision, 0, "the number alone tells them apart");
}
