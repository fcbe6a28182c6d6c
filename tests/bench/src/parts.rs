//! The parts of a call, each measured by itself in this process: the most that it could save.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use account::{Account, AccountId};
use ai_proxy::Deps;
use bytes::Bytes;
use edge::{Clock, Env, Setup};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use keyvault::Vault;
use routing::Situation;
use serde_json::{Value, json};
use upstream::Parsed;
use upstream::sse::{Item, Parser};

use crate::stats::Sample;
use crate::system::BYOK;
use crate::world::{DYNAMODB, SECRETS_MANAGER, World};
use crate::{Error, Options, Section, nanos_since};

/// A part of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    Token,
    Payer,
    Settings,
    Key,
    SmallChunks,
    LargeChunks,
    AccountRead,
}

impl Part {
    /// The parts without I/O.
    pub(crate) const PURE: [Self; 6] =
        [Self::Token, Self::Payer, Self::Settings, Self::Key, Self::SmallChunks, Self::LargeChunks];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Token => "an access token is checked",
            Self::Payer => "who pays",
            Self::Settings => "the settings are read",
            Self::Key => "a key, from the cache",
            Self::SmallChunks => "a MB of a stream is scanned, chunks of 160 bytes",
            Self::LargeChunks => "the same, chunks of 16,000 bytes",
            Self::AccountRead => "an account is read",
        }
    }

    /// Repetitions per value of a sample.
    pub(crate) fn batch(self) -> u32 {
        match self {
            Self::SmallChunks | Self::LargeChunks => 5,
            _ => 100,
        }
    }
}

/// The parts' inputs.
pub(crate) struct Parts {
    deps: Deps,
    headers: HeaderMap,
    id: AccountId,
    account: Account,
    settings: Vec<(String, String)>,
    small: Vec<Bytes>,
    large: Vec<Bytes>,
}

impl Parts {
    pub(crate) async fn new(
        deps: Deps,
        token: &str,
        settings: Vec<(String, String)>,
    ) -> Result<Self, Error> {
        let id = AccountId::new(BYOK)?;
        Ok(Self {
            headers: HeaderMap::from_iter([(AUTHORIZATION, token.parse()?)]),
            account: deps.api.store.accounts.get(&id).await?.ok_or("no account")?,
            id,
            deps,
            settings,
            small: stream(160),
            large: stream(16_000),
        })
    }

    /// Repeats one part `times` times.
    pub(crate) async fn run(&self, part: Part, times: u32) -> Result<(), Error> {
        let deps = &self.deps;
        for _ in 0..times {
            match part {
                Part::Token => {
                    black_box(deps.api.identity.caller(&self.headers).await)
                        .map_err(|_| "no token")?;
                }
                Part::Payer => {
                    let (now, policy) = (self.account.created_at, &deps.api.settings.policy);
                    black_box(routing::decide(Situation::of(&self.account, now, policy)));
                }
                Part::Settings => {
                    let env = Env::from_pairs(self.settings.iter().cloned());
                    black_box(ai_proxy::Settings::from_env(env).is_ok());
                }
                Part::Key => {
                    let key = self.account.profile.key.as_ref().ok_or("no key")?;
                    black_box(deps.vault.user_key(&self.id, &key.id).await)?;
                }
                Part::SmallChunks => scan(&self.small),
                Part::LargeChunks => scan(&self.large),
                Part::AccountRead => {
                    black_box(deps.api.store.accounts.get(&self.id).await?);
                }
            }
        }
        Ok(())
    }
}

pub(crate) async fn measure(world: &World, options: &Options) -> Result<Section, Error> {
    world.pin(true, &[])?;
    let settings = world.system.settings.clone();
    let parts = Parts::new(deps(world).await?, &world.with_key, settings).await?;
    let mut samples = Part::PURE.map(|part| (part, Sample::default()));
    for round in 0..=options.rounds {
        eprintln!("parts, round {round} of {}", options.rounds);
        for (part, sample) in &mut samples {
            let batch = part.batch();
            for _ in 0..options.calls / 10 {
                let started = Instant::now();
                parts.run(*part, batch).await?;
                if round > 0 {
                    sample.push(nanos_since(started) / u64::from(batch));
                }
            }
        }
    }
    let mut text =
        String::from("\n## The parts by themselves\n\n| | p50, ns | p99, ns |\n|---|--:|--:|\n");
    for (part, sample) in &samples {
        let _ = writeln!(text, "| {} | {} | {} |", part.name(), sample.p50(), sample.p99());
    }
    let json = samples.iter().map(|(part, sample)| {
        let value = json!({"p50_ns": sample.p50(), "p99_ns": sample.p99()});
        (part.name().to_owned(), value)
    });
    Ok(Section { text, json: Value::Object(json.collect()), aims: Vec::new() })
}

/// `ai-proxy`'s dependencies, in this process.
async fn deps(world: &World) -> Result<Deps, Error> {
    let env = Env::from_pairs(world.system.settings.iter().cloned());
    let aws = world.system.aws(DYNAMODB).await?;
    let mut deps = Deps::new(Setup { env, clock: Clock::system(), aws })?;
    let secrets = aws_sdk_secretsmanager::Client::new(&world.system.aws(SECRETS_MANAGER).await?);
    deps.vault = Vault::new(secrets, &deps.settings.secrets_prefix);
    Ok(deps)
}

/// A megabyte of chunks, each in its own buffer.
fn stream(chunk: usize) -> Vec<Bytes> {
    let begin = "data: {\"id\":\"gen-bench\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"";
    let end = "\"}}]}\n\n";
    let content = "w".repeat(chunk.saturating_sub(begin.len() + end.len()));
    let chunk = Bytes::from(format!("{begin}{content}{end}"));
    vec![chunk.clone(); 1_000_000 / chunk.len()]
}

fn scan(chunks: &[Bytes]) {
    let mut parser = Parser::default();
    for item in chunks.iter().flat_map(|chunk| parser.push(chunk.clone())) {
        if let Item::Event(event) = item {
            black_box(Parsed::of_event(&event));
        }
    }
}
