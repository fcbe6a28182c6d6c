//! `cargo dev`: the whole system on this machine.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for developers talks to them on the terminal"
)]

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use edge::telemetry::LevelFilter;
use local::demo;
use local::system::{Options, System, settings_from_environment};
use tokio::signal::unix::{SignalKind, signal};

const HELP: &str = "\
The whole system on this machine, all data in memory.

Usage: cargo dev [OPTIONS]

Options:
  --port PORT       the gateway's port (9000)
  --backends-only   start only what the functions need, for `cargo lambda watch --env-file FILE`
  --env-file FILE   where to write the functions' settings, for this and for
                    `cargo gretactl --env-file FILE` (target/dev.env)
  --help            this text

Settings of the environment pass through; OPENROUTER_BASE_URL, DEFAULT_AI_BASE_URL (with
DEFAULT_AI_API_KEY) and STRIPE_API_BASE_URL put a real one in a simulator's place. LOG_LEVEL=info
shows the logs.
";

struct Arguments {
    port: u16,
    backends_only: bool,
    env_file: PathBuf,
}

fn arguments() -> Result<Option<Arguments>, String> {
    let mut parsed = Arguments {
        port: 9000,
        backends_only: false,
        env_file: PathBuf::from("target/dev.env"),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--port" => {
                let port = value()?.parse();
                parsed.port = port.map_err(|_| "--port takes a number up to 65535".to_owned())?;
            }
            "--backends-only" => parsed.backends_only = true,
            "--env-file" => parsed.env_file = PathBuf::from(value()?),
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("{other} is not an option; see cargo dev --help")),
        }
    }
    Ok(Some(parsed))
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    edge::telemetry::init_with_default(LevelFilter::ERROR);
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                let _ = write!(text, ": {error}");
                cause = error.source();
            }
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    // Before the first line is printed: whoever reads it may already send a signal.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let system = System::start(Options {
        port: arguments.port,
        settings: settings_from_environment(),
        backends_only: arguments.backends_only,
        aws_http: None,
    })
    .await?;
    demo::make_accounts(&system).await?;
    write_settings(&system, &arguments.env_file).map_err(|error| {
        format!(
            "{} cannot be written: {error}",
            arguments.env_file.display()
        )
    })?;
    let path = arguments.env_file.display();
    println!("settings for the functions and for the operator's tool: {path}");
    if arguments.backends_only {
        println!("    cargo lambda watch --env-file {path}");
    }
    println!("    cargo gretactl --env-file {path} account show demo-standard\n");
    println!("{}", welcome(&system, arguments.backends_only));
    println!("ready on {}", system.url());
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    system.stop().await;
    println!("stopped");
    Ok(())
}

fn write_settings(system: &System, file: &Path) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let line = |(name, value)| format!("{name}={value}\n");
    std::fs::write(file, system.settings.iter().map(line).collect::<String>())
}

fn welcome(system: &System, backends_only: bool) -> String {
    let mut text = String::from("demo accounts, with the token of an owner:\n");
    for (id, what, _) in demo::ACCOUNTS {
        let token = system.token(id, "owner");
        let _ = write!(text, "\n  {id} ({what})\n  {token}\n");
    }
    // `cargo lambda watch` has its own port.
    let url = if backends_only {
        "http://127.0.0.1:9001".to_owned()
    } else {
        system.url()
    };
    if backends_only {
        text.push_str("\nstart the functions with `--invoke-port 9001`, then\n");
    }
    let token = system.token("demo-standard", "owner");
    let _ = write!(
        text,
        r#"
who pays for the next call of demo-standard:

curl -s {url}/v1/integrations/openrouter -H 'authorization: Bearer {token}'

a call, paid with credits:

curl -sN {url}/v1/chat/completions -H 'authorization: Bearer {token}' -H 'content-type: application/json' -d '{{"stream":true,"messages":[{{"role":"user","content":"Hello"}}]}}'

connect a key (any of this form is good here); the same call is then paid by OpenRouter:

curl -s -X PUT {url}/v1/integrations/openrouter/key -H 'authorization: Bearer {token}' -H 'content-type: application/json' -d '{{"key":"sk-or-v1-demo-0123456789abcdef"}}'
"#
    );
    text
}
