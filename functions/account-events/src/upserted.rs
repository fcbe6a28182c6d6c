//! `account.upserted`: the account is there, and has this plan.

use std::convert::Infallible;

use account::{Account, AccountNumber, Plan, Profile};
use store::{Created, Effect, HistoryEntry, Presence, UpdateError};

use crate::{ACTOR, AccountEvent, Deps, Done, EventError};

/// How often the account is looked at again because others created or deleted it meanwhile.
const ROUNDS: usize = 5;

pub(crate) async fn upserted(
    deps: &Deps,
    event: &AccountEvent,
    plan: Plan,
) -> Result<Done, EventError> {
    for _ in 0..ROUNDS {
        let done = match deps.store.accounts.presence(&event.account).await? {
            Presence::Live(account) => change(deps, event, plan, *account).await?,
            Presence::Deleted { version, .. } if version >= event.version => Some(Done::Late),
            Presence::Deleted { scrubbed, .. } if !scrubbed => {
                // All of the old account must be gone before there is a new one.
                if !deps.store.accounts.scrub(&event.account).await? {
                    return Err(EventError::StillOpen);
                }
                None
            }
            Presence::Never | Presence::Deleted { .. } => create(deps, event, plan).await?,
        };
        if let Some(done) = done {
            return Ok(done);
        }
    }
    Err(EventError::Contended)
}

/// `None` if somebody else made or deleted the account first.
async fn create(deps: &Deps, event: &AccountEvent, plan: Plan) -> Result<Option<Done>, EventError> {
    let number = AccountNumber::new(edge::random_id("acct"))?;
    let profile = Profile::new(plan, event.version, event.at);
    let why = history(event, plan, "created");
    let created = deps
        .store
        .accounts
        .create(&event.account, &number, &profile, &why);
    Ok((created.await? == Created::Now).then_some(Done::Created))
}

/// `None` if the account was deleted meanwhile.
async fn change(
    deps: &Deps,
    event: &AccountEvent,
    plan: Plan,
    account: Account,
) -> Result<Option<Done>, EventError> {
    let mut done = Done::Unchanged;
    let changed = deps
        .store
        .accounts
        .update(&event.account, Some(account), deps.clock.now(), |profile| {
            let before = profile.plan();
            let is_late = event.version < profile.plans.version();
            // A late one is taken in, too: it may tell when the plan changed.
            profile.hear_plan(plan, event.version, event.at);
            if profile.plan() != before {
                done = Done::Changed;
                let why = history(event, plan, "changed");
                return Ok::<_, Infallible>(vec![Effect::History(why)]);
            }
            done = if is_late { Done::Late } else { Done::Unchanged };
            Ok(Vec::new())
        })
        .await;
    match changed {
        Ok(_) => Ok(Some(done)),
        Err(UpdateError::NotFound) => Ok(None),
        Err(UpdateError::Store(error)) => Err(error.into()),
        Err(UpdateError::Refused(never)) => match never {},
    }
}

/// The same for the same event, however often it is carried out.
fn history(event: &AccountEvent, plan: Plan, what: &str) -> HistoryEntry {
    let plan = match plan {
        Plan::Enterprise => "enterprise",
        Plan::Standard => "standard",
    };
    HistoryEntry {
        id: format!("upserted-{}", event.version),
        at: event.at,
        actor: ACTOR.to_owned(),
        what: format!("{what}: plan {plan}"),
    }
}
