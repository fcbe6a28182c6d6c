//! The reconciler: finds every mismatch, reports nothing else, and changes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

use account::{Account, CallId, Credits};
use aws_sdk_dynamodb::types::AttributeValue::{self, N, S};
use edge::Deadline;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use store::{Hold, Resolution, Store};
use tokio::time::Instant;

use crate::support::{World, new_hold};
use crate::wire::Fault;

type Item = HashMap<String, AttributeValue>;

impl World {
    pub(crate) async fn reconcile(&self, event: &Value) -> Value {
        self.system.reconcile(event, None).await.unwrap()
    }

    /// The event of a run in which all earlier entries count as old.
    fn in_an_hour(&self) -> Value {
        json!({"time": self.system.clock.now() + SignedDuration::from_hours(1)})
    }

    /// Creates accounts that each paid for a call. Returns their numbers by name.
    async fn accounts_with_books(&self, names: &[&str]) -> BTreeMap<String, String> {
        let mut numbers = BTreeMap::new();
        for name in names {
            self.set(name, json!({"credits": "7"})).await;
            let reply = self.owner(name).say_hello().await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            let number = self.system.account(name).await.number;
            numbers.insert((*name).to_owned(), number.as_str().to_owned());
        }
        numbers
    }

    /// The account's only row in `table` whose range key has this prefix.
    async fn row(&self, table: &str, number: &str, begins: &str) -> Item {
        let found = self
            .engines()
            .dynamodb()
            .query()
            .table_name(table)
            .key_condition_expression("account_number = :number")
            .expression_attribute_values(":number", S(number.to_owned()))
            .send();
        let range = self.range_key(table);
        let mut rows = found.await.unwrap().items.unwrap();
        rows.retain(|row| {
            let key = row[range].as_s().unwrap();
            key.starts_with(begins) && (begins != "e#" || row.contains_key("call_id"))
        });
        let [row] = rows.try_into().unwrap();
        row
    }

    fn range_key(&self, table: &str) -> &'static str {
        if table == self.system.tables.ledger { "entry" } else { "hold" }
    }

    async fn put(&self, table: &str, row: Item) {
        let put = self.engines().dynamodb().put_item().table_name(table);
        put.set_item(Some(row)).send().await.unwrap();
    }

    async fn delete(&self, table: &str, row: &Item) {
        let delete = self.engines().dynamodb().delete_item().table_name(table);
        let range = self.range_key(table);
        let key = ["account_number", range].map(|name| (name.to_owned(), row[name].clone()));
        let key = delete.set_key(Some(HashMap::from(key)));
        key.send().await.unwrap();
    }

    /// Changes an account's item behind the store's back.
    pub(crate) async fn tamper(&self, name: &str, expression: &str, value: AttributeValue) {
        self.engines()
            .dynamodb()
            .update_item()
            .table_name(&self.system.tables.accounts)
            .key("account_id", S(name.to_owned()))
            .key("item", S("account".to_owned()))
            .update_expression(expression)
            .expression_attribute_values(":value", value)
            .send()
            .await
            .unwrap();
    }
}

async fn take_hold(store: &Store, account: &Account, call: &str, at: Timestamp) -> Hold {
    let call = CallId::new(call).unwrap();
    let new = new_hold(&call, Credits::from_micros(1_000), at);
    store.holds.take(account, &new).await.unwrap().taken().unwrap()
}

pub(crate) fn number(number: i64) -> AttributeValue {
    N(number.to_string())
}

/// The reported problems by account number.
pub(crate) fn mismatches(answer: &Value) -> BTreeMap<String, Vec<String>> {
    let found = answer["mismatches"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let problems = |value: &Value| value.as_array().unwrap().iter().map(text).collect();
    let found = found.map(|found| (text(&found["account_number"]), problems(&found["problems"])));
    found.collect()
}

#[tokio::test]
async fn clean_books_are_reported_without_a_write() {
    let world = World::start().await;
    let clean =
        |accounts| json!({"accounts": accounts, "mismatches": [], "unread": 0, "complete": true});
    assert_eq!(world.reconcile(&json!({})).await, clean(0));
    world.accounts_with_books(&["a", "b"]).await;
    world.enterprise_with_key("c", "7").await;
    world.wire.take();
    assert_eq!(world.reconcile(&json!({})).await, clean(3));
    let operations_used: BTreeSet<_> = world.wire.take().into_iter().collect();
    let reads = ["GetItem", "Query", "Scan"].map(str::to_owned);
    assert_eq!(operations_used, BTreeSet::from(reads));
    // The event of an EventBridge schedule.
    let envelope = json!({
        "version": "0",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "time": world.system.clock.now(),
        "detail": {},
    });
    assert_eq!(world.reconcile(&envelope).await, clean(3));
    let half = json!({"segment": 0});
    assert!(world.system.reconcile(&half, None).await.is_err());
}

#[tokio::test]
async fn each_kind_of_tampering_is_reported_and_not_repaired() {
    let names = [
        "clean",
        "sum",
        "held",
        "owed",
        "negative",
        "twice",
        "no-entry",
        "no-hold",
        "days",
        "lost-hold",
    ];
    let world = World::start().await;
    let numbers = world.accounts_with_books(&names).await;
    let (ledger, holds) = (&world.system.tables.ledger, &world.system.tables.holds);
    let of = |name: &str| numbers[name].as_str();

    world.tamper("sum", "SET balance = :value, available = :value", number(8_000_000)).await;
    world.tamper("held", "SET held = :value", number(5)).await;
    world.tamper("owed", "SET owed = :value", number(-1)).await;
    world.tamper("negative", "SET available = :value", number(-1)).await;
    let mut entry = world.row(ledger, of("twice"), "e#").await;
    let name = entry["entry"].as_s().unwrap().clone() + "-2";
    entry.insert("entry".to_owned(), S(name));
    world.put(ledger, entry).await;
    let entry = world.row(ledger, of("no-entry"), "e#").await;
    world.delete(ledger, &entry).await;
    let hold = world.row(holds, of("no-hold"), "call_").await;
    world.delete(holds, &hold).await;
    let mut day = world.row(ledger, of("days"), "d#").await;
    day.insert("calls".to_owned(), number(2));
    day.insert("spent".to_owned(), number(1));
    world.put(ledger, day).await;
    world
        .tamper(
            "lost-hold",
            "SET held = :value, open_holds = :value, available = available - :value",
            number(1),
        )
        .await;

    let expected = [
        ("sum", &["sum of the ledger"][..]),
        ("held", &["sum of open holds", "balance less held"]),
        ("owed", &["owed is negative"]),
        ("negative", &["balance less held", "available is negative"]),
        (
            "twice",
            &[
                "has two ledger entries",
                "sum of the ledger",
                "ledger entries",
                "spent by days",
                "calls by days",
            ],
        ),
        (
            "no-entry",
            &[
                "but the ledger took None",
                "sum of the ledger",
                "ledger entries",
                "spent by days",
                "calls by days",
            ],
        ),
        ("no-hold", &["which has no hold"]),
        ("days", &["spent by days", "calls by days"]),
        ("lost-hold", &["sum of open holds", "open holds"]),
    ];
    // Nothing is repaired: later runs find the same problems, even once the entries are old.
    for event in [json!({}), json!({}), world.in_an_hour()] {
        let answer = world.reconcile(&event).await;
        assert_eq!(answer["accounts"], names.len());
        assert_eq!((&answer["unread"], &answer["complete"]), (&json!(0), &json!(true)));
        let found = mismatches(&answer);
        assert_eq!(found.len(), expected.len());
        for (name, expected) in expected {
            let problems = &found[of(name)];
            assert_eq!(problems.len(), expected.len(), "{name}: {problems:?}");
            for (problem, expected) in problems.iter().zip(expected) {
                assert!(problem.contains(expected), "{name}: {problems:?}");
            }
        }
    }
}

/// Unreadable books are counted, and do not hide other mismatches.
#[tokio::test]
async fn unreadable_books_are_counted() {
    let world = World::start().await;
    world.accounts_with_books(&["a", "b", "c"]).await;
    world.tamper("b", "SET held = :value", S("many".to_owned())).await;
    world.tamper("c", "SET held = :value", number(5)).await;
    let answer = world.reconcile(&json!({})).await;
    assert_eq!(mismatches(&answer).len(), 1);
    assert_eq!(
        (&answer["accounts"], &answer["unread"], &answer["complete"]),
        (&json!(2), &json!(1), &json!(true))
    );
    // A passing error is retried, so the account is not lost.
    let world = World::start().await;
    world.accounts_with_books(&["a", "b", "c"]).await;
    world.wire.disturb("Query", Fault::NeverArrives, 2);
    let answer = world.reconcile(&json!({})).await;
    assert_eq!((&answer["accounts"], &answer["unread"]), (&json!(3), &json!(0)));
}

#[tokio::test]
async fn a_run_that_does_not_reach_every_account_says_so() {
    let world = World::start().await;
    world.accounts_with_books(&["a"]).await;
    let too_late = Some(Deadline(Instant::now()));
    let answer = world.system.reconcile(&json!({}), too_late).await.unwrap();
    assert_eq!((&answer["accounts"], &answer["complete"]), (&json!(0), &json!(false)));
    let later = Instant::now() + std::time::Duration::from_mins(15);
    let answer = world.system.reconcile(&json!({}), Some(Deadline(later))).await.unwrap();
    assert_eq!((&answer["accounts"], &answer["complete"]), (&json!(1), &json!(true)));
    world.wire.swallow_next("Scan");
    let answer = world.reconcile(&json!({})).await;
    assert_eq!((&answer["accounts"], &answer["complete"]), (&json!(0), &json!(false)));
}

/// Credits that move while the books are read cause no false reports.
#[tokio::test]
async fn calls_in_progress_cause_no_mismatch() {
    const ACCOUNTS: usize = 16;
    let world = World::start().await;
    let names: Vec<_> = (0..ACCOUNTS).map(|name| format!("acme-{name}")).collect();
    for name in &names {
        world.set(name, json!({"credits": "1000"})).await;
    }
    let calling = AtomicBool::new(true);
    let call = async |number: usize, model: &str| {
        let name = &names[number % ACCOUNTS];
        let reply = world.owner(name).say_hello_to(model).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    };
    // One account moves all the time; the others have an open hold while their books are read.
    let quick = stream::iter(0..100).for_each_concurrent(3, async |_| {
        call(0, "openai/gpt-4o-mini").await;
    });
    let slow = stream::iter(0..100).for_each_concurrent(ACCOUNTS, async |number| {
        call(number, "sim-priced/slow-head-200").await;
    });
    let calls = async {
        tokio::join!(quick, slow);
        calling.store(false, Ordering::Relaxed);
    };
    let reconciler = async {
        let mut read = 0;
        while calling.load(Ordering::Relaxed) {
            let answer = world.reconcile(&json!({})).await;
            assert_eq!(answer["mismatches"], json!([]), "{answer}");
            assert_eq!(answer["complete"], true);
            read += answer["accounts"].as_u64().unwrap();
        }
        read
    };
    let ((), read) = tokio::join!(calls, reconciler);
    assert!(read >= 16, "{read}");
    let answer = world.reconcile(&json!({})).await;
    let clean = json!({"accounts": ACCOUNTS, "mismatches": [], "unread": 0, "complete": true});
    assert_eq!(answer, clean);
}

/// Resolved holds no longer change, so they are read outside the short window in which nothing may
/// move.
#[tokio::test]
async fn resolved_holds_are_read_before_the_quiet_window() {
    let world = World::start().await;
    let numbers = world.accounts_with_books(&["acme"]).await;
    let holds = &world.system.tables.holds;
    let hold = world.row(holds, &numbers["acme"], "call_").await;
    // A page ends after 1 MB. The holds are for zero credits, like fences, and idempotency keys are
    // not holds.
    for number in 0..8 {
        let mut ended = hold.clone();
        ended.insert("hold".to_owned(), S(edge::new_id("call")));
        ended.insert("state".to_owned(), S("released".to_owned()));
        ended.insert("padding".to_owned(), S("x".repeat(300_000)));
        let mut key = ended.clone();
        key.insert("hold".to_owned(), S(format!("idem#{number}")));
        key.remove("state");
        world.put(holds, ended).await;
        world.put(holds, key).await;
    }
    let (store, now) = (world.system.store.clone(), world.system.clock.now());
    let account = world.system.account("acme").await;
    let open = take_hold(&store, &account, &edge::new_id("call"), now).await;
    let clean = json!({"accounts": 1, "mismatches": [], "unread": 0, "complete": true});

    world.wire.take();
    assert_eq!(world.reconcile(&world.in_an_hour()).await, clean);
    let quiet = world.wire.take().join(" ");
    // Balance; new entries, new holds, the open one, days; balance.
    let expected = "GetItem Query Query GetItem Query GetItem";
    assert!(quiet.ends_with(&format!("Query Query {expected}")), "{quiet}");

    // A hold that is resolved meanwhile was already read as resolved.
    let later = now + SignedDuration::from_hours(1);
    world.wire.meanwhile("GetItem", async move {
        let charged = store.holds.settle(&open, Credits::MICRO, later, "test", None).await;
        assert!(matches!(charged, Ok(Resolution::Done(_))));
    });
    assert_eq!(world.reconcile(&world.in_an_hour()).await, clean);
    let requests = world.wire.take().join(" ");
    assert_eq!(requests.matches("GetItem").count(), 3, "{requests}");
}

/// A hold whose id has no time is still found.
#[tokio::test]
async fn a_hold_whose_id_has_no_time_is_found() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    for id in ["a-call", "z-call"] {
        let (store, account) = (world.system.store.clone(), world.system.account("acme").await);
        let now = world.system.clock.now();
        world.wire.meanwhile("GetItem", async move {
            take_hold(&store, &account, id, now).await;
        });
        let answer = world.reconcile(&json!({})).await;
        let clean = json!({"accounts": 1, "mismatches": [], "unread": 0, "complete": true});
        assert_eq!(answer, clean, "{id}");
    }
}

/// Accounts are deleted and created again while the books are read.
#[tokio::test]
async fn deleted_accounts_cause_no_mismatch() {
    let world = World::start().await;
    let names: Vec<_> = (0..6).map(|number| format!("acme-{number}")).collect();
    for name in &names {
        world.set(name, json!({"credits": "7"})).await;
    }
    let event = |name: &String, kind: &str, version: u64| {
        json!({
            "detail-type": kind,
            "time": world.system.clock.now(),
            "detail": {"account_id": name, "plan": "standard", "version": version},
        })
    };
    let goings = join_all(names.iter().map(async |name| {
        for version in 0..10 {
            for (kind, version) in
                [("account.deleted", 2 * version + 2), ("account.upserted", 2 * version + 3)]
            {
                world.system.account_event(&event(name, kind, version)).await.unwrap();
            }
        }
    }));
    let runs = async {
        for _ in 0..20 {
            let answer = world.reconcile(&json!({})).await;
            assert_eq!(answer["mismatches"], json!([]), "{answer}");
            assert_eq!(answer["unread"], 0, "{answer}");
        }
    };
    tokio::join!(goings, runs);
    let answer = world.reconcile(&json!({})).await;
    assert_eq!(answer["accounts"], names.len());
}
