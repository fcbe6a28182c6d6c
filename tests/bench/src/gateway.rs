//! Calls through the gateway, through a bare relay and directly, in turn.

use std::time::Instant;

use account::AccountId;
use futures_util::future::try_join_all;
use serde_json::Value;

use crate::client::{Connection, Target};
use crate::measured::{Measured, Table, added};
use crate::process::{Process, cpu};
use crate::stats::{Nanos, Sample};
use crate::system::{BYOK, CREDITS};
use crate::targets::{Aim, Unit};
use crate::world::{Way, World, max_concurrency};
use crate::{Error, Options, Section, nanos_since, writes};

const DIRECT: &str = "direct";
const RELAY: &str = "bare relay";
const HTTP_RELAY: &str = "the same, after asking for the account as plain HTTP";
const READING_RELAY: &str = "the same, after one read of the account";
const WITH_KEY: &str = "ai-proxy, own key";
const ON_CREDITS: &str = "ai-proxy, credits";
const READ: &str = "one strongly consistent read of the account";
const HOLD: &str = "a hold, its generation, its settlement: three writes";

/// The relays and the gateway, and the targets of calls.
struct Parts {
    relay: Process,
    http_relay: Process,
    reading_relay: Process,
    proxy: Process,
    targets: [Target; 6],
}

impl Parts {
    /// For this many calls at a time: more than one run on a thread per core.
    async fn start(world: &World, at_once: usize) -> Result<Self, Error> {
        let mut settings = world.system.settings.clone();
        settings.push(max_concurrency(at_once));
        let (relay, relay_port) = world.play("relay", &settings).await?;
        let (http_relay, http_port) = world.play("asking-relay", &settings).await?;
        let (reading_relay, reading_port) = world.play("reading-relay", &settings).await?;
        let (proxy, proxy_port) = world.play("proxy", &settings).await?;
        let target =
            |name, port, path, token: &str| Target { name, port, path, token: token.to_owned() };
        let (theirs, ours) = ("/chat/completions", "/v1/chat/completions");
        Ok(Self {
            relay,
            http_relay,
            reading_relay,
            proxy,
            targets: [
                target(DIRECT, world.upstream_port, theirs, &world.with_key),
                target(RELAY, relay_port, theirs, &world.with_key),
                target(HTTP_RELAY, http_port, theirs, &world.with_key),
                target(READING_RELAY, reading_port, theirs, &world.with_key),
                target(WITH_KEY, proxy_port, ours, &world.with_key),
                target(ON_CREDITS, proxy_port, ours, &world.on_credits),
            ],
        })
    }

    fn processes(&self) -> [&Process; 4] {
        let Self { relay, http_relay, reading_relay, proxy, .. } = self;
        [relay, http_relay, reading_relay, proxy]
    }

    /// The process between the client and the upstream.
    fn middle_process(&self, target: &Target) -> Option<&Process> {
        match target.name {
            DIRECT => None,
            RELAY => Some(&self.relay),
            HTTP_RELAY => Some(&self.http_relay),
            READING_RELAY => Some(&self.reading_relay),
            _ => Some(&self.proxy),
        }
    }
}

/// Everything in turn, once per round.
pub(crate) async fn measure(world: &World, options: &Options) -> Result<Section, Error> {
    let (alone, together) = (Parts::start(world, 1).await?, Parts::start(world, 32).await?);
    let one = ["plain, 1 connection", "streamed, 1 stream", "streamed 5 ms apart, 1 stream"];
    let many = ["plain, 32 connections", "streamed, 32 streams", "streamed 5 ms apart, 32 streams"];
    let one = Way::all(one, 1, options.calls);
    let many = Way::all(many, 32, options.calls * 4);
    let ways: Vec<Way> = one.into_iter().chain(many).collect();
    let mut tables: Vec<Table> = ways.iter().map(|way| Table::new(way.name)).collect();
    let mut stored = Table::new("the store, by itself");
    // The first round warms up connections, caches and memory, and is not counted.
    for round in 0..=options.rounds {
        eprintln!("gateway, round {round} of {}", options.rounds);
        let mut uncounted = Table::new("");
        let others = [&alone, &together].map(Parts::processes);
        let others = others.as_flattened();
        world.pin(true, others)?;
        let store = if round > 0 { &mut stored } else { &mut uncounted };
        read_account(world, options.calls, store.row(READ)).await?;
        hold_and_settle(world, options.calls / 4, store.row(HOLD)).await?;
        for (way, table) in ways.iter().zip(&mut tables) {
            world.pin(way.is_pinned(), others)?;
            let parts = if way.at_once > 1 { &together } else { &alone };
            for target in &parts.targets {
                let table = if round > 0 { &mut *table } else { &mut uncounted };
                let middle = parts.middle_process(target);
                let called = call(target, way, middle, table.row(target.name)).await;
                called.map_err(|error| format!("{}, {}: {error}", target.name, way.name))?;
            }
        }
    }
    let mut text = String::from("\n## Through a server\n");
    text.push_str(&stored.markdown());
    let all = tables.iter().chain([&stored]);
    let json = all.map(|table| (table.title.to_owned(), table.json())).collect();
    for table in &tables {
        text.push_str(&table.markdown());
    }
    Ok(Section {
        text,
        json: Value::Object(json),
        aims: aims(&tables, &stored).ok_or("a row of the aims is missing")?,
    })
}

/// Reads the account as a call does, with a client of this process.
pub(crate) async fn read_account(
    world: &World,
    calls: usize,
    measured: &mut Measured,
) -> Result<(), Error> {
    let id = AccountId::new(BYOK)?;
    let before = cpu(std::process::id())?;
    let began = Instant::now();
    for _ in 0..calls {
        let started = Instant::now();
        world.store.accounts.get(&id).await?;
        measured.end.push(nanos_since(started));
    }
    measured.elapsed += nanos_since(began);
    measured.calls += calls;
    let used = cpu(std::process::id())?.saturating_sub(before);
    measured.cpu.push(used / u64::try_from(calls.max(1))?);
    Ok(())
}

/// The store requests of a call on credits after its read.
async fn hold_and_settle(
    world: &World,
    calls: usize,
    measured: &mut Measured,
) -> Result<(), Error> {
    let account = world.store.accounts.get(&AccountId::new(CREDITS)?).await?;
    let account = account.ok_or("there is no account for calls on credits")?;
    let before = cpu(std::process::id())?;
    let began = Instant::now();
    for _ in 0..calls {
        let started = Instant::now();
        writes::of_a_call(&world.store, &account).await?;
        measured.end.push(nanos_since(started));
    }
    measured.elapsed += nanos_since(began);
    measured.calls += calls;
    let used = cpu(std::process::id())?.saturating_sub(before);
    measured.cpu.push(used / u64::try_from(calls.max(1))?);
    Ok(())
}

fn aims(tables: &[Table], stored: &Table) -> Option<Vec<Aim>> {
    let [plain, streamed, _, _, _, _] = tables else {
        return None;
    };
    let (read, three) = (stored.get(READ)?, stored.get(HOLD)?);
    let nanos = |nanos: Nanos| i64::try_from(nanos).unwrap_or(i64::MAX);
    let [p50, p99] = [Sample::p50, Sample::p99];
    let end: fn(&Measured) -> &Sample = |it| &it.end;
    let content: fn(&Measured) -> &Sample = |it| &it.first_content;
    let more = |table: &Table, row, of: fn(&Measured) -> &Sample, at: fn(&Sample) -> Nanos| {
        let (own, direct) = (table.get(row)?, table.get(DIRECT)?);
        Some(added(at(of(own)), at(of(direct))))
    };
    let (read50, read99) = (nanos(p50(&read.end)), nanos(p99(&read.end)));
    let own = more(plain, WITH_KEY, end, p50)?;
    let relay = more(plain, RELAY, end, p50)?;
    let transit = |row| Some(nanos(p50(&streamed.get(row)?.transit)));
    let cpu = |row| Some(nanos(p50(&plain.get(row)?.cpu)));
    Some(vec![
        Aim {
            what: "own key, plain: added p50, minus one read of the account, vs. the relay's",
            unit: Unit::Nanoseconds,
            own: own - read50,
            of: relay,
            at_most: 1_500,
        },
        Aim {
            what: "own key, plain: added p50, everything included, vs. the relay's",
            unit: Unit::Nanoseconds,
            own,
            of: relay,
            at_most: 4_000,
        },
        Aim {
            what: "own key, plain: added p99, vs. the relay's and a read's p99",
            unit: Unit::Nanoseconds,
            own: more(plain, WITH_KEY, end, p99)?,
            of: more(plain, RELAY, end, p99)? + read99,
            at_most: 3_000,
        },
        Aim {
            what: "streamed: added p50 to the first content, minus one read, vs. the relay's",
            unit: Unit::Nanoseconds,
            own: more(streamed, WITH_KEY, content, p50)? - read50,
            of: more(streamed, RELAY, content, p50)?,
            at_most: 2_000,
        },
        Aim {
            what: "streamed: added p99 to the first content, minus one read's p99, vs. the relay's",
            unit: Unit::Nanoseconds,
            own: more(streamed, WITH_KEY, content, p99)? - read99,
            of: more(streamed, RELAY, content, p99)?,
            at_most: 2_000,
        },
        Aim {
            what: "streamed: a chunk's transit, p50, vs. the relay's",
            unit: Unit::Nanoseconds,
            own: transit(WITH_KEY)?,
            of: transit(RELAY)?,
            at_most: 1_500,
        },
        Aim {
            what: "own key, plain: CPU a call, minus a read's, vs. the relay's",
            unit: Unit::Nanoseconds,
            own: cpu(WITH_KEY)? - nanos(p50(&read.cpu)),
            of: cpu(RELAY)?,
            at_most: 2_000,
        },
        Aim {
            what: "credits, plain: added p50 over that of one's own key, vs. three writes",
            unit: Unit::Nanoseconds,
            own: more(plain, ON_CREDITS, end, p50)? - own,
            of: nanos(p50(&three.end)),
            at_most: 1_000,
        },
    ])
}

async fn call(
    target: &Target,
    way: &Way,
    middle: Option<&Process>,
    measured: &mut Measured,
) -> Result<(), Error> {
    let connections = (0..way.at_once).map(|_| Connection::to(target));
    let connections = try_join_all(connections).await?;
    let before = middle.map(|middle| cpu(middle.id())).transpose()?;
    let started = Instant::now();
    let each = way.calls / way.at_once;
    let callers = connections.into_iter().map(|mut connection| async move {
        let mut moments = Vec::new();
        for _ in 0..each {
            moments.push(connection.call(&way.body).await?);
        }
        Ok::<_, Error>(moments)
    });
    let all = try_join_all(callers).await?;
    measured.elapsed += nanos_since(started);
    if let (Some(middle), Some(before)) = (middle, before) {
        let used = cpu(middle.id())?.saturating_sub(before);
        let calls = u64::try_from((each * way.at_once).max(1))?;
        measured.cpu.push(used / calls);
    }
    for moments in all.into_iter().flatten() {
        measured.take(moments);
    }
    Ok(())
}
