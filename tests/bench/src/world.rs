//! Everything that takes part in the measurements: an upstream, the system around the functions,
//! and their programs.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::json;
use store::{Store, Tables};

use crate::process::{Process, pin};
use crate::system::{BYOK, CREDITS, System};
use crate::{Error, Options, serve, upstream};

/// The settings that contain the addresses of AWS services.
pub(crate) const DYNAMODB: &str = "AWS_ENDPOINT_URL_DYNAMODB";
pub(crate) const SECRETS_MANAGER: &str = "AWS_ENDPOINT_URL_SECRETS_MANAGER";

const ALL_CORES: &str = "0,1";

pub(crate) struct World {
    /// This program, which also plays the other roles.
    this: PathBuf,
    /// The folder of the functions' programs.
    functions: PathBuf,
    pub(crate) upstream_port: u16,
    upstream: Process,
    pub(crate) system: System,
    pub(crate) store: Store,
    /// The `Authorization` headers of an account with its own key, and of one without.
    pub(crate) with_key: String,
    pub(crate) on_credits: String,
}

impl World {
    pub(crate) async fn start(options: &Options) -> Result<Self, Error> {
        // A process that starts on one core sees only one and starts one thread, wherever it is
        // moved later.
        pin(std::process::id(), ALL_CORES)?;
        let this = std::env::current_exe()?;
        let functions = this.parent().map(PathBuf::from).unwrap_or_default();
        let upstream_port = serve::free_port()?;
        let port = upstream_port.to_string();
        let upstream = Process::start(&this, &["play", "upstream", &port, &port], &[])?;
        serve::until_listening(upstream_port).await?;
        let system = System::start(&options.system, upstream_port).await?;
        Ok(Self {
            with_key: system.token(BYOK).await?,
            on_credits: system.token(CREDITS).await?,
            store: store(&system).await?,
            this,
            functions,
            upstream_port,
            upstream,
            system,
        })
    }

    /// Starts this program in a role, such as `relay` or `proxy`; returns its port.
    pub(crate) async fn play(
        &self,
        role: &str,
        settings: &[(String, String)],
    ) -> Result<(Process, u16), Error> {
        let port = serve::free_port()?;
        let (own, upstream) = (port.to_string(), format!("127.0.0.1:{}", self.upstream_port));
        let process = Process::start(&self.this, &["play", role, &own, &upstream], settings)?;
        serve::until_listening(port).await?;
        Ok((process, port))
    }

    pub(crate) fn this(&self) -> &Path {
        &self.this
    }

    /// The program of a function, or of a helper beside them.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.functions.join(name)
    }

    /// Pins everything to one core, or to all cores.
    pub(crate) fn pin(&self, pinned: bool, others: &[&Process]) -> Result<(), Error> {
        let cores = if pinned { "0" } else { ALL_CORES };
        let own = [&self.upstream, &self.system.process];
        for process in own.iter().chain(others) {
            pin(process.id(), cores)?;
        }
        pin(std::process::id(), cores)
    }
}

async fn store(system: &System) -> Result<Store, Error> {
    let aws = system.aws(DYNAMODB).await?;
    let mut missing = None;
    let tables = Tables::from_settings(|name| {
        let table = system.setting(name).map(str::to_owned);
        table.unwrap_or_else(|error| {
            missing = Some(error);
            String::new()
        })
    });
    match missing {
        Some(error) => Err(error),
        None => Ok(Store::new(aws_sdk_dynamodb::Client::new(&aws), tables)),
    }
}

/// Lambda's setting for the number of events that a function gets at a time.
pub(crate) fn max_concurrency(at_once: usize) -> (String, String) {
    ("AWS_LAMBDA_MAX_CONCURRENCY".to_owned(), at_once.to_string())
}

/// A way of calling.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) name: &'static str,
    pub(crate) body: Bytes,
    /// Calls at a time.
    pub(crate) at_once: usize,
    pub(crate) calls: usize,
}

impl Way {
    fn new(name: &'static str, model: &str, stream: bool, at_once: usize, calls: usize) -> Self {
        Self { name, body: body(model, stream), at_once, calls: calls.max(at_once) }
    }

    /// Plain and streamed calls, `at_once` at a time; `calls` is the number of plain ones.
    pub(crate) fn all(names: [&'static str; 3], at_once: usize, calls: usize) -> [Self; 3] {
        let (plain, slow) = (upstream::MODEL, upstream::SLOW_MODEL);
        let [one, two, three] = names;
        [
            Self::new(one, plain, false, at_once, calls),
            Self::new(two, plain, true, at_once, calls / 5),
            // Enough to take about as long as the others: one call takes a tenth of a second.
            Self::new(three, slow, true, at_once, calls / 40 * at_once.min(4)),
        ]
    }

    /// Sequential calls run on one core: otherwise waking an idle core would be measured.
    pub(crate) fn is_pinned(&self) -> bool {
        self.at_once == 1
    }
}

pub(crate) fn body(model: &str, stream: bool) -> Bytes {
    let content = "Who pays for this call, and how long did it take to find out?";
    body_of(model, stream, content)
}

pub(crate) fn body_of(model: &str, stream: bool, content: &str) -> Bytes {
    let body = json!({
        "model": model,
        "stream": stream,
        "max_tokens": 100,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": content},
        ],
    });
    Bytes::from(body.to_string())
}
