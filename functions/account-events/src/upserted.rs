//! `account.upserted`: create the account, or change its plan.

use std::convert::Infallible;

use account::{Account, AccountNumber, Plan, Profile};
use store::{Created, Effect, Presence, UpdateError};

use crate::deps::Deps;
use crate::event::AccountEvent;
use crate::outcome::{EventError, Outcome};

/// Maximum number of tries of an event while other processes create or delete the account.
const ATTEMPTS: usize = 5;

pub(crate) async fn apply(
    deps: &Deps,
    event: &AccountEvent,
    plan: Plan,
) -> Result<Outcome, EventError> {
    for _ in 0..ATTEMPTS {
        let outcome = match deps.store.accounts.presence(&event.account).await? {
            Presence::Live(account) => change(deps, event, plan, *account).await?,
            Presence::Deleted { version, .. } if version >= event.version => Some(Outcome::Late),
            Presence::Deleted { scrubbed, .. } if !scrubbed => {
                // The old account must be gone before a new one takes its place.
                if !deps.store.accounts.scrub(&event.account).await? {
                    return Err(EventError::CallsInProgress);
                }
                None
            }
            Presence::Never | Presence::Deleted { .. } => create(deps, event, plan).await?,
        };
        if let Some(outcome) = outcome {
            return Ok(outcome);
        }
    }
    Err(EventError::Contended)
}

/// `None` if another process created or deleted the account first.
async fn create(
    deps: &Deps,
    event: &AccountEvent,
    plan: Plan,
) -> Result<Option<Outcome>, EventError> {
    let number = AccountNumber::new(edge::random_id("acct"))?;
    let profile = Profile::new(plan, event.version, event.at);
    let why = event.history_entry(event.at, format!("created: plan {}", name(plan)));
    let created = deps.store.accounts.create(&event.account, &number, &profile, &why);
    Ok((created.await? == Created::Now).then_some(Outcome::Created))
}

/// `None` if the account was deleted in the meantime.
async fn change(
    deps: &Deps,
    event: &AccountEvent,
    plan: Plan,
    account: Account,
) -> Result<Option<Outcome>, EventError> {
    let mut outcome = Outcome::Unchanged;
    let changed = deps
        .store
        .accounts
        .update(&event.account, Some(account), deps.clock.now(), |profile| {
            let before = profile.plan();
            let is_late = event.version < profile.plans.version();
            // A late event is applied too: it may show when the plan changed.
            profile.apply_plan(plan, event.version, event.at);
            if profile.plan() != before {
                outcome = Outcome::Changed;
                let what = format!("changed: plan {}", name(plan));
                let why = event.history_entry(event.at, what);
                return Ok::<_, Infallible>(vec![Effect::History(why)]);
            }
            outcome = if is_late { Outcome::Late } else { Outcome::Unchanged };
            Ok(Vec::new())
        })
        .await;
    match changed {
        Ok(_) => Ok(Some(outcome)),
        Err(UpdateError::NotFound) => Ok(None),
        Err(UpdateError::Store(error)) => Err(error.into()),
        Err(UpdateError::Refused(never)) => match never {},
    }
}

fn name(plan: Plan) -> &'static str {
    match plan {
        Plan::Enterprise => "enterprise",
        Plan::Standard => "standard",
    }
}
