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

use clap::Parser;
use edge::Env;
use edge::telemetry::LevelFilter;
use local::accounts;
use local::functions::passed_through;
use local::system::{Options, System};
use tokio::signal::unix::{SignalKind, signal};

/// The whole system on this machine, with all data in memory.
///
/// Settings in the environment pass through. OPENROUTER_BASE_URL, DEFAULT_AI_BASE_URL (with
/// DEFAULT_AI_API_KEY) and STRIPE_API_BASE_URL (with STRIPE_API_KEY) replace a simulator with the
/// real service. LOG_LEVEL=info shows the logs.
#[expect(clippy::doc_markdown, reason = "clap prints it as help")]
#[derive(Parser)]
#[command(name = "cargo dev", verbatim_doc_comment)]
struct Arguments {
    /// The gateway's port
    #[arg(long, default_value_t = 9000)]
    port: u16,
    /// Start only what the functions need, for `cargo lambda watch --env-file FILE`
    #[arg(long)]
    backends_only: bool,
    /// Where to write the functions' settings, also for `cargo gretactl --env-file FILE`
    #[arg(long, value_name = "FILE", default_value = "target/dev.env")]
    env_file: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
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
    // Installed before the first line is printed, because its reader may already send a signal.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let system = System::start(Options {
        port: arguments.port,
        settings: passed_through(Env::process()),
        backends_only: arguments.backends_only,
        aws_http: None,
    })
    .await?;
    system.add_demo_accounts().await?;
    let path = arguments.env_file.display();
    write_settings(&system, &arguments.env_file)
        .map_err(|error| format!("could not write {path}: {error}"))?;
    println!("settings for the functions and for gretactl: {path}");
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
    let mut text = String::from("demo accounts, each with the token of an owner:\n");
    for (id, description, _) in accounts::DEMO {
        let token = system.token(id, "owner");
        let _ = write!(text, "\n  {id} ({description})\n  {token}\n");
    }
    let mut url = system.url();
    if backends_only {
        // `cargo lambda watch` has its own port.
        "http://127.0.0.1:9001".clone_into(&mut url);
        text.push_str("\nstart the functions with `--invoke-port 9001`, then\n");
    }
    let token = system.token("demo-standard", "owner");
    let _ = write!(
        text,
        r#"
show who pays for the next call of demo-standard:

curl -s {url}/v1/integrations/openrouter -H 'authorization: Bearer {token}'

make a call, paid in credits:

curl -sN {url}/v1/chat/completions -H 'authorization: Bearer {token}' -H 'content-type: application/json' -d '{{"stream":true,"messages":[{{"role":"user","content":"Hello"}}]}}'

connect a key (any of this form works here), and OpenRouter is paid for the same call:

curl -s -X PUT {url}/v1/integrations/openrouter/key -H 'authorization: Bearer {token}' -H 'content-type: application/json' -d '{{"key":"sk-or-v1-demo-0123456789abcdef"}}'
"#
    );
    text
}
