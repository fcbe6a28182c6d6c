//! Functions as Lambda runs them: started, then called by a stub of the Runtime API, one call after
//! the other or (Managed Instances) many at a time; beside a hello world of `lambda_http`.

use std::fmt::Write as _;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use crate::client::{Connection, Target};
use crate::gateway::read_account;
use crate::measured::{Measured, Table};
use crate::process::{Process, cpu, resident_kb};
use crate::runtime_api::{RuntimeApi, event};
use crate::stats::{Nanos, Sample};
use crate::targets::{Aim, Unit};
use crate::world::{Way, World, body, max_concurrency};
use crate::{Error, Options, Section, nanos_since, upstream};

const HELLO: &str = "hello world";
const DIRECT: &str = "direct, without a function";
const WITH_KEY: &str = "ai-proxy, own key";
const ON_CREDITS: &str = "ai-proxy, credits";
const READ: &str = "one strongly consistent read of the account";

/// A running function, and the Runtime API that it polls for events.
struct Function {
    process: Process,
    api: RuntimeApi,
}

impl Function {
    /// `at_once` beyond 1 as on Lambda's Managed Instances.
    async fn start(world: &World, program: &str, at_once: usize) -> Result<Self, Error> {
        Self::with(RuntimeApi::start().await?, world, program, at_once)
    }

    fn with(api: RuntimeApi, world: &World, program: &str, at_once: usize) -> Result<Self, Error> {
        let mut settings = world.system.settings.clone();
        if at_once > 1 {
            settings.push(max_concurrency(at_once));
        }
        let lambda_variables = [
            ("AWS_LAMBDA_FUNCTION_NAME", program),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_LAMBDA_RUNTIME_API", &format!("127.0.0.1:{}", api.port)),
            // As in the template.
            ("AWS_LAMBDA_HTTP_IGNORE_STAGE_IN_PATH", "true"),
        ];
        settings.extend(lambda_variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let process = Process::start(&world.program(program), &[], &settings)?;
        Ok(Self { process, api })
    }

    /// Calls the function in this way, with the caller's token.
    async fn call(&self, way: &Way, token: &str, measured: &mut Measured) -> Result<(), Error> {
        let event = event(token, &way.body);
        let before = cpu(self.process.id())?;
        let started = Instant::now();
        let each = way.calls / way.at_once;
        let callers = (0..way.at_once).map(|_| async {
            let mut moments = Vec::new();
            for _ in 0..each {
                moments.push(self.api.invoke(&event).await?);
            }
            Ok::<_, Error>(moments)
        });
        let all = try_join_all(callers).await;
        let all = all.map_err(|error| format!("{}: {error}", way.name))?;
        measured.elapsed += nanos_since(started);
        let used = cpu(self.process.id())?.saturating_sub(before);
        measured.cpu.push(used / u64::try_from((each * way.at_once).max(1))?);
        for moments in all.into_iter().flatten() {
            measured.take(moments);
        }
        Ok(())
    }
}

/// Everything in turn, once per round.
pub(crate) async fn measure(world: &World, options: &Options) -> Result<Section, Error> {
    let mut text = String::from("\n## Over the Runtime API\n");
    let (warm, mut aims) = one_by_one(world, options).await?;
    let (many, memory) = at_once(world, options).await?;
    let (cold, aim) = cold(world, options).await?;
    aims.push(aim);
    let tables: Vec<&Table> = warm.iter().chain(&many).chain([&cold]).collect();
    for table in &tables {
        text.push_str(&table.markdown());
    }
    text.push_str(
        "\n### resident memory, kB\n\n| | after its first calls | 32 at once |\n|---|--:|--:|\n",
    );
    for (program, after_first, at_once) in &memory {
        let _ = writeln!(text, "| {program} | {after_first} | {at_once} |");
    }
    let json = tables.iter().map(|table| (table.title.to_owned(), table.json()));
    let mut json: serde_json::Map<String, Value> = json.collect();
    json.insert("resident_kb".to_owned(), json!(memory));
    Ok(Section { text, json: Value::Object(json), aims })
}

async fn one_by_one(world: &World, options: &Options) -> Result<(Vec<Table>, Vec<Aim>), Error> {
    let hello = Function::start(world, "hello", 1).await?;
    let ai_proxy = Function::start(world, "ai-proxy", 1).await?;
    let names = [
        "plain, one after the other",
        "streamed, one after the other",
        "streamed 5 ms apart, one after the other",
    ];
    let ways = Way::all(names, 1, options.calls);
    let mut tables: Vec<Table> = ways.iter().map(|way| Table::new(way.name)).collect();
    let direct = Target {
        name: DIRECT,
        port: world.upstream_port,
        path: "/chat/completions",
        token: world.with_key.clone(),
    };
    for round in 0..=options.rounds {
        eprintln!("runtime, round {round} of {}", options.rounds);
        world.pin(true, &[&hello.process, &ai_proxy.process])?;
        for (way, table) in ways.iter().zip(&mut tables) {
            let mut uncounted = Table::new("");
            let table = if round > 0 { table } else { &mut uncounted };
            let is_plain = way.name == names[0];
            if is_plain {
                hello.call(way, &world.with_key, table.row(HELLO)).await?;
                read_account(world, way.calls, table.row(READ)).await?;
            }
            let mut connection = Connection::to(&direct).await?;
            let began = Instant::now();
            for _ in 0..way.calls {
                table.row(DIRECT).take(connection.call(&way.body).await?);
            }
            table.row(DIRECT).elapsed += nanos_since(began);
            ai_proxy.call(way, &world.with_key, table.row(WITH_KEY)).await?;
            ai_proxy.call(way, &world.on_credits, table.row(ON_CREDITS)).await?;
        }
    }
    let aims = aims(&tables).ok_or("a row of the aims is missing")?;
    Ok((tables, aims))
}

fn aims(tables: &[Table]) -> Option<Vec<Aim>> {
    let nanos = |nanos: Nanos| i64::try_from(nanos).unwrap_or(i64::MAX);
    let [plain, streamed, apart] = tables else {
        return None;
    };
    let end = |row| Some(nanos(plain.get(row)?.end.p50()));
    let millisecond = 1_000_000;
    let transit = |table: &Table, of: fn(&Measured) -> &Sample, permille| {
        Some(nanos(of(table.get(WITH_KEY)?).percentile(permille)))
    };
    Some(vec![
        Aim {
            what: "a warm invocation, own key, minus upstream and one read, vs. hello world's",
            unit: Unit::Nanoseconds,
            own: end(WITH_KEY)? - end(DIRECT)? - end(READ)?,
            of: end(HELLO)?,
            at_most: 1_300,
        },
        Aim {
            what: "streamed: transit of the first chunk to the Runtime API, p50, vs. 1 ms",
            unit: Unit::Nanoseconds,
            own: transit(streamed, |it| &it.first_transit, 500)?,
            of: millisecond,
            at_most: 1_000,
        },
        Aim {
            what: "streamed 5 ms apart: transit of the first chunk, p50, vs. 1 ms",
            unit: Unit::Nanoseconds,
            own: transit(apart, |it| &it.first_transit, 500)?,
            of: millisecond,
            at_most: 1_000,
        },
        Aim {
            what: "streamed 5 ms apart: the longest transit of a chunk, vs. 40 ms",
            unit: Unit::Nanoseconds,
            own: transit(apart, |it| &it.transit, 1_000)?,
            of: 40 * millisecond,
            at_most: 500,
        },
    ])
}

/// Resident memory in kB by program: after its first calls, and after many concurrent ones.
type Memory = Vec<(&'static str, u64, u64)>;

async fn at_once(world: &World, options: &Options) -> Result<(Vec<Table>, Memory), Error> {
    let names = ["plain, 32 at once", "streamed, 32 at once", "streamed 5 ms apart, 32 at once"];
    let ways = Way::all(names, 32, options.calls * 2);
    let mut tables: Vec<Table> = ways.iter().map(|way| Table::new(way.name)).collect();
    world.pin(false, &[])?;
    let hello = Function::start(world, "hello", 32).await?;
    let ai_proxy = Function::start(world, "ai-proxy", 32).await?;
    let first = event(&world.with_key, &body(upstream::MODEL, false));
    let mut memory = Vec::new();
    for (name, function) in [("hello", &hello), ("ai-proxy", &ai_proxy)] {
        for _ in 0..10 {
            function.api.invoke(&first).await?;
        }
        memory.push((name, resident_kb(function.process.id())?, 0));
    }
    let callers = [
        (HELLO, &hello, &world.with_key),
        (WITH_KEY, &ai_proxy, &world.with_key),
        (ON_CREDITS, &ai_proxy, &world.on_credits),
    ];
    for round in 0..=options.rounds {
        eprintln!("runtime, 32 at once, round {round} of {}", options.rounds);
        for (way, table) in ways.iter().zip(&mut tables) {
            let mut uncounted = Table::new("");
            let table = if round > 0 { table } else { &mut uncounted };
            for (row, function, token) in callers {
                // The hello world cannot stream.
                if row != HELLO || way.name == names[0] {
                    function.call(way, token, table.row(row)).await?;
                }
            }
        }
    }
    for ((_, _, after), function) in memory.iter_mut().zip([&hello, &ai_proxy]) {
        *after = resident_kb(function.process.id())?;
    }
    Ok((tables, memory))
}

/// The time from a process's start to the end of its first response.
async fn cold(world: &World, options: &Options) -> Result<(Table, Aim), Error> {
    let mut table = Table::new("cold: from a process's start to its first answer");
    let event: Bytes = event(&world.with_key, &body(upstream::MODEL, false));
    for round in 0..=options.rounds * 4 {
        eprintln!("cold start {round} of {}", options.rounds * 4);
        for (program, row) in [("hello", HELLO), ("ai-proxy", WITH_KEY)] {
            world.pin(false, &[])?;
            let api = RuntimeApi::start().await?;
            let started = Instant::now();
            let function = Function::with(api, world, program, 1)?;
            function.api.invoke(&event).await?;
            let end = nanos_since(started);
            if round > 0 {
                let row = table.row(row);
                row.end.push(end);
                row.cpu.push(cpu(function.process.id())?);
                row.calls += 1;
                row.elapsed += end;
            }
        }
    }
    let p50 = |row| table.get(row).map_or(0, |it: &Measured| it.end.p50());
    let nanos = |nanos: Nanos| i64::try_from(nanos).unwrap_or(i64::MAX);
    let aim = Aim {
        what: "a cold start, own key, vs. hello world's",
        unit: Unit::Nanoseconds,
        own: nanos(p50(WITH_KEY)),
        of: nanos(p50(HELLO)),
        at_most: 2_000,
    };
    Ok((table, aim))
}
