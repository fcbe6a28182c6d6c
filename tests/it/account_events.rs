//! Account events from Greta's core system: at least once, late, and in any order.

mod schema;

use std::convert::Infallible;

use account::add_on::{Collection, Fact, GenerationId};
use account::hold::HoldState;
use account::{AccountId, AddOnStatus, CallId, Credits, EntryId, KeyId, Plan};
use aws_sdk_dynamodb::types::AttributeValue::S;
use jiff::{SignedDuration, Timestamp};
use local::engines::SecretsFault;
use serde_json::{Value, json};
use store::{EntryKind, Hold, PostRefused, Posting, Presence, Resolution};

use crate::support::{KEY, World, new_hold, refused};
use crate::wire::Fault;

/// When the event of this version was sent.
fn time_of(version: u64) -> Timestamp {
    let start: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
    start + SignedDuration::from_hours(i64::try_from(version).unwrap())
}

fn event(name: &str, version: u64, detail: Value) -> Value {
    json!({
        "version": "0",
        "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
        "detail-type": name,
        "source": "greta.accounts",
        "account": "111122223333",
        "time": time_of(version),
        "region": "eu-central-1",
        "resources": [],
        "detail": detail,
    })
}

fn upserted(id: &str, plan: &str, version: u64) -> Value {
    let detail = json!({"account_id": id, "plan": plan, "version": version});
    event("account.upserted", version, detail)
}

fn deleted(id: &str, version: u64) -> Value {
    let detail = json!({"account_id": id, "version": version});
    event("account.deleted", version, detail)
}

fn id(name: &str) -> AccountId {
    AccountId::new(name).unwrap()
}

impl World {
    /// The outcome of the event, or the error that keeps it on the bus.
    async fn apply(&self, event: &Value) -> Result<String, String> {
        let answer = self.system.account_event(event).await;
        let answer = answer.map_err(|error| error.to_string())?;
        assert_eq!(answer["account_id"], event["detail"]["account_id"]);
        Ok(answer["done"].as_str().unwrap().to_owned())
    }

    async fn presence(&self, name: &str) -> Presence {
        self.system.store.accounts.presence(&id(name)).await.unwrap()
    }

    /// Plan, version and add-on of an existing account.
    async fn plan_of(&self, name: &str) -> (Plan, u64, AddOnStatus) {
        let profile = self.system.account(name).await.profile;
        let add_on = profile.add_on.status();
        (profile.plan(), profile.plans.version(), add_on)
    }

    /// The attribute names of each of the account's items in the accounts table.
    async fn stored(&self, name: &str) -> Vec<(String, Vec<String>)> {
        let found = self
            .engines()
            .dynamodb()
            .query()
            .table_name(&self.system.tables.accounts)
            .key_condition_expression("account_id = :id")
            .expression_attribute_values(":id", S(name.to_owned()))
            .send();
        let items = found.await.unwrap().items.unwrap();
        let items = items.into_iter().map(|item| {
            let what = item["item"].as_s().unwrap().clone();
            let mut names: Vec<_> = item.into_keys().collect();
            names.sort_unstable();
            (what, names)
        });
        items.collect()
    }

    /// The range keys of the account's rows in the ledger.
    async fn ledger_rows(&self, number: &str) -> Vec<String> {
        let found = self
            .engines()
            .dynamodb()
            .query()
            .table_name(&self.system.tables.ledger)
            .key_condition_expression("account_number = :number")
            .expression_attribute_values(":number", S(number.to_owned()))
            .send();
        let items = found.await.unwrap().items.unwrap();
        let names = items.iter().map(|item| item["entry"].as_s().unwrap());
        names.cloned().collect()
    }

    /// The names of the secrets of the account's keys.
    async fn secrets_of(&self, name: &str) -> Vec<String> {
        let mut names = self.engines().secret_names().await;
        names.retain(|secret| secret.contains(&format!("/{name}/")));
        names
    }

    async fn hold(&self, name: &str, call: &str) -> Hold {
        let account = self.system.account(name).await;
        let call = CallId::new(call).unwrap();
        let new = new_hold(&call, Credits::from_micros(1_000), self.system.clock.now());
        let held = self.system.store.holds.take(&account, &new).await;
        held.unwrap().taken().unwrap()
    }
}

/// The only item that is left of a deleted account.
fn tombstone() -> Vec<(String, Vec<String>)> {
    let names = ["account_id", "deleted_at", "deleted_version", "item"];
    vec![("account".to_owned(), names.map(str::to_owned).to_vec())]
}

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

#[tokio::test]
async fn an_account_is_created_and_changes_its_plan() {
    use AddOnStatus::None;
    let world = World::start().await;
    let table = [
        (upserted("acme", "standard", 3), "created", (Plan::Standard, 3)),
        (upserted("acme", "standard", 3), "unchanged", (Plan::Standard, 3)),
        (upserted("acme", "standard", 4), "unchanged", (Plan::Standard, 4)),
        (upserted("acme", "enterprise", 6), "changed", (Plan::Enterprise, 6)),
        (upserted("acme", "enterprise", 6), "unchanged", (Plan::Enterprise, 6)),
        (upserted("acme", "standard", 5), "late", (Plan::Enterprise, 6)),
        (deleted("acme", 2), "late", (Plan::Enterprise, 6)),
        (upserted("acme", "standard", 7), "changed", (Plan::Standard, 7)),
        (upserted("acme", "standard", 4), "late", (Plan::Standard, 7)),
    ];
    for (event, outcome, (plan, version)) in table {
        assert_eq!(world.apply(&event).await.as_deref(), Ok(outcome), "{event}");
        assert_eq!(world.plan_of("acme").await, (plan, version, None), "{event}");
    }
    let account = world.system.account("acme").await;
    assert_eq!(account.created_at, time_of(3), "the event's time");
    // The history has each change once.
    let rows = world.ledger_rows(account.number.as_str()).await;
    let history = [3, 6, 7].map(|version| format!("h#{:.6}#upserted-{version}", time_of(version)));
    assert_eq!(rows, history);
    // It works like any other account.
    let card = world.owner("acme").card().await;
    assert_eq!((&card["plan"], &card["status"]), (&json!("standard"), &json!("not_enabled")));
}

#[tokio::test]
async fn malformed_events_stay_on_the_bus() {
    let world = World::start().await;
    let mut event = upserted("acme", "standard", 1);
    event["detail"]["plan"] = json!("free");
    let refused = world.apply(&event).await.unwrap_err();
    assert_eq!(refused, "the event's `detail.plan` must be `standard` or `enterprise`");
    assert_eq!(world.presence("acme").await, Presence::Never);
}

/// All orders of `0..n`.
fn permutations(n: usize) -> Vec<Vec<usize>> {
    let Some(last) = n.checked_sub(1) else {
        return vec![Vec::new()];
    };
    let shorter = permutations(last);
    let insert = |shorter: &Vec<usize>, place: usize| {
        let mut longer = shorter.clone();
        longer.insert(place, last);
        longer
    };
    let all = shorter.iter().flat_map(|shorter| (0..n).map(move |place| insert(shorter, place)));
    all.collect()
}

/// All orders of `n` events: each once, each twice in a row, and the whole sequence twice.
fn deliveries(n: usize) -> Vec<Vec<usize>> {
    let all = permutations(n).into_iter().flat_map(|once| {
        let stuttered = once.iter().flat_map(|event| [*event; 2]).collect();
        let again = once.repeat(2);
        let backwards = once.iter().chain(once.iter().rev()).copied().collect();
        [once, stuttered, again, backwards]
    });
    all.collect()
}

#[tokio::test]
async fn a_deleted_account_stays_deleted_in_any_order_of_events() {
    let world = World::start().await;
    for (number, delivery) in deliveries(4).into_iter().enumerate() {
        let name = format!("acme-{number}");
        let history = [
            upserted(&name, "standard", 1),
            upserted(&name, "enterprise", 2),
            upserted(&name, "standard", 3),
            deleted(&name, 4),
        ];
        for event in &delivery {
            world.apply(&history[*event]).await.unwrap();
        }
        let end = Presence::Deleted { version: 4, scrubbed: true };
        assert_eq!(world.presence(&name).await, end, "{delivery:?}");
        assert_eq!(world.stored(&name).await, tombstone(), "{delivery:?}");
    }
    assert_eq!(world.tick_in(hours(2)).await["errors"], 0);
}

#[tokio::test]
async fn the_plan_and_the_add_on_do_not_depend_on_the_order_of_events() {
    let world = World::start().await;
    let bought = time_of(1) + SignedDuration::from_mins(30);
    // Bought as standard and ended by the upgrade; after the last change it only runs out.
    let end = (Plan::Standard, 5, AddOnStatus::Cancelling);
    let mut number = 0;
    for delivery in deliveries(3) {
        for buys_after in 1..=delivery.len() {
            number += 1;
            let name = format!("acme-{number}");
            let history = [
                upserted(&name, "standard", 1),
                upserted(&name, "enterprise", 2),
                upserted(&name, "standard", 5),
            ];
            for (delivered, event) in delivery.iter().enumerate() {
                if delivered == buys_after {
                    buy(&world, &name, bought).await;
                }
                world.apply(&history[*event]).await.unwrap();
            }
            if buys_after == delivery.len() {
                buy(&world, &name, bought).await;
            }
            assert_eq!(world.plan_of(&name).await, end, "{delivery:?} {buys_after}");
        }
    }
}

/// Activates the account's add-on by a payment at that time.
async fn buy(world: &World, name: &str, at: Timestamp) {
    let account = id(name);
    let bought = world.system.store.accounts.update(&account, None, at, |profile| {
        profile.add_on.apply(Fact::Activated {
            generation: GenerationId::new("cs_1"),
            at,
            collection: Collection::Card,
        });
        Ok::<_, Infallible>(Vec::new())
    });
    bought.await.unwrap();
}

#[tokio::test]
async fn an_upgrade_ends_the_add_on_and_keeps_the_key() {
    let world = World::start().await;
    world.set("acme", json!({"plan": "standard", "add_on": "active", "credits": "7"})).await;
    let owner = world.owner("acme");
    assert_eq!(owner.save_key(KEY).await.status, 200);
    assert_eq!(owner.card().await["status"], "connected");
    let mut upgrade = upserted("acme", "enterprise", 2);
    upgrade["time"] = json!(world.system.clock.now());
    assert_eq!(world.apply(&upgrade).await.as_deref(), Ok("changed"));
    let after = world.plan_of("acme").await;
    assert_eq!(after, (Plan::Enterprise, 2, AddOnStatus::Ended));
    assert_eq!(owner.card().await["status"], "connected");
    assert_eq!(owner.say_hello().await.receipt().0, "openrouter");
}

#[tokio::test]
async fn deletion_removes_the_key_and_keeps_the_books() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "7").await;
    let account = world.system.account("acme").await;
    assert_eq!(world.secrets_of("acme").await.len(), 1);
    let held = world.hold("acme", "call_1").await;

    assert_eq!(world.apply(&deleted("acme", 9)).await.as_deref(), Ok("deleted"));
    assert_eq!(world.secrets_of("acme").await, Vec::<String>::new());
    let still_open = Presence::Deleted { version: 9, scrubbed: false };
    assert_eq!(world.presence("acme").await, still_open);
    for reply in [
        owner.say_hello().await,
        owner.get("/v1/integrations/openrouter").await,
        owner.get("/v1/credits/ledger").await,
        owner.disconnect().await,
        owner.save_key(KEY).await,
    ] {
        assert_eq!(reply.error(), (404, "account_not_found".to_owned()));
    }
    let posting = Posting {
        id: &EntryId::new("late_1").unwrap(),
        kind: EntryKind::Purchase,
        amount: Credits::MICRO,
        at: world.system.clock.now(),
        note: "a late webhook",
        actor: "test",
    };
    let posted = world.system.store.ledger.post(&account.id, &posting).await;
    assert_eq!(refused(posted), Err(PostRefused::NoAccount));

    // An open hold keeps the account's number until it ends.
    let result = world.apply(&upserted("acme", "standard", 10)).await;
    assert!(result.unwrap_err().contains("try again"));
    assert_eq!(world.tick_in(SignedDuration::from_secs(1)).await["errors"], 0);
    assert_eq!(world.presence("acme").await, still_open);
    let cost = Credits::from_micros(400);
    let now = world.system.clock.now();
    let settled = world.system.store.holds.settle(&held, cost, now, "test", None).await;
    let charged = HoldState::Settled(cost);
    assert_eq!(settled.unwrap(), Resolution::Done(charged));
    assert_eq!(world.tick_in(hours(2)).await["errors"], 0);
    assert_eq!(world.stored("acme").await, tombstone());
    let rows = world.ledger_rows(account.number.as_str()).await;
    for (kind, count) in [("e#", 2), ("h#", 2), ("d#", 1), ("id#", 1)] {
        let of_kind = rows.iter().filter(|row| row.starts_with(kind));
        assert_eq!(of_kind.count(), count, "{rows:?}");
    }
    assert_eq!(world.apply(&deleted("acme", 9)).await.as_deref(), Ok("deleted"));
    assert_eq!(world.apply(&upserted("acme", "standard", 8)).await.as_deref(), Ok("late"));
    assert_eq!(world.stored("acme").await, tombstone());
}

#[tokio::test]
async fn an_account_created_again_is_a_new_one() {
    let world = World::start().await;
    world.enterprise_with_key("acme", "7").await;
    let before = world.system.account("acme").await;
    let held = world.hold("acme", "call_1").await;
    world.apply(&deleted("acme", 9)).await.unwrap();
    let back = upserted("acme", "standard", 10);
    assert!(world.apply(&back).await.is_err(), "a call is open");
    let now = world.system.clock.now();
    let released = world.system.store.holds.release(&held, now, "test", None);
    released.await.unwrap();
    // No hold is open now, so the retry need not wait for a tick.
    assert_eq!(world.apply(&back).await.as_deref(), Ok("created"));
    let account = world.system.account("acme").await;
    assert_ne!(account.number, before.number);
    assert_eq!(account.balance.balance(), Credits::ZERO);
    assert_eq!((account.profile.plan(), &account.profile.key), (Plan::Standard, &None));
    assert_eq!(world.settled_balance("acme").await, "0");
    assert_eq!(world.owner("acme").ledger().await, Vec::<Value>::new());
    // Events of the old account no longer have an effect.
    assert_eq!(world.apply(&deleted("acme", 9)).await.as_deref(), Ok("late"));
    assert_eq!(world.tick_in(hours(2)).await["errors"], 0);
    assert_eq!(world.system.account("acme").await, account);
    // It can be deleted like the first one.
    assert_eq!(world.apply(&deleted("acme", 11)).await.as_deref(), Ok("deleted"));
    assert_eq!(world.tick_in(hours(2)).await["errors"], 0);
    assert_eq!(world.stored("acme").await, tombstone());
}

/// A save that was in progress when its account was deleted leaves an orphaned secret.
#[tokio::test]
async fn the_tick_deletes_secrets_of_unfinished_saves() {
    let world = World::start().await;
    world.enterprise_with_key("acme", "7").await;
    let now = world.system.clock.now();
    let key = KeyId::new("key_half").unwrap();
    let due = now + hours(1);
    world.system.store.accounts.remember_secret(&id("acme"), &key, due).await.unwrap();
    let create = world.engines().secrets().create_secret();
    let create = create.name("greta/openrouter/acme/key_half").secret_string(KEY);
    create.send().await.unwrap();

    world.apply(&deleted("acme", 9)).await.unwrap();
    assert_eq!(world.secrets_of("acme").await, ["greta/openrouter/acme/key_half"]);
    assert_eq!(world.tick_in(hours(2)).await["errors"], 0);
    assert_eq!(world.secrets_of("acme").await, Vec::<String>::new());
    assert_eq!(world.stored("acme").await, tombstone());
}

/// If Secrets Manager is down, the account is deleted anyway, and the tick deletes its secret.
#[tokio::test]
async fn a_secret_that_cannot_be_deleted_is_left_to_the_tick() {
    let faults = [SecretsFault::Internal, SecretsFault::AccessDenied, SecretsFault::ResponseLost];
    for fault in faults {
        let world = World::start().await;
        world.enterprise_with_key("acme", "7").await;
        world.engines().fail_secrets(Some("DeleteSecret"), fault);
        // The sender's clock is a day ahead; the secret is due by our clock.
        let mut end = deleted("acme", 9);
        end["time"] = json!(world.system.clock.now() + hours(24));
        assert_eq!(world.apply(&end).await.as_deref(), Ok("deleted"));
        assert_eq!(world.tick_in(SignedDuration::ZERO).await["errors"], 1, "{fault:?}");
        world.engines().heal_secrets();
        assert_eq!(world.tick_in(hours(2)).await["errors"], 0);
        assert_eq!(world.secrets_of("acme").await, Vec::<String>::new());
        assert_eq!(world.stored("acme").await, tombstone());
    }
}

/// After a lost response, a lost request or a write conflict, the event is either applied or an
/// error, and the next delivery applies it.
#[tokio::test]
async fn after_any_fault_the_event_is_applied_or_delivered_again() {
    use Fault::{Conflict, NeverArrives, Repeated, ResponseLost, Throttled};
    let everywhere = [ResponseLost, NeverArrives, Repeated];
    let of_writes = [ResponseLost, NeverArrives, Repeated, Throttled, Conflict];
    let table = [
        ("GetItem", &everywhere[..]),
        ("TransactWriteItems", &of_writes),
        ("UpdateItem", &of_writes),
        ("DeleteItem", &of_writes[..4]),
        ("DeleteSecret", &everywhere),
    ];
    for (operation, faults) in table {
        for fault in faults {
            let disturbed = Disturbed { world: World::start().await, operation, fault: *fault };
            disturbed.a_life().await;
        }
    }
}

struct Disturbed {
    world: World,
    operation: &'static str,
    fault: Fault,
}

impl Disturbed {
    async fn a_life(&self) {
        let (world, what) = (&self.world, format!("{} {:?}", self.operation, self.fault));
        self.apply(&upserted("acme", "standard", 1)).await;
        let number = world.system.account("acme").await.number;
        self.apply(&upserted("acme", "standard", 3)).await;
        self.apply(&upserted("acme", "enterprise", 4)).await;
        let plan = world.plan_of("acme").await;
        assert_eq!(plan, (Plan::Enterprise, 4, AddOnStatus::None), "{what}");
        assert_eq!(world.system.account("acme").await.number, number, "{what}");
        let rows = world.ledger_rows(number.as_str()).await;
        assert_eq!(rows.len(), 2, "{what}: {rows:?}");

        assert_eq!(world.owner("acme").save_key(KEY).await.status, 200);
        self.apply(&deleted("acme", 5)).await;
        assert_eq!(world.tick_in(hours(2)).await["errors"], 0, "{what}");
        assert_eq!(world.secrets_of("acme").await, Vec::<String>::new(), "{what}");
        assert_eq!(world.stored("acme").await, tombstone(), "{what}");
        let rows = world.ledger_rows(number.as_str()).await;
        assert_eq!(rows.len(), 3, "{what}: {rows:?}");
    }

    async fn apply(&self, event: &Value) {
        let wire = &self.world.wire;
        wire.disturb(self.operation, self.fault, 1);
        until_done(&self.world, event).await;
        wire.disturb(self.operation, self.fault, 0);
    }
}

/// Delivers the event as the bus does, until it is applied.
async fn until_done(world: &World, event: &Value) {
    for _ in 0..3 {
        if world.apply(event).await.is_ok() {
            return;
        }
    }
    panic!("{event} was never applied");
}

/// The function dies at each of its requests in turn.
#[tokio::test]
async fn a_deletion_interrupted_anywhere_is_finished() {
    let mut deaths = 0;
    for requests in 0.. {
        let world = World::start().await;
        world.enterprise_with_key("acme", "7").await;
        world.wire.die_after(requests);
        let result = world.apply(&deleted("acme", 9)).await;
        if !world.wire.revive() {
            break;
        }
        deaths += 1;
        if result.is_err() {
            assert_eq!(world.apply(&deleted("acme", 9)).await.as_deref(), Ok("deleted"));
        }
        assert_eq!(world.tick_in(hours(2)).await["errors"], 0);
        assert_eq!(world.secrets_of("acme").await, Vec::<String>::new(), "{requests}");
        assert_eq!(world.stored("acme").await, tombstone(), "{requests}");
    }
    assert!(deaths >= 5, "read, delete, secret, its due record, scrub: {deaths}");
}

#[tokio::test]
async fn concurrent_events_of_an_account_are_all_applied() {
    let world = World::start().await;
    let events: Vec<_> = (1..=12)
        .map(|version| {
            let plan = if version % 2 == 0 { "enterprise" } else { "standard" };
            upserted("acme", plan, version)
        })
        .collect();
    let result = events.iter().map(|event| world.apply(event));
    let result = futures_util::future::join_all(result).await;
    for (event, result) in events.iter().zip(result) {
        if result.is_err() {
            until_done(&world, event).await;
        }
    }
    let plan = world.plan_of("acme").await;
    assert_eq!(plan, (Plan::Enterprise, 12, AddOnStatus::None));
}

/// Whichever event comes first, the account exists in the end, in the newer event's state.
#[tokio::test]
async fn a_deletion_does_not_swallow_a_newer_event() {
    let world = World::start().await;
    for number in 0..12 {
        let name = format!("acme-{number}");
        world.apply(&upserted(&name, "standard", 1)).await.unwrap();
        let (newer, end) = (upserted(&name, "enterprise", 3), deleted(&name, 2));
        if number % 2 == 0 {
            tokio::join!(until_done(&world, &newer), until_done(&world, &end));
        } else {
            tokio::join!(until_done(&world, &end), until_done(&world, &newer));
        }
        let plan = world.plan_of(&name).await;
        assert_eq!(plan, (Plan::Enterprise, 3, AddOnStatus::None));
    }
}
