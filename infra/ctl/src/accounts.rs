//! `gretactl account`.

use std::fmt::{self, Display};

use account::{Account, AccountId, AccountNumber, AddOnStatus, Plan, Profile};
use card::KeyFacts;
use jiff::Timestamp;
use serde::Serialize;
use store::{Created, Deletion, Effect, HistoryEntry, Presence, StoreError, UpdateError};

use crate::Exit;
use crate::cli::AccountCommand;
use crate::error::Error;
use crate::keys;
use crate::output::{Answer, CreditFacts, Fields, Table, name_of, on_off, time};
use crate::session::Session;

/// How much of the history is shown.
const HISTORY: i32 = 20;
/// A version that is given and further ahead of the stored one may be a slip, which makes the core
/// system's events late for as long.
const FAR_AHEAD: u64 = 1_000;

pub(crate) async fn carry_out(
    session: &mut Session<'_, '_>,
    command: AccountCommand,
) -> Result<Answer, Error> {
    match command {
        AccountCommand::Create {
            account,
            plan,
            plan_version,
        } => create(session, account.account, plan, plan_version).await,
        AccountCommand::Show { account } => show(session, account.account).await,
        AccountCommand::SetPlan {
            account,
            plan,
            plan_version,
        } => set_plan(session, account.account, plan, plan_version).await,
        AccountCommand::Delete {
            account,
            plan_version,
        } => delete(session, account.account, plan_version).await,
    }
}

#[derive(Serialize)]
struct Made {
    account_id: AccountId,
    plan: Plan,
    plan_version: u64,
    created_at: Timestamp,
    actor: String,
}

impl Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = Fields::new("account", &self.account_id)
            .and("plan", plan_text(self.plan, self.plan_version))
            .and("created", time(self.created_at))
            .and("by", &self.actor);
        write!(f, "created\n\n{fields}")
    }
}

async fn create(
    session: &Session<'_, '_>,
    id: AccountId,
    plan: Plan,
    plan_version: u64,
) -> Result<Answer, Error> {
    let why = session.history(format!("created: {}", plan_text(plan, plan_version)))?;
    let number = AccountNumber::new(edge::random_id("acct"));
    let number = number.map_err(|error| Error::refused(error.to_string()))?;
    let profile = Profile::new(plan, plan_version, why.at);
    let created = session.store.accounts.create(&id, &number, &profile, &why);
    let created = created.await.map_err(|error| match error {
        source @ StoreError::Unavailable { .. } => Error::Unknown {
            advice: format!("look at `gretactl account show {id}`"),
            source,
        },
        error => Error::Store(error),
    })?;
    match created {
        Created::Now => Answer::of(&Made {
            account_id: id,
            plan,
            plan_version,
            created_at: why.at,
            actor: why.actor,
        }),
        Created::Before => Err(Error::refused(format!(
            "there is an account {id} already; nothing was changed"
        ))),
        Created::Deleted => Err(Error::refused(
            match session.store.accounts.presence(&id).await? {
                Presence::Deleted {
                    version,
                    scrubbed: true,
                } => format!(
                    "account {id} was deleted by version {version}; only a higher --version makes it anew"
                ),
                _ => format!(
                    "account {id} was deleted, and not all of it is gone yet: its open holds have to end, then `gretactl account delete {id}` or the next billing tick finishes it"
                ),
            },
        )),
    }
}

#[derive(Serialize)]
struct Shown {
    account_id: AccountId,
    state: State,
    /// Of a deleted account.
    deleted_version: Option<u64>,
    /// Of a deleted account: nothing is left but the tombstone.
    scrubbed: Option<bool>,
    /// Of a live account.
    account: Option<Facts>,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Live,
    Deleted,
    Never,
}

#[derive(Serialize)]
struct Facts {
    plan: Plan,
    plan_version: u64,
    created_at: Timestamp,
    add_on: AddOnFacts,
    key: Option<KeyFacts>,
    enabled: bool,
    always_use_key: bool,
    credits: CreditFacts,
    /// Newest first.
    history: Vec<HistoryEntry>,
}

#[derive(Serialize)]
struct AddOnFacts {
    status: AddOnStatus,
    paid_through: Option<Timestamp>,
}

impl Facts {
    fn of(account: Account, history: Vec<HistoryEntry>) -> Self {
        let profile = account.profile;
        Self {
            plan: profile.plan(),
            plan_version: profile.plans.version(),
            created_at: account.created_at,
            add_on: AddOnFacts {
                status: profile.add_on.status(),
                paid_through: profile.add_on.paid_through(),
            },
            key: profile.key.map(KeyFacts::from),
            enabled: profile.enabled,
            always_use_key: profile.always_use_key,
            credits: account.balance.into(),
            history,
        }
    }
}

impl Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = Fields::new("account", &self.account_id);
        let Some(facts) = &self.account else {
            let state = match (self.state, self.deleted_version, self.scrubbed) {
                (State::Deleted, Some(version), Some(true)) => {
                    format!("deleted by version {version}; nothing is left but the tombstone")
                }
                (State::Deleted, Some(version), _) => format!(
                    "deleted by version {version}; its balance is there until all holds have ended"
                ),
                _ => "there is no such account, and there never was".to_owned(),
            };
            return write!(f, "{}", fields.and("state", state));
        };
        let add_on = name_of(&facts.add_on.status);
        let add_on = match facts.add_on.paid_through {
            Some(paid_through) => format!("{add_on}, paid through {}", time(paid_through)),
            None => add_on,
        };
        let fields = fields
            .and("state", "live")
            .and("created", time(facts.created_at))
            .and("plan", plan_text(facts.plan, facts.plan_version))
            .and("add-on", add_on)
            .and("credits", facts.credits);
        let fields = keys::fields(fields, facts.key.as_ref())
            .and("enabled", on_off(facts.enabled))
            .and("always use", on_off(facts.always_use_key));
        let mut history = Table::new(["at", "by", "what"]);
        for entry in &facts.history {
            history.push([time(entry.at), entry.actor.clone(), entry.what.clone()]);
        }
        write!(f, "{fields}\nhistory, newest first\n{history}")
    }
}

async fn show(session: &Session<'_, '_>, id: AccountId) -> Result<Answer, Error> {
    let mut shown = Shown {
        account_id: id,
        state: State::Never,
        deleted_version: None,
        scrubbed: None,
        account: None,
    };
    match session.store.accounts.presence(&shown.account_id).await? {
        Presence::Never => {}
        Presence::Deleted { version, scrubbed } => {
            shown.state = State::Deleted;
            shown.deleted_version = Some(version);
            shown.scrubbed = Some(scrubbed);
        }
        Presence::Live(account) => {
            let history = session
                .store
                .ledger
                .history(&account.number, HISTORY)
                .await?;
            shown.state = State::Live;
            shown.account = Some(Facts::of(*account, history));
            return Answer::of(&shown);
        }
    }
    Answer::with_exit(&shown, Exit::Failed)
}

#[derive(Serialize)]
struct PlanSet {
    account_id: AccountId,
    plan: Plan,
    plan_version: u64,
    plan_before: Plan,
    plan_version_before: u64,
    add_on: AddOnStatus,
    add_on_before: AddOnStatus,
    /// False: it was so already.
    changed: bool,
    actor: String,
}

impl Display for PlanSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = if self.changed {
            "changed; Greta's core system must go on with this version or a higher one"
        } else {
            "it was so already; nothing was changed"
        };
        let before = plan_text(self.plan_before, self.plan_version_before);
        let fields = Fields::new("account", &self.account_id)
            .and("plan", plan_text(self.plan, self.plan_version))
            .and("plan before", before)
            .and("add-on", name_of(&self.add_on))
            .and("add-on before", name_of(&self.add_on_before))
            .and("by", &self.actor);
        write!(f, "{done}\n\n{fields}")
    }
}

async fn set_plan(
    session: &mut Session<'_, '_>,
    id: AccountId,
    plan: Plan,
    asked: Option<u64>,
) -> Result<Answer, Error> {
    let actor = session.actor()?;
    let before = session.account(&id).await?;
    let (plan_before, version_before) = (before.profile.plan(), before.profile.plans.version());
    let version = asked.unwrap_or_else(|| version_before.saturating_add(1));
    let add_on_before = before.profile.add_on.status();
    let mut expected = before.profile.clone();
    expected.hear_plan(plan, version, session.clock.now());
    let add_on = expected.add_on.status();
    let add_on_changes = version >= version_before && add_on != add_on_before;
    let jump = far_ahead(asked, version_before);
    if add_on_changes || jump.is_some() {
        let facts = Fields::new("account", &id)
            .and("plan now", plan_text(plan_before, version_before))
            .and("plan then", plan_text(plan, version))
            .and("add-on now", name_of(&add_on_before))
            .and("add-on then", name_of(&add_on));
        let what = if add_on_changes {
            "The plan changes, and with it the add-on."
        } else {
            "The plan's version goes far ahead."
        };
        session.confirm(what, with_attention(facts, jump))?;
    }
    let why = session.history(format!(
        "plan set to {}, from {}",
        plan_text(plan, version),
        plan_text(plan_before, version_before),
    ))?;
    let mut changed = false;
    let updated = session
        .store
        .accounts
        .update(&id, Some(before), why.at, |profile| {
            let stored = profile.plans.version();
            if (stored, profile.plan()) == (version, plan) {
                return Ok(Vec::new());
            }
            // An update with the same version may be meant to be replaced, but not if nobody knew of it.
            if stored > version || (stored == version && asked.is_none()) {
                return Err(stored);
            }
            changed = true;
            profile.hear_plan(plan, version, why.at);
            Ok(vec![Effect::History(why.clone())])
        });
    let after = updated.await.map_err(|error| match error {
        UpdateError::NotFound => Error::gone(&id),
        UpdateError::Refused(stored) => Error::refused(format!(
            "the stored version is {stored}, so version {version} would change nothing; take a higher --version"
        )),
        UpdateError::Store(source) => Error::Unknown {
            advice: format!("look at `gretactl account show {id}`"),
            source,
        },
    })?;
    Answer::of(&PlanSet {
        account_id: id,
        plan: after.profile.plan(),
        plan_version: after.profile.plans.version(),
        plan_before,
        plan_version_before: version_before,
        add_on: after.profile.add_on.status(),
        add_on_before,
        changed,
        actor,
    })
}

#[derive(Serialize)]
struct Removed {
    account_id: AccountId,
    deleted_version: u64,
    /// False: it was deleted before.
    deleted_now: bool,
    /// What became of the key's secret.
    secret: Secret,
    /// Nothing is left but the tombstone.
    scrubbed: bool,
    actor: String,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Secret {
    /// No key was connected.
    None,
    Deleted,
    /// It could not be deleted now, or not by this command: the billing tick sees to it.
    LeftToTick,
}

impl Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = if self.deleted_now {
            "deleted"
        } else {
            "it was deleted before"
        };
        let secret = match self.secret {
            Secret::None => "there is none",
            Secret::Deleted => "deleted",
            Secret::LeftToTick => "if it is still there, the billing tick deletes it",
        };
        let rest = if self.scrubbed {
            "nothing is left but the tombstone"
        } else {
            "the balance stays until all holds have ended; the billing tick then removes it"
        };
        let fields = Fields::new("account", &self.account_id)
            .and("version", self.deleted_version)
            .and("key's secret", secret)
            .and("record", rest)
            .and("by", &self.actor);
        write!(f, "{done}\n\n{fields}")
    }
}

async fn delete(
    session: &mut Session<'_, '_>,
    id: AccountId,
    asked: Option<u64>,
) -> Result<Answer, Error> {
    let actor = session.actor()?;
    let version = match session.store.accounts.presence(&id).await? {
        Presence::Never => return Err(Error::NoAccount(id)),
        // Only what is left of it goes.
        Presence::Deleted {
            version: stored, ..
        } => {
            let version = asked.unwrap_or(stored).max(stored);
            if let Some(jump) = far_ahead(asked, stored) {
                let facts = Fields::new("account", &id)
                    .and("deleted by", format!("version {stored}"))
                    .and("then by", format!("version {version}"));
                let facts = with_attention(facts, Some(jump));
                session.confirm("The version of the deletion goes far ahead.", facts)?;
            }
            version
        }
        Presence::Live(account) => {
            let stored = account.profile.plans.version();
            let version = asked.unwrap_or(stored);
            if version < stored {
                return Err(too_late(&id, version));
            }
            let facts = Fields::new("account", &id)
                .and("plan", plan_text(account.profile.plan(), stored))
                .and("add-on", name_of(&account.profile.add_on.status()))
                .and("credits", CreditFacts::from(account.balance));
            let facts = keys::fields(facts, account.profile.key.map(KeyFacts::from).as_ref());
            session.confirm(
                "The account is deleted, with its key and its credits. This cannot be undone.",
                with_attention(facts, far_ahead(asked, stored)),
            )?;
            version
        }
    };
    let why = session.history(format!("deleted, version {version}"))?;
    let deletion = session.store.accounts.delete(&id, version, &why);
    let deletion = deletion.await.map_err(|source| Error::Unknown {
        advice: "repeat it: deleting twice is deleting once".to_owned(),
        source,
    })?;
    let profile = match deletion {
        Deletion::Late => return Err(too_late(&id, version)),
        Deletion::Done(profile) => profile,
    };
    let deleted_now = profile.is_some();
    let secret = match profile.map(|profile| profile.key) {
        None => Secret::LeftToTick,
        Some(None) => Secret::None,
        Some(Some(key)) => {
            let (store, vault) = (&session.store, &session.vault);
            match key_save::delete_secret(store, vault, &id, &key.id, why.at).await {
                Ok(()) => Secret::Deleted,
                Err(_) => Secret::LeftToTick,
            }
        }
    };
    Answer::of(&Removed {
        deleted_version: version,
        deleted_now,
        secret,
        // What fails here is due, and the tick's.
        scrubbed: session.store.accounts.scrub(&id).await.unwrap_or(false),
        account_id: id,
        actor,
    })
}

/// What whoever confirms should know of a version that is far ahead of the stored one.
fn far_ahead(asked: Option<u64>, stored: u64) -> Option<String> {
    let asked = asked?;
    let ahead = asked.checked_sub(stored)?;
    (ahead > FAR_AHEAD).then(|| {
        format!(
            "version {asked} is {ahead} ahead of the stored one; what Greta's core system says with a lower version is not heeded any more"
        )
    })
}

fn with_attention(facts: Fields, attention: Option<String>) -> Fields {
    match attention {
        Some(attention) => facts.and("attention", attention),
        None => facts,
    }
}

fn too_late(id: &AccountId, version: u64) -> Error {
    Error::refused(format!(
        "something younger than version {version} was heard of account {id}, so that it lives; nothing was done; `gretactl account show {id}` has its version"
    ))
}

fn plan_text(plan: Plan, version: u64) -> String {
    format!("{}, version {version}", name_of(&plan))
}
