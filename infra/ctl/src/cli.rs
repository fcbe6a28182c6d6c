//! The command line and its help.

use std::path::PathBuf;

use account::{AccountId, CallId, Credits, EntryId, Plan};
use clap::builder::{PossibleValuesParser, StringValueParser, TypedValueParser};
use clap::{ArgGroup, Args, Parser, Subcommand};
use store::Segment;

/// The maximum length of a reason, in characters.
const MAX_REASON: usize = 200;
/// The maximum length of an entry's id, which leaves room for its reversal's prefix.
const MAX_ENTRY_ID: usize = 55;

const OVERVIEW: &str = "\
Commands (ID is the account's id; AMOUNT is in credits, for example 12.5):
  account create ID --plan standard|enterprise [--version N]
                                    create an account, without credits
  account show ID                   plan, add-on, key, credits and history
  account set-plan ID PLAN [--version N]
                                    change the plan
  account delete ID [--version N]   delete the account, its key and finally its credits
  credits grant ID AMOUNT --reason TEXT [--id ENTRY_ID]
                                    give credits; owed credits are deducted
  credits refund ID AMOUNT --reason TEXT [--id ENTRY_ID]
                                    return credits, for example for a failed call
  credits adjust ID AMOUNT --reason TEXT [--id ENTRY_ID]
                                    add credits, or remove them (-5)
  credits reverse ID ENTRY_ID --reason TEXT
                                    undo a grant or a purchase; spent credits become owed
  credits history ID [--limit N | --all]
                                    the ledger, newest first
  credits reconcile ID | --all [--segment I/N]
                                    check that the books add up, without repairing them
  holds list ID                     calls whose credits are held
  holds resolve ID CALL_ID (--release | --charge AMOUNT) --reason TEXT
                                    end a hold by hand
  key status ID                     the connected OpenRouter key; never its text
  key forget ID --reason TEXT       disconnect the key and delete its secret
  webhooks list                     Stripe's events that are not applied yet
  webhooks replay EVENT_ID          have the next billing tick apply an event again
`gretactl COMMAND --help` explains each.

Options of every command:
  --json            one JSON document on standard output: the report, or {\"error\": TEXT}
  --yes             do not ask; needed where standard input is not a terminal
  --operator NAME   your name, for ledger and history
                    (default: GRETA_OPERATOR, else USER)
  --env-file FILE   settings as NAME=VALUE lines, which override the environment
  --help            this help, or a command's

Commands that change something record `operator:NAME` in the ledger or the account's history.
Commands that move money or cannot be undone show what they will do, and ask first: account delete,
credits grant, refund, adjust and reverse, holds resolve, key forget, webhooks replay, and account
set-plan if the add-on changes with the plan or --version is more than 1,000 ahead of the stored
one. The account's members see the reason of a `credits` command in their ledger.

Settings, from the environment or --env-file:
  ACCOUNTS_TABLE, LEDGER_TABLE, HOLDS_TABLE, CHARGES_TABLE, WEBHOOKS_TABLE
                                              the deployment's tables
  SECRETS_PREFIX                              the prefix of the names of users' secrets
  AWS_REGION, AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL_DYNAMODB, ...
                                              the AWS SDK's own; with single sign-on:
                                              eval \"$(aws configure export-credentials --format env)\"

Exit codes:
  0  done, now or earlier
  1  failed, nothing found, or something does not add up
  2  wrong arguments, missing settings, or not confirmed; nothing was done

Examples:
  gretactl account create acme --plan standard
  gretactl credits grant acme 25 --reason 'beta tester' --id beta-acme
  gretactl credits history acme --limit 20 --json
  gretactl credits reconcile --all
  gretactl holds resolve acme call_0197 --release --reason 'OpenRouter had an outage'
  gretactl key forget acme --reason 'key was published' --yes

With a running `cargo dev`, which writes its settings to target/dev.env:
  cargo gretactl --env-file target/dev.env account show demo-standard";

/// The highest version of a plan: the largest integer that every JSON reader reads exactly.
const MAX_VERSION: u64 = (1 << 53) - 1;

/// The operator's tool: accounts, credits, holds and keys, on AWS and with `cargo dev`.
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

#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Print one JSON document: the report, or {"error": TEXT}
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Do not ask for confirmation
    #[arg(long, global = true)]
    pub(crate) yes: bool,
    #[arg(
        long,
        help = "Your name, for ledger and history (default: GRETA_OPERATOR, else USER)",
        global = true,
        value_name = "NAME",
        value_parser = operator
    )]
    pub(crate) operator: Option<String>,
    /// Settings as NAME=VALUE lines, which override the environment
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) env_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create, show, change and delete accounts
    #[command(subcommand)]
    Account(AccountCommand),
    /// Give and take credits, show the ledger, check the books
    #[command(subcommand)]
    Credits(CreditsCommand),
    /// List and end holds
    #[command(subcommand)]
    Holds(HoldsCommand),
    /// Show or disconnect the account's OpenRouter key; its text is never shown
    #[command(subcommand)]
    Key(KeyCommand),
    /// List and replay Stripe's events
    #[command(subcommand)]
    Webhooks(WebhooksCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum AccountCommand {
    /// Create an account, without credits
    ///
    /// A deleted account can only be created again with a version above that of its deletion. The
    /// default version is 1.
    #[command(verbatim_doc_comment)]
    Create {
        #[command(flatten)]
        account: AccountArg,
        #[arg(long, value_parser = plan())]
        plan: Plan,
        #[command(flatten)]
        version: VersionArg,
    },
    /// Show plan, add-on, key, credits and history
    Show {
        #[command(flatten)]
        account: AccountArg,
    },
    /// Change the plan
    ///
    /// Greta's core system sends each change of plan with a version, and the highest version
    /// counts. After this command the core system must continue with this version or a higher one:
    /// a lower one has no effect. The default version is the stored one + 1; one that is more than
    /// 1,000 ahead must be confirmed. An upgrade to enterprise ends the add-on; back on standard,
    /// it can be used until the end of the paid period. Key and switches stay.
    #[command(verbatim_doc_comment)]
    SetPlan {
        #[command(flatten)]
        account: AccountArg,
        #[arg(value_parser = plan())]
        plan: Plan,
        #[command(flatten)]
        version: VersionArg,
    },
    /// Delete the account
    ///
    /// The account's record is deleted first, then its key's secret, then its balance, and with it
    /// the only link from the ledger to the account. A tombstone stays, so that late events do not
    /// revive the account: only a version above that of the deletion (default: the stored one)
    /// creates it again. The billing tick, or this command if repeated, finishes what cannot be
    /// done now because calls are in progress or Secrets Manager does not respond.
    #[command(verbatim_doc_comment)]
    Delete {
        #[command(flatten)]
        account: AccountArg,
        #[command(flatten)]
        version: VersionArg,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CreditsCommand {
    /// Give credits
    ///
    /// Credits owed since a reversal are deducted at once.
    Grant(Giving),
    /// Return credits, for example for a failed call
    ///
    /// Credits that the account owes are not deducted.
    Refund(Giving),
    /// Add credits, or remove them: credits adjust acme -5 --reason '...'
    ///
    /// Never removes more than is available.
    Adjust {
        #[command(flatten)]
        account: AccountArg,
        /// Credits to add, or to remove if negative
        #[arg(allow_negative_numbers = true, value_parser = signed_amount)]
        amount: Credits,
        #[command(flatten)]
        cause: Cause,
    },
    /// Undo a grant or a purchase, once
    ///
    /// Takes as many of the credits as are available; the rest is owed, and deducted from the next
    /// credits that are granted or bought. Refunds and lost disputes at Stripe are reversed by
    /// Stripe's own events: check the ledger before reversing by hand.
    #[command(verbatim_doc_comment)]
    Reverse {
        #[command(flatten)]
        account: AccountArg,
        /// The id of the grant or purchase, from `credits history`
        #[arg(value_parser = text().try_map(EntryId::new))]
        entry_id: EntryId,
        /// The reason, which the account's members see in their ledger
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: String,
    },
    /// Show the ledger, newest first, with the balance after each entry
    History {
        #[command(flatten)]
        account: AccountArg,
        /// The number of entries
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
    /// Check that the books add up: ledger and balance, holds and held credits, days and calls
    ///
    /// Prints each problem, and exits with 1 if there is any. Nothing is repaired.
    #[command(group = ArgGroup::new("which").required(true))]
    Reconcile {
        /// The account's id
        #[arg(value_name = "ID", group = "which", value_parser = text().try_map(AccountId::new))]
        account: Option<AccountId>,
        /// Every account
        #[arg(long, group = "which")]
        all: bool,
        /// With --all: only part I of N, to share the work (1/4 ... 4/4)
        #[arg(long, value_name = "I/N", requires = "all", value_parser = segment)]
        segment: Option<Segment>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum HoldsCommand {
    /// List the open holds: calls in progress, or calls whose outcome is not known yet
    List {
        #[command(flatten)]
        account: AccountArg,
    },
    /// End a hold by hand
    ///
    /// Holds end by themselves: with their call, by a look-up of the generation, or after 24 hours.
    /// A hold younger than 20 minutes may belong to a call that is still running; if it is ended
    /// here, the end of the call has no effect.
    #[command(verbatim_doc_comment, group = ArgGroup::new("end").required(true))]
    Resolve {
        #[command(flatten)]
        account: AccountArg,
        /// The call's id, from `holds list`
        #[arg(value_parser = text().try_map(CallId::new))]
        call_id: CallId,
        /// Charge nothing
        #[arg(long, group = "end")]
        release: bool,
        /// Charge this many of the held credits
        #[arg(
            long,
            value_name = "AMOUNT",
            group = "end",
            allow_negative_numbers = true,
            value_parser = amount
        )]
        charge: Option<Credits>,
        /// The reason
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum WebhooksCommand {
    /// List the events that are not applied yet, with the reasons
    List,
    /// Have an event applied again
    ///
    /// The next billing tick applies it, whatever its state. Effects that it already had are not
    /// repeated.
    #[command(verbatim_doc_comment)]
    Replay {
        /// Stripe's id of the event
        #[arg(value_name = "EVENT_ID")]
        event_id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Show the connected key's facts
    Status {
        #[command(flatten)]
        account: AccountArg,
    },
    /// Disconnect the key and delete its secret
    ///
    /// Both switches are off afterwards: calls are paid in credits until a key is connected again.
    /// The key stays valid at OpenRouter; only its owner can revoke it there.
    #[command(verbatim_doc_comment)]
    Forget {
        #[command(flatten)]
        account: AccountArg,
        /// The reason
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
pub(crate) struct VersionArg {
    /// The version of this change
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_VERSION))]
    pub(crate) version: Option<u64>,
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
    /// The reason, which the account's members see in their ledger
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub(crate) reason: String,
    /// The entry's id; an id is posted once (default: a new one)
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
        return Err(
            "the amount must be positive; use `credits adjust` to remove credits".to_owned()
        );
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
    if !(1..=MAX_REASON).contains(&length) || text.chars().any(char::is_control) {
        return Err(format!("the reason must be one line of 1 to {MAX_REASON} characters"));
    }
    Ok(text.to_owned())
}

fn entry_id(text: &str) -> Result<EntryId, String> {
    let id = EntryId::new(text).ok().filter(|_| text.len() <= MAX_ENTRY_ID);
    id.ok_or_else(|| format!("an entry's id has 1 to {MAX_ENTRY_ID} letters, digits, `_` or `-`"))
}

/// A name without spaces, so that it can be searched for.
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
        Some((part, of)) if (1..=of).contains(&part) && of <= 1_000_000 => {
            Ok(Segment { index: part - 1, of })
        }
        _ => Err("a segment is I/N, for example 1/4, with I from 1 to N".to_owned()),
    }
}

#[cfg(test)]
mod tests;
