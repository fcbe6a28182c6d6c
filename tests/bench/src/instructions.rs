//! A call's instructions, counted by callgrind: independent of the clock, so that they are the
//! same on a busy machine.
//!
//! Each count is the difference between two runs with different repetitions, so that start-up is
//! not included. Valgrind's processor has no SHA-256 instructions, which makes SHA-256 a hundred
//! times slower: the signature takes 100,000 instructions of an account read.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::client::{Connection, Target};
use crate::parts::{Part, Parts};
use crate::world::{World, body};
use crate::{Error, Options, Section, proxy, serve, upstream};

/// Warm-up calls, and counted calls.
const CALLS: (u32, u32) = (20, 200);

pub(crate) async fn measure(world: &World, _: &Options) -> Result<Section, Error> {
    let mut counts: Vec<(String, u64)> = Vec::new();
    let (plain, streamed) = (body(upstream::MODEL, false), body(upstream::MODEL, true));
    let rows = [
        ("bare relay", "relay", &world.with_key, &plain),
        ("`ai-proxy`, own key", "proxy", &world.with_key, &plain),
        ("`ai-proxy`, credits", "proxy", &world.on_credits, &plain),
        ("bare relay, 20 chunks", "relay", &world.with_key, &streamed),
        ("own key, 20 chunks", "proxy", &world.with_key, &streamed),
        ("credits, 20 chunks", "proxy", &world.on_credits, &streamed),
    ];
    for (name, role, token, body) in rows {
        eprintln!("instructions, {name}");
        let (few, counted) = CALLS;
        let less = of_calls(world, role, token, body, few).await?;
        let more = of_calls(world, role, token, body, few + counted).await?;
        counts.push((name.to_owned(), per_time(less, more, counted)));
    }
    for part in Part::PURE.into_iter().chain([Part::AccountRead]) {
        eprintln!("instructions, {}", part.name());
        let less = of_part(world, part, 1)?;
        let more = of_part(world, part, 1 + 4 * part.batch())?;
        let count = per_time(less, more, 4 * part.batch());
        counts.push((part.name().to_owned(), count));
    }
    let mut text = String::from("\n## Instructions\n\n| | instructions |\n|---|--:|\n");
    for (name, count) in &counts {
        let _ = writeln!(text, "| {name} | {count} |");
    }
    let json = counts.into_iter().map(|(name, count)| (name, json!(count)));
    Ok(Section { text, json: Value::Object(json.collect()), aims: Vec::new() })
}

fn per_time(less: u64, more: u64, times: u32) -> u64 {
    more.saturating_sub(less) / u64::from(times)
}

/// The instructions of a process in this role, for its start and `calls` calls.
async fn of_calls(
    world: &World,
    role: &str,
    token: &str,
    body: &Bytes,
    calls: u32,
) -> Result<u64, Error> {
    let port = serve::free_port()?;
    let upstream = format!("127.0.0.1:{}", world.upstream_port);
    let arguments = ["play", role, &port.to_string(), &upstream];
    let settings = world.system.settings.iter().cloned();
    let child = under_callgrind(world.this(), &arguments, settings)?;
    serve::until_listening(port).await?;
    let mut connection = Connection::to(&Target {
        name: "",
        port,
        path: "/v1/chat/completions",
        token: token.to_owned(),
    })
    .await?;
    for _ in 0..calls {
        connection.call(body).await?;
    }
    let kill = Command::new("kill").arg(child.id().to_string()).status()?;
    if !kill.success() {
        return Err("the counted process ended by itself".into());
    }
    collected(child)
}

/// The instructions of a process, for its start and `times` repetitions of a part.
fn of_part(world: &World, part: Part, times: u32) -> Result<u64, Error> {
    let settings = &world.system.settings;
    let pairs = settings.iter().map(|(name, value)| format!("{name}={value}"));
    let pairs: Vec<String> = pairs.collect();
    let times = times.to_string();
    let mut arguments = vec!["part", part.name(), &times, &world.with_key];
    arguments.extend(pairs.iter().map(String::as_str));
    collected(under_callgrind(world.this(), &arguments, settings.iter().cloned())?)
}

/// Repeats a part `times` times in this process, which callgrind counts. The settings are the
/// environment's, as `NAME=value`.
pub(crate) async fn do_part(
    name: &str,
    times: u32,
    token: &str,
    settings: &[&str],
) -> Result<(), Error> {
    let every = Part::PURE.into_iter().chain([Part::AccountRead]);
    let part = every.into_iter().find(|part| part.name() == name);
    let part = part.ok_or_else(|| format!("\"{name}\" is not a part of a call"))?;
    let pairs = settings.iter().filter_map(|pair| pair.split_once('='));
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let parts = Parts::new(proxy::deps().await?, token, pairs.collect()).await?;
    parts.run(part, times).await
}

fn under_callgrind(
    program: &Path,
    arguments: &[&str],
    settings: impl IntoIterator<Item = (String, String)>,
) -> Result<Child, Error> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.arg(program).args(arguments).envs(settings);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    child.map_err(|error| format!("valgrind, which this needs: {error}").into())
}

/// The instructions counted when the process ended.
fn collected(child: Child) -> Result<u64, Error> {
    let output = child.wait_with_output()?.stderr;
    let output = String::from_utf8_lossy(&output);
    let total = output.lines().find_map(|line| line.split_once("Collected :"));
    let (_, total) = total.ok_or_else(|| format!("callgrind counted nothing: {output}"))?;
    Ok(total.trim().parse()?)
}
