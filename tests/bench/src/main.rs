//! The time that `ai-proxy` adds to a call, compared with calling the upstream directly and through
//! a relay that does nothing. `tests/bench/run` builds and starts this program;
//! docs/performance.md has the headline numbers.
//!
//! One program plays all parts, each in its own process, so that each can be pinned to a core and
//! queried for its CPU time and memory.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for developers talks to them on the terminal"
)]

mod client;
mod gateway;
mod growth;
mod instructions;
mod measured;
mod memory;
mod parts;
mod process;
mod proxy;
mod relay;
mod runtime;
mod runtime_api;
mod serve;
mod stats;
mod system;
mod targets;
mod upstream;
mod world;
mod writes;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use serde_json::{Map, Value};

use crate::relay::First;
use crate::stats::Nanos;
use crate::targets::Aim;
use crate::world::World;

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// The wall clock, which all processes of this machine share.
#[expect(
    clippy::disallowed_methods,
    reason = "chunk times are compared across processes, not by a rule of the product"
)]
pub(crate) fn nanoseconds() -> Nanos {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = since_1970.map(|time| time.as_nanos());
    nanos.ok().and_then(|nanos| u64::try_from(nanos).ok()).unwrap_or(0)
}

pub(crate) fn nanos_since(started: Instant) -> Nanos {
    u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

const HELP: &str = "\
Measures the time that ai-proxy adds to a call.

Usage: tests/bench/run [OPTIONS] [SECTION ...]

Sections (all of them, unless some are named):
  parts            the parts of a call by themselves
  instructions     calls and parts counted by callgrind, without a clock; needs valgrind
  writes           calls on credits: one process, 64 accounts
  gateway          through a server: direct, a bare relay, ai-proxy with an own key and on credits
  runtime          over Lambda's Runtime API: warm, cold, 32 at once; beside a hello world
  memory           open streams
  growth           longer bodies, and more accounts, up to 1,000,000

Needs two cores, and taskset to give processes one or both of them.

Options:
  --rounds N       repetitions of each measurement, in turn (5)
  --calls N        plain calls per round, one after the other, and a fifth as many streamed (1000)
  --json FILE      also write the numbers to this file
";

/// The sections to measure, and the number of repetitions.
pub(crate) struct Options {
    pub(crate) rounds: usize,
    pub(crate) calls: usize,
    json: Option<PathBuf>,
    /// The built `cargo dev`.
    pub(crate) system: PathBuf,
    sections: Vec<String>,
}

impl Options {
    fn parse(words: &[&str]) -> Result<Self, Error> {
        let mut options = Self {
            rounds: 5,
            calls: 1_000,
            json: None,
            system: PathBuf::from("target/simulation/local"),
            sections: Vec::new(),
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if SECTIONS.contains(word) {
                options.sections.push((*word).to_owned());
                continue;
            }
            let value = *words
                .next()
                .ok_or_else(|| format!("{word} is not a section, or needs a value; see --help"))?;
            match *word {
                "--rounds" => options.rounds = value.parse()?,
                "--calls" => options.calls = value.parse()?,
                "--json" => options.json = Some(value.into()),
                "--system" => options.system = value.into(),
                other => return Err(format!("{other} is not an option; see --help").into()),
            }
        }
        Ok(options)
    }
}

const SECTIONS: [&str; 7] =
    ["parts", "instructions", "writes", "gateway", "runtime", "memory", "growth"];

/// The results of a section.
pub(crate) struct Section {
    pub(crate) text: String,
    pub(crate) json: Value,
    pub(crate) aims: Vec<Aim>,
}

#[tokio::main(flavor = "current_thread")]
async fn measure(options: &Options) -> Result<(), Error> {
    let (mut json, mut aims) = (Map::new(), Vec::new());
    let chosen =
        |name: &&str| options.sections.is_empty() || options.sections.iter().any(|it| it == name);
    for name in SECTIONS.into_iter().filter(|name| chosen(name)) {
        // Each section gets a new world: the engine keeps ten minutes of transactions and scans
        // them for each new one.
        let world = World::start(options).await?;
        let section = match name {
            "gateway" => gateway::measure(&world, options).await?,
            "runtime" => runtime::measure(&world, options).await?,
            "parts" => parts::measure(&world, options).await?,
            "memory" => memory::measure(&world, options).await?,
            "writes" => writes::measure(&world, options).await?,
            "growth" => growth::measure(&world, options).await?,
            _ => instructions::measure(&world, options).await?,
        };
        print!("{}", section.text);
        json.insert(name.to_owned(), section.json);
        aims.extend(section.aims);
    }
    print!("{}", targets::markdown(&aims));
    json.insert("aims".to_owned(), aims.iter().map(Aim::json).collect());
    if let Some(file) = &options.json {
        std::fs::write(file, format!("{:#}\n", Value::Object(json)))?;
    }
    Ok(())
}

/// Runs a role on the runtime that functions use.
fn play(role: &str, port: u16, upstream: &str) -> Result<(), Error> {
    edge::block_on(async {
        match role {
            "upstream" => upstream::run(port).await,
            "relay" => relay::run(port, upstream, First::Nothing).await,
            "reading-relay" => relay::run(port, upstream, First::read().await?).await,
            "asking-relay" => relay::run(port, upstream, First::ask()?).await,
            _ => proxy::run(port).await,
        }
    })
}

fn started(words: &[&str]) -> Result<(), Error> {
    match words {
        ["play", role, port, upstream] => play(role, port.parse()?, upstream),
        ["part", name, times, token, settings @ ..] => {
            edge::block_on(instructions::do_part(name, times.parse()?, token, settings))
        }
        ["--help"] => {
            print!("{HELP}");
            Ok(())
        }
        options => measure(&Options::parse(options)?),
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match started(&words.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
