//! The writes of calls on credits, and how many one process and the engine can do.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use account::price::{Tariff, TokenPrices};
use account::{Account, AccountId, CallId, Credits, CreditsPerUsd, Usd};
use futures_util::future::try_join_all;
use serde_json::json;
use store::{NewHold, Store};

use crate::process::{cpu, pin};
use crate::stats::{Sample, micros};
use crate::targets::{Aim, Unit};
use crate::world::World;
use crate::{Error, Options, Section, nanos_since};

/// Accounts, each of which makes one call at a time.
const ACCOUNTS: usize = 64;
const ROUND: Duration = Duration::from_secs(3);

/// Takes a hold, records the generation and settles.
pub(crate) async fn of_a_call(store: &Store, account: &Account) -> Result<(), Error> {
    let call = CallId::new(edge::new_id("call"))?;
    let (now, amount) = (edge::Clock::system().now(), Credits::from_micros(1_000));
    let hold = NewHold {
        call: &call,
        amount,
        at: now,
        model: "bench",
        tariff: Tariff {
            prices: TokenPrices { input: Usd::ZERO, output: Usd::ZERO },
            rate: CreditsPerUsd::MIN,
        },
        idempotency: None,
        max_holds: 64,
    };
    let hold = store.holds.take(account, &hold).await?;
    let hold = hold.taken().ok_or("no hold")?;
    store.holds.record_generation(&hold, "gen-bench").await?;
    store.holds.settle(&hold, amount, now, "bench", None).await?;
    Ok(())
}

/// Runs this process on one core and the engine on the other. The engine handles one request at a
/// time, so its CPU time per call gives its maximum rate.
pub(crate) async fn measure(world: &World, options: &Options) -> Result<Section, Error> {
    let mut accounts = Vec::new();
    for number in 0..ACCOUNTS {
        let id = format!("bench-writes-{number}");
        world.system.account_with_credits(&id).await?;
        let account = world.store.accounts.get(&AccountId::new(id)?).await?;
        accounts.push(account.ok_or("an account was not created")?);
    }
    let engine = world.system.process.id();
    pin(engine, "1")?;
    pin(std::process::id(), "0")?;
    let [mut rate, mut wall, mut of_engine, mut own] = [const { Sample::new() }; 4];
    for round in 0..=options.rounds {
        eprintln!("writes, round {round} of {}", options.rounds);
        let before = (cpu(engine)?, cpu(std::process::id())?);
        let began = Instant::now();
        let clients = accounts.iter().map(async |account| {
            let mut calls = 0_u64;
            while began.elapsed() < ROUND {
                of_a_call(&world.store, account).await?;
                calls += 1;
            }
            Ok::<_, Error>(calls)
        });
        let calls = try_join_all(clients).await?.into_iter().sum::<u64>().max(1);
        if round > 0 {
            let elapsed = nanos_since(began);
            rate.push(calls * 1_000_000_000 / elapsed);
            wall.push(elapsed / calls);
            of_engine.push((cpu(engine)? - before.0) / calls);
            own.push((cpu(std::process::id())? - before.1) / calls);
        }
    }
    let mut text = String::from(
        "\n## Hold, generation and settlement: one process, 64 accounts at once\n\n| calls a second | time a call | of \
         which the engine's core | ours |\n|--:|--:|--:|--:|\n",
    );
    let medians = [&wall, &of_engine, &own].map(|sample| micros(sample.p50()));
    let _ = writeln!(text, "| {} | {} |", rate.p50(), medians.join(" | "));
    Ok(Section {
        text,
        json: json!({
            "calls_a_second": rate.p50(),
            "call_ns": wall.p50(),
            "engine_cpu_ns": of_engine.p50(),
            "own_cpu_ns": own.p50(),
        }),
        aims: vec![Aim {
            what: "64 accounts on credits: time per call, vs. the engine's time for it (1.25: 80 % of its own rate)",
            unit: Unit::Nanoseconds,
            own: i64::try_from(wall.p50())?,
            of: i64::try_from(of_engine.p50())?,
            at_most: 1_250,
        }],
    })
}
