//! The command line: what can be asked for, and its help.

use std::path::PathBuf;

use account::{AccountId, CallId, Credits, EntryId, Plan};
use clap::builder::{PossibleValuesParser, StringValueParser, TypedValueParser};
use clap::{ArgGroup, Args, Parser, Subcommand};
use store::Segment;

/// The most characters of a reason.
const REASON: usize = 200;
/// The most characters of an entry's id, so that its reversal can be named after it.
const ENTRY_ID: usize = 55;

const OVERVIEW: &str = "\
Commands (ID is the account's id; AMOUNT is in credits, for example 12.5):
  account create ID --plan standard|enterprise [--version N]
                                    make an account, without credits
  account show ID                   plan, add-on, key, credits, and what was done to it
  account set-plan ID PLAN [--version N]
                                    change the plan
  account delete ID [--version N]   delete the account, its key and, at the end, its credits
  credits grant ID AMOUNT --reason TEXT [--id ENTRY_ID]
                                    give credits; what the account owes is taken from them
  credits refund ID AMOUNT --reason TEXT [--id ENTRY_ID]
                                    give credits back, for example for a failed call
  credits adjust ID AMOUNT --reason TEXT [--id ENTRY_ID]
                                    add credits, or take them (-5)
  credits reverse ID ENTRY_ID --reason TEXT
                                    undo a grant or a purchase; what is spent already is owed
  credits history ID [--limit N | --all]
                                    the ledger, newest first
  credits reconcile ID | --all [--segment I/N]
                                    check that the books add up; never repairs
  holds list ID                     calls whose credits are held
  holds resolve ID CALL_ID (--release | --charge AMOUNT) --reason TEXT
                                    end a hold by hand
  key status ID                     the connected OpenRouter key; never its text
  key forget ID --reason TEXT       disconnect the key and delete its secret
  webhooks list                     the payment provider's events that are not applied yet
  webhooks replay EVENT_ID          have the next billing tick apply an event again
`gretactl COMMAND --help` tells more of each.

Options of every command:
  --json            one JSON document on standard output: the report, or {\"error\": TEXT}
  --yes             do it without asking; needed where standard input is not a terminal
  --operator NAME   who is doing this, for ledger and history
                    (default: GRETA_OPERATOR, else USER)
  --env-file FILE   settings as NAME=VALUE lines, over those of the environment
  --help            help; also of each command

Changing commands put `operator:NAME` into the ledger or the account's history. Those that move
money or cannot be undone show what they are about to do, and ask: account delete, credits grant,
refund, adjust and reverse, holds resolve, key forget, webhooks replay, and account set-plan
where the add-on changes with the plan, or where --version is more than 1,000 ahead of the stored
one.
A reason given to `credits` is shown to the account's members in their ledger.

Settings, from the environment or --env-file:
  ACCOUNTS_TABLE, LEDGER_TABLE, HOLDS_TABLE, CHARGES_TABLE, WEBHOOKS_TABLE
                                              the deployment's tables
  SECRETS_PREFIX                              put before the names of users' secrets
  AWS_REGION, AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL_DYNAMODB, ...
                                              the AWS SDK's own. With single sign-on:
                                              eval \"$(aws configure export-credentials --format env)\"

Exit codes:
  0  done, also if it was done before
  1  it failed, nothing was found, or something does not add up
  2  called wrongly, settings are missing, or not confirmed; nothing was done

Examples:
  gretactl account create acme --plan standard
  gretactl credits grant acme 25 --reason 'beta tester' --id beta-acme
  gretactl credits history acme --limit 20 --json
  gretactl credits reconcile --all
  gretactl holds resolve acme call_0197 --release --reason 'provider had an outage'
  gretactl key forget acme --reason 'key was published' --yes

Beside a running `cargo dev`, which writes its settings to target/dev.env:
  cargo gretactl --env-file target/dev.env account show demo-standard";

/// The highest version that an event of the core system can have: a whole number that every JSON reader
/// takes exactly.
const LAST_VERSION: u64 = (1 << 53) - 1;

/// The operator's tool: accounts, credits, holds and keys, on AWS and beside `cargo dev`.
#[derive(Debug, Parser)]
#[command(
    name = "gretactl",
    version,
    disable_help_subcommand = true,
    subcommand_required = true,
    help_template = "{about}\n\n{usage-heading} gretactl [OPTIONS] COMMAND ...{after-help}",
    after_help = OVERVIEW
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Print one JSON document: the report, or {"error": TEXT}
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) json: bool,
    /// Do it without asking
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) yes: bool,
    #[arg(
        long,
        help = "Who is doing this (default: GRETA_OPERATOR, else USER)",
        global = true,
        value_name = "NAME",
        value_parser = operator,
        help_heading = "Options of every command"
    )]
    pub(crate) operator: Option<String>,
    /// Settings as NAME=VALUE lines, over those of the environment
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Options of every command"
    )]
    pub(crate) env_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make, show, change and delete accounts
    #[command(subcommand)]
    Account(AccountCommand),
    /// Give and take credits, read the ledger, check the books
    #[command(subcommand)]
    Credits(CreditsCommand),
    /// Credits that are held for calls
    #[command(subcommand)]
    Holds(HoldsCommand),
    /// The account's OpenRouter key; its text is never shown
    #[command(subcommand)]
    Key(KeyCommand),
    /// The payment provider's events
    #[command(subcommand)]
    Webhooks(WebhooksCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum AccountCommand {
    /// Make an account, without credits
    ///
    /// A deleted account is made anew only with a version above that of its deletion.
    #[command(verbatim_doc_comment)]
    Create {
        #[command(flatten)]
        account: AccountArg,
        #[arg(long, value_parser = plan())]
        plan: Plan,
        /// The version of this news of the plan: a higher one counts
        #[arg(
            long = "version",
            value_name = "N",
            default_value_t = 1,
            value_parser = clap::value_parser!(u64).range(1..=LAST_VERSION)
        )]
        plan_version: u64,
    },
    /// Show plan, add-on, key, credits, and what was done to the account
    Show {
        #[command(flatten)]
        account: AccountArg,
    },
    /// Change the plan
    ///
    /// Plans come with a version from Greta's core system, and the highest version counts. After
    /// this command the core system must go on with a higher version, or with the same one: an older
    /// one changes nothing any more. A --version that is more than 1,000 ahead of the stored one has
    /// to be confirmed. An upgrade to enterprise ends the add-on; back on standard, it can be used
    /// until what was paid for is over. Key and switches stay.
    #[command(verbatim_doc_comment)]
    SetPlan {
        #[command(flatten)]
        account: AccountArg,
        #[arg(value_parser = plan())]
        plan: Plan,
        /// The version of this news of the plan (default: the stored one + 1)
        #[arg(
            long = "version",
            value_name = "N",
            value_parser = clap::value_parser!(u64).range(1..=LAST_VERSION)
        )]
        plan_version: Option<u64>,
    },
    /// Delete the account
    ///
    /// The account's record is gone at once, then the secret of its key, then its balance and with
    /// it the only link from the ledger to the account; a tombstone stays, which keeps late news
    /// from reviving it. What cannot be done now (calls are still open, Secrets Manager does not
    /// answer) is finished by the billing tick, or by this command, repeated.
    #[command(verbatim_doc_comment)]
    Delete {
        #[command(flatten)]
        account: AccountArg,
        /// The version of the deletion: only a higher one makes the account anew (default: the
        /// stored one)
        #[arg(
            long = "version",
            value_name = "N",
            value_parser = clap::value_parser!(u64).range(1..=LAST_VERSION)
        )]
        plan_version: Option<u64>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CreditsCommand {
    /// Give credits
    ///
    /// What the account owes since a reversal is taken from them at once.
    Grant(Giving),
    /// Give credits back, for example for a call that went wrong
    ///
    /// What the account owes is not taken from them.
    Refund(Giving),
    /// Add credits, or take them: credits adjust acme -5 --reason '...'
    ///
    /// Never takes more than is available.
    Adjust {
        #[command(flatten)]
        account: AccountArg,
        /// Credits to add; to take, if negative
        #[arg(allow_negative_numbers = true, value_parser = signed_amount)]
        amount: Credits,
        #[command(flatten)]
        cause: Cause,
    },
    /// Undo a grant or a purchase, once
    ///
    /// Takes as much of it as is available; the rest is owed, and taken from the next credits that
    /// are granted or bought. Money that the payment provider gave back or lost in a dispute is
    /// reversed by the provider's own events: look at the ledger before you do it by hand.
    #[command(verbatim_doc_comment)]
    Reverse {
        #[command(flatten)]
        account: AccountArg,
        /// The id of the grant or the purchase, as `credits history` shows it
        #[arg(value_parser = text().try_map(EntryId::new))]
        entry_id: EntryId,
        /// Why; the account's members see it in their ledger
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: String,
    },
    /// Show the ledger, newest first, with the balance after each entry
    History {
        #[command(flatten)]
        account: AccountArg,
        /// So many entries
        #[arg(
            long,
            value_name = "N",
            default_value_t = 50,
            value_parser = clap::value_parser!(u32).range(1..)
        )]
        limit: u32,
        /// All entries
        #[arg(long, conflicts_with = "limit")]
        all: bool,
    },
    /// Check that the books add up: ledger and balance, holds and what is held, days and calls
    ///
    /// Prints each problem, and exits with 1 if there is one. Nothing is repaired.
    #[command(group = ArgGroup::new("which").required(true))]
    Reconcile {
        /// The account's id
        #[arg(value_name = "ID", group = "which", value_parser = text().try_map(AccountId::new))]
        account: Option<AccountId>,
        /// Every account
        #[arg(long, group = "which")]
        all: bool,
        /// With --all: only part I of N, so that several can share the work (1/4 ... 4/4)
        #[arg(long, value_name = "I/N", requires = "all", value_parser = segment)]
        segment: Option<Segment>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum HoldsCommand {
    /// List the open holds: calls under way, or whose end is not known yet
    List {
        #[command(flatten)]
        account: AccountArg,
    },
    /// End a hold by hand
    ///
    /// Holds end by themselves: with their call, by the provider's word, or after 24 hours. A hold
    /// younger than 20 minutes may belong to a call that is still running; if it is ended here, the
    /// call's own end changes nothing any more.
    #[command(verbatim_doc_comment, group = ArgGroup::new("end").required(true))]
    Resolve {
        #[command(flatten)]
        account: AccountArg,
        /// The call's id, as `holds list` shows it
        #[arg(value_parser = text().try_map(CallId::new))]
        call_id: CallId,
        /// Take nothing
        #[arg(long, group = "end")]
        release: bool,
        /// Take so many of the credits that are held
        #[arg(
            long,
            value_name = "AMOUNT",
            group = "end",
            allow_negative_numbers = true,
            value_parser = amount
        )]
        charge: Option<Credits>,
        /// Why
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum WebhooksCommand {
    /// List the events that are not applied yet, with the reason
    List,
    /// Have an event applied again
    ///
    /// The next billing tick does it, whatever became of the event before. What it did then, it does
    /// not do twice.
    #[command(verbatim_doc_comment)]
    Replay {
        /// The provider's id of the event
        #[arg(value_name = "EVENT_ID")]
        event_id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Show what is known of the connected key
    Status {
        #[command(flatten)]
        account: AccountArg,
    },
    /// Disconnect the key and delete its secret
    ///
    /// Both switches are off afterwards: calls are paid in credits until a key is connected again.
    /// The key itself stays valid at OpenRouter; only its owner can revoke it there.
    #[command(verbatim_doc_comment)]
    Forget {
        #[command(flatten)]
        account: AccountArg,
        /// Why
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AccountArg {
    /// The account's id
    #[arg(value_name = "ID", value_parser = text().try_map(AccountId::new))]
    pub(crate) account: AccountId,
}

#[derive(Debug, Args)]
pub(crate) struct Giving {
    #[command(flatten)]
    pub(crate) account: AccountArg,
    /// Credits, for example 12.5
    #[arg(allow_negative_numbers = true, value_parser = amount)]
    pub(crate) amount: Credits,
    #[command(flatten)]
    pub(crate) cause: Cause,
}

#[derive(Debug, Args)]
pub(crate) struct Cause {
    /// Why; the account's members see it in their ledger
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub(crate) reason: String,
    /// The entry's id: what has the same id is done once (default: a new one)
    #[arg(long = "id", value_name = "ENTRY_ID", value_parser = entry_id)]
    pub(crate) entry: Option<EntryId>,
}

fn text() -> StringValueParser {
    StringValueParser::new()
}

fn plan() -> impl TypedValueParser<Value = Plan> {
    PossibleValuesParser::new(["standard", "enterprise"]).map(|name| match name.as_str() {
        "enterprise" => Plan::Enterprise,
        _ => Plan::Standard,
    })
}

fn amount(text: &str) -> Result<Credits, String> {
    let credits = signed_amount(text)?;
    if credits.is_negative() {
        return Err("an amount is positive here; `credits adjust` takes credits".to_owned());
    }
    Ok(credits)
}

fn signed_amount(text: &str) -> Result<Credits, String> {
    let positive = text.strip_prefix('+').filter(|rest| !rest.starts_with('-'));
    let credits: Credits = positive
        .unwrap_or(text)
        .parse()
        .map_err(|error: account::DecimalError| error.to_string())?;
    if credits == Credits::ZERO {
        return Err("nothing would move".to_owned());
    }
    Ok(credits)
}

fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    let length = text.chars().count();
    if !(1..=REASON).contains(&length) || text.chars().any(char::is_control) {
        return Err(format!("a reason is one line of 1 to {REASON} characters"));
    }
    Ok(text.to_owned())
}

fn entry_id(text: &str) -> Result<EntryId, String> {
    let id = EntryId::new(text).ok().filter(|_| text.len() <= ENTRY_ID);
    id.ok_or_else(|| format!("an entry's id has 1 to {ENTRY_ID} letters, digits, `_` or `-`"))
}

/// A name that one can search for: no blanks.
pub(crate) fn operator(name: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_alphanumeric() || "._-@+\\".contains(c);
    let length = name.chars().count();
    if (1..=64).contains(&length) && name.chars().all(allowed) {
        Ok(name.to_owned())
    } else {
        Err("an operator's name has 1 to 64 letters, digits, `.`, `_`, `-`, `@`, `+`".to_owned())
    }
}

fn segment(text: &str) -> Result<Segment, String> {
    let parts = text.split_once('/');
    let parts = parts.and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
    match parts {
        Some((part, of)) if (1..=of).contains(&part) && of <= 1_000_000 => Ok(Segment {
            index: part - 1,
            of,
        }),
        _ => Err("a segment is I/N, for example 1/4, with I from 1 to N".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    /// `gretactl --help` alone is enough: it names every command, argument and option.
    #[test]
    fn the_help_names_everything() {
        fn check(command: &clap::Command, path: &str, help: &str) {
            for argument in command.get_arguments() {
                if let Some(long) = argument.get_long() {
                    assert!(help.contains(&format!("--{long}")), "{path} --{long}");
                }
            }
            for inner in command.get_subcommands() {
                let path = format!("{path} {}", inner.get_name());
                if !inner.has_subcommands() {
                    assert!(help.contains(&format!(" {path} ")), "{path}");
                }
                check(inner, path.trim(), help);
            }
        }
        let mut command = Cli::command();
        let help = command.render_help().to_string();
        for inner in command.get_subcommands() {
            check(inner, inner.get_name(), &help);
        }
        assert_eq!(command.render_long_help().to_string(), help);
    }

    #[test]
    fn amounts_are_exact_and_never_nothing() {
        let micros = |text| signed_amount(text).ok().map(Credits::micros);
        for (text, expected) in [
            ("5", Some(5_000_000)),
            ("+0.5", Some(500_000)),
            ("-0.000001", Some(-1)),
            ("0", None),
            ("-0", None),
            ("0.0000001", None),
            ("five", None),
            ("", None),
            ("+-5", None),
        ] {
            assert_eq!(micros(text), expected, "{text}");
        }
        assert!(amount("5").is_ok());
        for text in ["-5", "0"] {
            assert!(amount(text).is_err(), "{text}");
        }
    }

    #[test]
    fn segments_are_counted_from_one() {
        for (text, expected) in [
            ("1/1", Some((0, 1))),
            ("4/4", Some((3, 4))),
            ("0/4", None),
            ("5/4", None),
            ("1/0", None),
            ("-1/4", None),
            ("1", None),
        ] {
            let found = segment(text).ok().map(|found| (found.index, found.of));
            assert_eq!(found, expected, "{text}");
        }
    }
}
