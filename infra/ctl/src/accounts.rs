//! `gretactl account`.

use account::{Account, AccountId, AccountNumber, Plan, Profile};
use card::KeyFacts;
use serde_json::json;
use store::{Created, Deletion, Effect, Presence, StoreError, UpdateError};

use crate::error::Error;
use crate::keys;
use crate::output::{Fields, Report, credits_json, credits_text, name_of, table, time};
use crate::session::Session;

/// Number of history entries shown.
const HISTORY_ENTRIES: i32 = 20;
/// Largest step from the stored version to a given one that needs no confirmation. A larger one may
/// be a typo: events of Greta's core system have no effect until their versions catch up.
const FAR_AHEAD: u64 = 1_000;

pub(crate) async fn create(
    session: &Session<'_, '_>,
    id: AccountId,
    plan: Plan,
    version: u64,
) -> Result<Report, Error> {
    let entry = session.history(format!("created: {}", plan_text(plan, version)))?;
    let number = AccountNumber::new(edge::random_id("acct"));
    let number = number.map_err(|error| Error::refused(error.to_string()))?;
    let profile = Profile::new(plan, version, entry.at);
    let created = session.store.accounts.create(&id, &number, &profile, &entry);
    let created = created.await.map_err(|error| match error {
        source @ StoreError::Unavailable { .. } => look_at(&id)(source),
        error => Error::Store(error),
    })?;
    match created {
        Created::Now => {}
        Created::Before => {
            return Err(Error::refused(format!(
                "account {id} already exists; nothing was changed"
            )));
        }
        Created::Deleted => {
            return Err(Error::refused(match session.store.accounts.presence(&id).await? {
                Presence::Deleted { version, scrubbed: true } => format!(
                    "account {id} was deleted by version {version}; only a higher --version \
                     creates it again"
                ),
                _ => format!(
                    "account {id} was deleted, and not all of it is gone yet: once its open holds \
                     have ended, `gretactl account delete {id}` or the next billing tick removes \
                     the rest"
                ),
            }));
        }
    }
    let json = json!({
        "account_id": id,
        "plan": plan,
        "plan_version": version,
        "created_at": entry.at,
        "actor": entry.actor,
    });
    Ok(Report::change(json, "created"))
}

pub(crate) async fn show(session: &Session<'_, '_>, id: AccountId) -> Result<Report, Error> {
    let (state, deleted_version, scrubbed, text) =
        match session.store.accounts.presence(&id).await? {
            Presence::Live(account) => return show_live(session, &id, *account).await,
            Presence::Never => {
                ("never", None, None, "there is no such account, and there never was".to_owned())
            }
            Presence::Deleted { version, scrubbed } => {
                let text = format!("deleted by version {version}; {}", rest_text(scrubbed));
                ("deleted", Some(version), Some(scrubbed), text)
            }
        };
    let json = json!({
        "account_id": id,
        "state": state,
        "deleted_version": deleted_version,
        "scrubbed": scrubbed,
        "account": null,
    });
    Ok(Report::failed(json, Fields::new("account", &id).and("state", text)))
}

async fn show_live(
    session: &Session<'_, '_>,
    id: &AccountId,
    account: Account,
) -> Result<Report, Error> {
    let entries = session.store.ledger.history(&account.number, HISTORY_ENTRIES).await?;
    let profile = account.profile;
    let add_on = name_of(&profile.add_on.status());
    let add_on_text = match profile.add_on.paid_through() {
        Some(paid_through) => format!("{add_on}, paid through {}", time(paid_through)),
        None => add_on.clone(),
    };
    let key = profile.key.clone().map(KeyFacts::from);
    let fields = Fields::new("account", id)
        .and("state", "live")
        .and("created", time(account.created_at))
        .and("plan", plan_text(profile.plan(), profile.plans.version()))
        .and("add-on", add_on_text)
        .and("credits", credits_text(&account.balance));
    let fields = keys::fields(fields, key.as_ref())
        .and("enabled", profile.enabled)
        .and("always use", profile.always_use_key);
    let json = json!({
        "account_id": id,
        "state": "live",
        "deleted_version": null,
        "scrubbed": null,
        "account": {
            "plan": profile.plan(),
            "plan_version": profile.plans.version(),
            "created_at": account.created_at,
            "add_on": {"status": add_on, "paid_through": profile.add_on.paid_through()},
            "key": key,
            "enabled": profile.enabled,
            "always_use_key": profile.always_use_key,
            "credits": credits_json(&account.balance),
            "history": entries,
        },
    });
    let history = json["account"]["history"].as_array().map_or(&[][..], Vec::as_slice);
    let history = table(["at", "actor", "what"], history);
    let text = format!("{fields}\nhistory, newest first\n{history}");
    Ok(Report::new(json, text))
}

pub(crate) async fn set_plan(
    session: &mut Session<'_, '_>,
    id: AccountId,
    plan: Plan,
    given: Option<u64>,
) -> Result<Report, Error> {
    let actor = session.actor()?;
    let before = session.account(&id).await?;
    let (plan_before, version_before) = (before.profile.plan(), before.profile.plans.version());
    let version = given.unwrap_or_else(|| version_before.saturating_add(1));
    let add_on_before = before.profile.add_on.status();
    let mut expected = before.profile.clone();
    expected.apply_plan(plan, version, session.clock.now());
    let add_on = expected.add_on.status();
    let add_on_changes = version >= version_before && add_on != add_on_before;
    let jump = far_ahead(given, version_before);
    if add_on_changes || jump.is_some() {
        let fields = Fields::new("account", &id)
            .and("plan now", plan_text(plan_before, version_before))
            .and("plan then", plan_text(plan, version))
            .and("add-on now", name_of(&add_on_before))
            .and("add-on then", name_of(&add_on));
        let question = if add_on_changes {
            "The plan changes, and the add-on with it."
        } else {
            "The plan's version moves far ahead."
        };
        session.confirm(question, with_attention(fields, jump))?;
    }
    let entry = session.history(format!(
        "plan set to {}, from {}",
        plan_text(plan, version),
        plan_text(plan_before, version_before),
    ))?;
    let mut changed = false;
    let updated = session.store.accounts.update(&id, Some(before), entry.at, |profile| {
        let stored = profile.plans.version();
        if (stored, profile.plan()) == (version, plan) {
            return Ok(Vec::new());
        }
        // A change of the same version is replaced only if the operator gave the version.
        if stored > version || (stored == version && given.is_none()) {
            return Err(stored);
        }
        changed = true;
        profile.apply_plan(plan, version, entry.at);
        Ok(vec![Effect::History(entry.clone())])
    });
    let after = updated.await.map_err(|error| match error {
        UpdateError::NotFound => Error::gone(&id),
        UpdateError::Refused(stored) => Error::refused(format!(
            "the stored version is {stored}, so version {version} would change nothing; give a \
             higher --version"
        )),
        UpdateError::Store(source) => look_at(&id)(source),
    })?;
    let (plan, version) = (after.profile.plan(), after.profile.plans.version());
    let add_on = after.profile.add_on.status();
    let done = if changed {
        "changed; Greta's core system must continue with this version or a higher one"
    } else {
        "the account already has this plan and version; nothing was changed"
    };
    let json = json!({
        "account_id": id,
        "plan": plan,
        "plan_version": version,
        "plan_before": plan_before,
        "plan_version_before": version_before,
        "add_on": add_on,
        "add_on_before": add_on_before,
        "changed": changed,
        "actor": actor,
    });
    Ok(Report::change(json, done))
}

pub(crate) async fn delete(
    session: &mut Session<'_, '_>,
    id: AccountId,
    given: Option<u64>,
) -> Result<Report, Error> {
    let actor = session.actor()?;
    let version = match session.store.accounts.presence(&id).await? {
        Presence::Never => return Err(Error::no_account(&id)),
        // Only the rest of the account is removed.
        Presence::Deleted { version: stored, .. } => {
            let version = given.unwrap_or(stored).max(stored);
            if let Some(jump) = far_ahead(given, stored) {
                let fields = Fields::new("account", &id)
                    .and("deleted by", format!("version {stored}"))
                    .and("then by", format!("version {version}"))
                    .and("attention", jump);
                session.confirm("The version of the deletion moves far ahead.", fields)?;
            }
            version
        }
        Presence::Live(account) => {
            let stored = account.profile.plans.version();
            let version = given.unwrap_or(stored);
            if version < stored {
                return Err(too_late(&id, version));
            }
            let fields = Fields::new("account", &id)
                .and("plan", plan_text(account.profile.plan(), stored))
                .and("add-on", name_of(&account.profile.add_on.status()))
                .and("credits", credits_text(&account.balance));
            let fields = keys::fields(fields, account.profile.key.map(KeyFacts::from).as_ref());
            session.confirm(
                "The account is deleted, with its key and its credits. This cannot be undone.",
                with_attention(fields, far_ahead(given, stored)),
            )?;
            version
        }
    };
    let entry = session.history(format!("deleted, version {version}"))?;
    let deletion = session.store.accounts.delete(&id, version, &entry).await;
    let deletion = deletion.map_err(Error::unknown("repeat it: an account is deleted once"))?;
    let profile = match deletion {
        Deletion::Late => return Err(too_late(&id, version)),
        Deletion::Done(profile) => profile,
    };
    let deleted_now = profile.is_some();
    let secret = match profile.map(|profile| profile.key) {
        None => "left_to_tick",
        Some(None) => "none",
        Some(Some(key)) => {
            let (store, vault) = (&session.store, &session.vault);
            let deleted = key_save::delete_secret(store, vault, &id, &key.id, entry.at).await;
            deleted.map_or("left_to_tick", |()| "deleted")
        }
    };
    // If this fails, the billing tick scrubs the account.
    let scrubbed = session.store.accounts.scrub(&id).await.unwrap_or(false);
    let done = if deleted_now { "deleted" } else { "it was deleted before" };
    let json = json!({
        "account_id": id,
        "deleted_version": version,
        "deleted_now": deleted_now,
        "secret": secret,
        "scrubbed": scrubbed,
        "actor": actor,
    });
    Ok(Report::change(json, format!("{done}; {}", rest_text(scrubbed))))
}

/// The remains of a deleted account.
fn rest_text(scrubbed: bool) -> &'static str {
    if scrubbed {
        "nothing is left but the tombstone"
    } else {
        "its balance stays until all holds have ended; then the billing tick removes it"
    }
}

/// A warning about a given version that is far ahead of the stored one.
fn far_ahead(given: Option<u64>, stored: u64) -> Option<String> {
    let given = given?;
    let ahead = given.checked_sub(stored)?;
    (ahead > FAR_AHEAD).then(|| {
        format!(
            "version {given} is {ahead} ahead of the stored one; events of Greta's core system \
             with a lower version will have no effect"
        )
    })
}

fn with_attention(fields: Fields, attention: Option<String>) -> Fields {
    match attention {
        Some(attention) => fields.and("attention", attention),
        None => fields,
    }
}

fn too_late(id: &AccountId, version: u64) -> Error {
    Error::refused(format!(
        "account {id} has a version younger than version {version}, so it was not deleted; \
         see `gretactl account show {id}`"
    ))
}

fn look_at(id: &AccountId) -> impl FnOnce(StoreError) -> Error {
    Error::unknown(format!("see `gretactl account show {id}`"))
}

fn plan_text(plan: Plan, version: u64) -> String {
    format!("{}, version {version}", name_of(&plan))
}
