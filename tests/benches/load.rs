//! Holds and settlements under load: 64 clients on one account, then on 64 accounts, each for 30 s,
//! against the embedded engine. Prints a table, and fails if the books do not add up.
//!
//! `cargo bench --package tests --bench load --profile simulation`; `LOAD_SECONDS` shortens it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measurement that cannot go on stops with a message"
)]

use std::time::{Duration, Instant};

use account::hold::HoldState;
use account::price::{Tariff, TokenPrices};
use account::{
    Account, AccountId, AccountNumber, CallId, Credits, CreditsPerUsd, EntryId, Plan, Profile, Usd,
};
use futures_util::future::join_all;
use local::system::{Options, System};
use store::{
    EntryKind, HistoryEntry, HoldOutcome, NewHold, Posting, Resolution, Store, StoreError,
};

const CLIENTS: usize = 64;
const HELD: i64 = 1_000;
const COST: i64 = 400;

#[tokio::main]
async fn main() {
    // `cargo test --all-targets` builds this and asks it for its tests: it has none.
    if std::env::args().any(|argument| argument == "--test" || argument == "--list") {
        return;
    }
    let mut env = edge::Env::process();
    let duration = Duration::from_secs(env.number_or("LOAD_SECONDS", 30, 1..=3_600));
    println!(
        "| clients | accounts | hold+settle a second | p50 | p95 | p99 | max | refused | violations |"
    );
    println!("|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for accounts in [1, CLIENTS] {
        run(accounts, duration).await;
    }
}

/// One client's results.
#[derive(Default)]
struct Seen {
    latencies: Vec<Duration>,
    charged: i64,
    refused: usize,
}

async fn run(accounts: usize, duration: Duration) {
    let system = System::start(Options::default()).await.unwrap();
    let store = &system.store;
    let mut stored = Vec::new();
    for number in 0..accounts {
        stored.push(account(store, number, &system).await);
    }
    let until = Instant::now() + duration;
    let clients = (0..CLIENTS).map(|client| {
        let account = stored[client % accounts].clone();
        edge::spawn(calls(store.clone(), account, client, until, system.clock.clone()))
    });
    let seen: Vec<Seen> = join_all(clients).await.into_iter().map(Result::unwrap).collect();
    let mut violations = 0;
    for (number, account) in stored.iter().enumerate() {
        let clients = seen.iter().skip(number).step_by(accounts);
        let charged: i64 = clients.map(|seen| seen.charged).sum();
        violations += violations_of(&system, account, charged).await;
    }
    let mut latencies: Vec<Duration> =
        seen.iter().flat_map(|seen| seen.latencies.clone()).collect();
    latencies.sort_unstable();
    let refused: usize = seen.iter().map(|seen| seen.refused).sum();
    let at = |percent: usize| {
        let index = (latencies.len() * percent / 100).min(latencies.len() - 1);
        format!("{} ms", latencies[index].as_millis())
    };
    let rate = u128::try_from(latencies.len()).unwrap() * 1_000 / duration.as_millis();
    println!(
        "| {CLIENTS} | {accounts} | {rate} | {} | {} | {} | {} | {refused} | {violations} |",
        at(50),
        at(95),
        at(99),
        at(100)
    );
    assert_eq!(violations, 0);
    system.stop().await;
}

/// One client's calls, one after the other: every tenth is released, every hundredth settled twice.
async fn calls(
    store: Store,
    account: Account,
    client: usize,
    until: Instant,
    clock: edge::Clock,
) -> Seen {
    let mut seen = Seen::default();
    for number in 0.. {
        if Instant::now() >= until {
            break;
        }
        let call = CallId::new(format!("call-{client}-{number}")).unwrap();
        let began = Instant::now();
        let hold = match store.holds.take(&account, &new_hold(&call, &clock)).await {
            Ok(HoldOutcome::Taken(hold)) => hold,
            Ok(HoldOutcome::TooMany | HoldOutcome::Insufficient(_))
            | Err(StoreError::Contended { .. }) => {
                seen.refused += 1;
                continue;
            }
            other => panic!("{other:?}"),
        };
        let now = clock.now();
        if number % 10 == 9 {
            let released = store.holds.release(&hold, now, "load", None).await.unwrap();
            assert_eq!(released, Resolution::Done(HoldState::Released));
            continue;
        }
        let cost = Credits::from_micros(COST);
        let settled = Resolution::Done(HoldState::Settled(cost));
        assert_eq!(store.holds.settle(&hold, cost, now, "load", None).await.unwrap(), settled);
        seen.latencies.push(began.elapsed());
        seen.charged += COST;
        if number % 100 == 50 {
            assert_eq!(store.holds.settle(&hold, cost, now, "load", None).await.unwrap(), settled);
        }
    }
    seen
}

fn new_hold<'a>(call: &'a CallId, clock: &edge::Clock) -> NewHold<'a> {
    NewHold {
        call,
        amount: Credits::from_micros(HELD),
        at: clock.now(),
        model: "load",
        tariff: Tariff {
            prices: TokenPrices { input: Usd::ZERO, output: Usd::ZERO },
            rate: CreditsPerUsd::MIN,
        },
        idempotency: None,
        max_holds: 64,
    }
}

const START: i64 = 1_000_000_000_000;

async fn account(store: &Store, number: usize, system: &System) -> Account {
    let id = AccountId::new(format!("load-{number}")).unwrap();
    let at = system.clock.now();
    let why = HistoryEntry {
        id: "created".to_owned(),
        at,
        actor: "load".to_owned(),
        what: "created".to_owned(),
    };
    let profile = Profile::new(Plan::Standard, 1, at);
    let account_number = AccountNumber::new(format!("number-{number}")).unwrap();
    let created = store.accounts.create(&id, &account_number, &profile, &why);
    created.await.unwrap();
    let posting = Posting {
        id: &EntryId::new("grant").unwrap(),
        kind: EntryKind::Grant,
        amount: Credits::from_micros(START),
        at,
        note: "to be spent",
        actor: "load",
    };
    store.ledger.post(&id, &posting).await.unwrap();
    store.accounts.get(&id).await.unwrap().unwrap()
}

/// Number of errors in an account's books after all calls have ended.
async fn violations_of(system: &System, account: &Account, charged: i64) -> usize {
    let now = system.clock.now();
    let books = system.store.books.reconcile(&account.id, &account.number, now);
    let mut problems = books.await.unwrap().problems;
    let balance = system.account(account.id.as_str()).await.balance;
    if balance.balance().micros() != START - charged {
        problems.push(format!("{charged} charged, but the balance is {balance:?}"));
    }
    if balance.held() != Credits::ZERO {
        problems.push(format!("still held: {balance:?}"));
    }
    for problem in &problems {
        println!("{}: {problem}", account.id);
    }
    problems.len()
}
