//! The parts of a call, each by itself, in this process: what each of them could save at most.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use account::{AccountId, KeyId};
use ai_proxy::{Deps, Settings};
use bytes::Bytes;
use edge::{Clock, Env};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use routing::Situation;
use serde_json::{Value, json};
use upstream::sse::Scanner;

use crate::stats::Sample;
use crate::system::BYOK;
use crate::world::{DYNAMODB, SECRETS_MANAGER, World};
use crate::{Error, Options, Section, nanos_since};

/// So many times, a part is done for one value of its sample.
const BATCH: u64 = 100;

pub(crate) async fn measure(world: &World, options: &Options) -> Result<Section, Error> {
    world.pin(true, &[])?;
    let deps = deps(world).await?;
    let headers = HeaderMap::from_iter([(AUTHORIZATION, world.with_key.parse()?)]);
    let id = AccountId::new(BYOK)?;
    let account = deps.store.account(&id).await?.ok_or("no account")?;
    let key: KeyId = account.profile.key.clone().ok_or("no key")?.id;
    let (now, policy) = (deps.clock.now(), &deps.settings.product.policy);
    let (small, large) = (stream(160), stream(16_000));
    let mut parts: Vec<(&str, Sample)> = Vec::new();
    for round in 0..=options.rounds {
        eprintln!("parts, round {round} of {}", options.rounds);
        let mut of_round: Vec<(&str, Sample)> = Vec::new();
        let mut put = |name, sample| of_round.push((name, sample));
        put("an access token is checked", {
            let mut sample = Sample::default();
            for _ in 0..options.calls / 10 {
                let started = Instant::now();
                for _ in 0..BATCH {
                    black_box(deps.identity.caller(&headers).await).map_err(|_| "no token")?;
                }
                sample.push(nanos_since(started) / BATCH);
            }
            sample
        });
        put(
            "who pays",
            timed(options, || {
                black_box(routing::decide(Situation::of(&account, now, policy)));
            }),
        );
        put(
            "the settings are read",
            timed(options, || {
                let env = Env::from_pairs(world.system.settings.iter().cloned());
                black_box(Settings::from_env(env).is_ok());
            }),
        );
        put("a key, from the cache", {
            let mut sample = Sample::default();
            for _ in 0..options.calls / 10 {
                let started = Instant::now();
                for _ in 0..BATCH {
                    black_box(deps.vault.user_key(&id, &key).await)?;
                }
                sample.push(nanos_since(started) / BATCH);
            }
            sample
        });
        put(
            "a MB of a stream is scanned, chunks of 160 bytes",
            scanned(&small, options),
        );
        put("the same, chunks of 16,000 bytes", scanned(&large, options));
        if round > 0 {
            for (at, (name, sample)) in of_round.into_iter().enumerate() {
                match parts.get_mut(at) {
                    Some((_, all)) => all.extend(sample.values()),
                    None => parts.push((name, sample)),
                }
            }
        }
    }
    let mut text =
        String::from("\n## The parts by themselves\n\n| | p50, ns | p99, ns |\n|---|--:|--:|\n");
    for (name, sample) in &parts {
        let _ = writeln!(text, "| {name} | {} | {} |", sample.p50(), sample.p99());
    }
    let json = parts.iter().map(|(name, sample)| {
        let value = json!({"p50_ns": sample.p50(), "p99_ns": sample.p99()});
        ((*name).to_owned(), value)
    });
    Ok(Section {
        text,
        json: Value::Object(json.collect()),
        aims: Vec::new(),
    })
}

/// What `ai-proxy` works with, in this process.
async fn deps(world: &World) -> Result<Deps, Error> {
    let settings = Settings::from_env(Env::from_pairs(world.system.settings.iter().cloned()))?;
    let dynamodb = aws_sdk_dynamodb::Client::new(&world.system.aws(DYNAMODB).await?);
    let secrets = aws_sdk_secretsmanager::Client::new(&world.system.aws(SECRETS_MANAGER).await?);
    Deps::new(settings, Clock::system(), dynamodb, secrets)
}

fn timed(options: &Options, mut part: impl FnMut()) -> Sample {
    let mut sample = Sample::default();
    for _ in 0..options.calls {
        let started = Instant::now();
        for _ in 0..BATCH {
            part();
        }
        sample.push(nanos_since(started) / BATCH);
    }
    sample
}

/// A megabyte of chunks, each a piece of its own.
fn stream(chunk: usize) -> Vec<Bytes> {
    let begin = "data: {\"id\":\"gen-bench\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"";
    let end = "\"}}]}\n\n";
    let content = "w".repeat(chunk.saturating_sub(begin.len() + end.len()));
    let chunk = Bytes::from(format!("{begin}{content}{end}"));
    vec![chunk.clone(); 1_000_000 / chunk.len()]
}

fn scanned(pieces: &[Bytes], options: &Options) -> Sample {
    let mut sample = Sample::default();
    for _ in 0..options.calls / 20 {
        let started = Instant::now();
        let mut scanner = Scanner::default();
        for piece in pieces {
            scanner.feed(piece.clone());
        }
        scanner.end();
        black_box(scanner.done);
        sample.push(nanos_since(started));
    }
    sample
}
