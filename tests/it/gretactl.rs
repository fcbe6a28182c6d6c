//! The operator's tool, run in this process against the system's own engines. This file tests what
//! all commands share; each group of commands has its own module.

mod accounts;
mod credits;
mod holds;
mod keys;
mod webhooks;

use std::ffi::OsString;
use std::io::BufRead;

use account::{AccountId, AccountNumber, CallId, Credits};
use ctl::{Console, Exit};
use edge::Env;
use http::Method;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::{KEY, World, new_hold};

/// The result of a command.
struct Ran {
    exit: Exit,
    out: String,
    err: String,
}

/// No one is there to confirm.
const NOBODY: Option<&str> = None;

async fn run_in(env: Env, line: &str, answer: Option<&str>) -> Ran {
    run_reading(env, line, answer.map(str::as_bytes)).await
}

async fn run_reading(env: Env, line: &str, mut input: Option<impl BufRead>) -> Ran {
    let words = std::iter::once("gretactl").chain(line.split_whitespace());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let console = Console {
        out: &mut out,
        err: &mut err,
        input: input.as_mut().map(|input| input as &mut dyn BufRead),
    };
    let exit = ctl::run(words.map(OsString::from), env, console).await;
    let ran =
        Ran { exit, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() };
    for shown in [&ran.out, &ran.err] {
        assert!(!shown.contains(KEY), "a key was shown: {shown}");
    }
    ran
}

fn env(world: &World) -> Env {
    let anna = ("GRETA_OPERATOR".to_owned(), "anna".to_owned());
    Env::from_pairs(world.system.settings.clone()).with([anna])
}

/// Runs the tool as the operator anna; `answer` is what she types.
async fn run(world: &World, line: &str, answer: Option<&str>) -> Ran {
    run_in(env(world), line, answer).await
}

/// The output of a command that succeeds.
async fn text(world: &World, line: &str) -> String {
    let ran = run(world, &format!("{line} --yes"), NOBODY).await;
    assert_eq!(ran.exit, Exit::Done, "{line}: {}{}", ran.out, ran.err);
    assert_eq!(ran.err, "", "{line}");
    ran.out
}

/// A command's JSON and exit code.
async fn json_of(world: &World, line: &str) -> (Exit, Value) {
    let ran = run(world, &format!("{line} --yes --json"), NOBODY).await;
    assert_eq!(ran.err, "", "{line}");
    let json = serde_json::from_str(&ran.out);
    (ran.exit, json.unwrap_or_else(|_| panic!("{}", ran.out)))
}

/// The JSON of a command that succeeds.
async fn done(world: &World, line: &str) -> Value {
    let (exit, json) = json_of(world, line).await;
    assert_eq!(exit, Exit::Done, "{line}: {json}");
    json
}

/// The error of a command that fails.
async fn failed(world: &World, line: &str) -> String {
    let (exit, json) = json_of(world, line).await;
    assert_eq!(exit, Exit::Failed, "{line}: {json}");
    json["error"].as_str().unwrap_or_default().to_owned()
}

fn account_id(id: &str) -> AccountId {
    AccountId::new(id).unwrap()
}

async fn number(world: &World, id: &str) -> AccountNumber {
    world.system.account(id).await.number
}

/// The actor and action of each history entry, newest first.
async fn history(world: &World, number: &AccountNumber) -> Vec<(String, String)> {
    let history = world.system.store.ledger.history(number, 20).await.unwrap();
    let entries = history.into_iter();
    entries.map(|entry| (entry.actor, entry.what)).collect()
}

/// Leaves open a hold of 0.001 credits that is `age` old.
async fn hold(world: &World, id: &str, call: &str, age: SignedDuration) {
    let account = world.system.account(id).await;
    let call = CallId::new(call).unwrap();
    let new = new_hold(&call, Credits::from_micros(1_000), world.system.clock.now() - age);
    let held = world.system.store.holds.take(&account, &new).await.unwrap();
    held.taken().unwrap();
}

const HOUR: SignedDuration = SignedDuration::from_hours(1);

async fn tick(world: &World) {
    let body = json!({"time": world.system.clock.now() + HOUR * 2});
    let request = world.request(Method::POST, "/_dev/tick");
    let report = world.send(request.body(body.to_string())).await.json();
    assert_eq!(report["errors"], 0, "{report}");
}

#[tokio::test]
async fn amounts_that_make_no_sense_are_refused() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    for (line, why) in [
        ("credits grant acme -5 --reason=r", "positive"),
        ("credits refund acme -5 --reason=r", "positive"),
        ("credits grant acme 0 --reason=r", "nothing would move"),
        ("credits adjust acme 0 --reason=r", "nothing would move"),
        ("credits grant acme five --reason=r", "decimal"),
        ("credits grant acme 0.0000001 --reason=r", "6 decimals"),
        ("credits grant acme 5 --reason=", "reason"),
        ("credits grant acme 5", "--reason"),
        ("credits grant acme 5 --reason=r --id a/b", "entry's id"),
        ("credits grant a/b 5 --reason=r", "an id has"),
        ("credits reconcile", "--all"),
        ("credits reconcile acme --all", "cannot be used"),
        ("credits reconcile --all --segment 3/2", "segment"),
        ("holds resolve acme call_1 --reason=r", "--release"),
        ("holds resolve acme call_1 --charge 0 --reason=r", "nothing would move"),
        ("account create acme --plan gold", "standard, enterprise"),
        ("account create acme --plan standard --version 0", "0"),
        ("account show acme --operator=a/b", "operator's name"),
    ] {
        let (exit, json) = json_of(&world, line).await;
        let error = json["error"].as_str().unwrap();
        assert_eq!(exit, Exit::Usage, "{line}");
        assert!(error.contains(why), "{line}: {error}");
        let shown = run(&world, line, NOBODY).await;
        assert!(shown.out.is_empty() && shown.err.contains(why), "{}", shown.err);
    }
    // An amount that no balance can hold.
    let huge = failed(&world, "credits grant acme 9223372036854 --reason=r").await;
    assert!(huge.contains("cannot be counted"), "{huge}");
    assert_eq!(world.settled_balance("acme").await, "7");
}

/// With no answer, or any answer but yes, nothing changes.
#[tokio::test]
async fn nothing_changes_without_a_yes() {
    let world = World::start().await;
    world.enterprise_with_key("acme", "0").await;
    done(&world, "credits grant acme 7 --reason=r --id grant-1").await;
    hold(&world, "acme", "call_1", HOUR).await;
    let before = (
        world.system.account("acme").await,
        world.engines().secret_names().await,
        done(&world, "account show acme").await,
        done(&world, "credits history acme").await,
        done(&world, "holds list acme").await,
    );
    for line in [
        "account set-plan acme enterprise --version 5000",
        "account delete acme",
        "credits grant acme 5 --reason=r",
        "credits refund acme 5 --reason=r",
        "credits adjust acme 5 --reason=r",
        "credits adjust acme -5 --reason=r",
        "credits reverse acme grant-1 --reason=r",
        "holds resolve acme call_1 --release --reason=r",
        "holds resolve acme call_1 --charge 0.0001 --reason=r",
        "key forget acme --reason=r",
    ] {
        let nobody = run(&world, line, NOBODY).await;
        assert_eq!((nobody.exit, nobody.out.as_str()), (Exit::Usage, ""), "{line}");
        assert!(nobody.err.contains("--yes"), "{line}: {}", nobody.err);
        let json = run(&world, &format!("{line} --json"), NOBODY).await;
        let json: Value = serde_json::from_str(&json.out).unwrap();
        assert!(json["error"].as_str().unwrap().contains("--yes"));
        for answer in ["no\n", "\n", "", "yess\n", "maybe\nyes\n"] {
            let asked = run(&world, line, Some(answer)).await;
            assert_eq!((asked.exit, asked.out.as_str()), (Exit::Usage, ""), "{line}");
            assert!(asked.err.contains("Do it? (yes/no)"), "{line}: {}", asked.err);
            assert!(asked.err.contains("AccountsTable at http://"), "{}", asked.err);
        }
    }
    let after = (
        world.system.account("acme").await,
        world.engines().secret_names().await,
        done(&world, "account show acme").await,
        done(&world, "credits history acme").await,
        done(&world, "holds list acme").await,
    );
    assert_eq!(before, after);
    let asked = run(&world, "credits grant acme 5 --reason=r", Some("yes\n")).await;
    assert_eq!(asked.exit, Exit::Done);
    assert!(asked.err.contains("before") && asked.err.contains("balance 7"), "{}", asked.err);
}

#[tokio::test]
async fn a_change_needs_an_operator_name() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let nameless = || Env::from_pairs(world.system.settings.clone());
    for line in [
        "account create other --plan standard",
        "account set-plan acme enterprise",
        "account delete acme --yes",
        "credits grant acme 5 --reason=r --yes",
        "holds resolve acme call_1 --release --reason=r --yes",
        "key forget acme --reason=r --yes",
    ] {
        let ran = run_in(nameless(), line, NOBODY).await;
        assert_eq!(ran.exit, Exit::Usage, "{line}");
        assert!(ran.err.contains("--operator"), "{line}: {}", ran.err);
    }
    let ran = run_in(nameless(), "account show acme", NOBODY).await;
    assert_eq!(ran.exit, Exit::Done, "reading needs no operator name");
    let grant = "credits grant acme 1 --reason=r --yes --json";
    let user = ("USER".to_owned(), "berta".to_owned());
    let by = |ran: Ran| serde_json::from_str::<Value>(&ran.out).unwrap()["actor"].clone();
    let ran = run_in(nameless().with([user.clone()]), grant, NOBODY).await;
    assert_eq!(by(ran), "operator:berta");
    let ran = run_in(env(&world).with([user]), grant, NOBODY).await;
    assert_eq!(by(ran), "operator:anna");
    let ran = run(&world, &format!("{grant} --operator carla"), NOBODY).await;
    assert_eq!(by(ran), "operator:carla");
}

#[tokio::test]
async fn an_env_file_overrides_the_environment() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let none = || Env::from_pairs([("ACCOUNTS_TABLE", "x"), ("AWS_SESSION_TOKEN", "x")]);
    let missing = run_in(none(), "account show acme", NOBODY).await;
    assert_eq!(missing.exit, Exit::Usage);
    assert!(missing.err.contains("SECRETS_PREFIX is not set"), "{}", missing.err);

    let folder = std::env::temp_dir().join(edge::random_id("gretactl"));
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("dev.env");
    let settings = world.system.settings.iter();
    let lines = settings.map(|(name, value)| format!("{name}={value}\n"));
    let lines = lines.collect::<String>();
    std::fs::write(&file, format!("# comment\n\n{lines}")).unwrap();
    let line = format!("account show acme --env-file {}", file.display());
    let ran = run_in(none(), &line, NOBODY).await;
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
    std::fs::write(&file, "ACCOUNTS_TABLE\n").unwrap();
    let bad = run_in(none(), &line, NOBODY).await;
    assert!(bad.err.contains("line 1 of"), "{}", bad.err);
    std::fs::remove_dir_all(&folder).unwrap();
    let gone = run_in(none(), &format!("{line} --json"), NOBODY).await;
    assert_eq!(gone.exit, Exit::Usage);
    assert!(gone.out.contains("cannot be read"), "{}", gone.out);
}

#[tokio::test]
async fn the_help_lists_everything() {
    let env = || Env::from_pairs::<String, String>([]);
    let help = run_in(env(), "--help", NOBODY).await;
    assert_eq!((help.exit, help.err.as_str()), (Exit::Done, ""));
    assert!(help.out.starts_with("The operator's tool"), "{}", help.out);
    let commands = [
        "account create",
        "account show",
        "account set-plan",
        "account delete",
        "credits grant",
        "credits refund",
        "credits adjust",
        "credits reverse",
        "credits history",
        "credits reconcile",
        "holds list",
        "holds resolve",
        "key status",
        "key forget",
    ];
    for command in commands {
        assert!(help.out.contains(command), "{command}");
        let own = run_in(env(), &format!("{command} --help"), NOBODY).await;
        assert_eq!(own.exit, Exit::Done, "{command}");
    }
    for part in ["Exit codes", "ACCOUNTS_TABLE", "SECRETS_PREFIX", "cargo dev"] {
        assert!(help.out.contains(part), "{part}");
    }
    let nothing = run_in(env(), "", NOBODY).await;
    assert_eq!(nothing.exit, Exit::Usage);
    assert!(nothing.err.contains("credits grant"), "{}", nothing.err);
    let version = run_in(env(), "--version", NOBODY).await;
    assert_eq!(version.exit, Exit::Done);
}
