//! `gretactl holds`.

use account::hold::{FIRST_CHECK, HoldState};
use account::{AccountId, CallId, Credits};
use serde_json::{Value, json};
use store::{OpenHold, Resolution, StoredHold};

use crate::error::Error;
use crate::output::{Fields, Report, table, time};
use crate::session::Session;

pub(crate) async fn list(session: &Session<'_, '_>, id: AccountId) -> Result<Report, Error> {
    let number = session.number(&id).await?;
    let mut holds = session.store.holds.open(&number).await?;
    holds.sort_by_key(|open| open.created_at);
    let holds: Vec<_> = holds.iter().map(hold_json).collect();
    let columns = [
        "call_id",
        "amount",
        "model",
        "created_at",
        "next_check_at",
        "expires_at",
        "generation_id",
    ];
    let text = if holds.is_empty() {
        format!("account {id} has no open holds")
    } else {
        table(columns, &holds)
    };
    Ok(Report::new(json!({"account_id": id, "holds": holds}), text))
}

fn hold_json(open: &OpenHold) -> Value {
    json!({
        "call_id": open.hold.call,
        "amount": open.hold.amount,
        "model": open.hold.model,
        "created_at": open.created_at,
        "next_check_at": open.next_check_at,
        "expires_at": open.expires_at,
        "generation_id": open.generation_id,
    })
}

/// Charges the hold, or releases it if `charge` is `None`.
pub(crate) async fn resolve(
    session: &mut Session<'_, '_>,
    id: AccountId,
    call: &CallId,
    charge: Option<Credits>,
    reason: &str,
) -> Result<Report, Error> {
    let actor = session.actor()?;
    let number = session.number(&id).await?;
    let open = match session.store.holds.find(&number, call).await? {
        Some(StoredHold::Open(open)) => open,
        Some(StoredHold::Ended { state, at, by }) => {
            let when = format!(" on {} by {by}", time(at));
            return Err(ended(call, state, &when));
        }
        None => {
            return Err(Error::refused(format!(
                "account {id} has no hold of call {call}; `gretactl holds list {id}` shows its \
                 holds"
            )));
        }
    };
    let held = open.hold.amount;
    if let Some(charge) = charge.filter(|charge| *charge > held) {
        return Err(Error::refused(format!(
            "{charge} credits are more than the {held} that are held, which is the most that can \
             be charged; nothing was done"
        )));
    }
    let (question, what) = match charge {
        Some(charge) => (
            format!("{charge} of {held} held credits are charged."),
            format!("hold of call {call} charged with {charge}: {reason}"),
        ),
        None => (
            format!("The hold of {held} credits is released; nothing is charged."),
            format!("hold of call {call} released: {reason}"),
        ),
    };
    session.confirm(question, facts(session, &open))?;
    let entry = session.history(what)?;
    let store = &session.store;
    let resolution = match charge {
        Some(charge) => {
            let settled = store.holds.settle(&open.hold, charge, entry.at, &actor, Some(&entry));
            settled.await
        }
        None => store.holds.release(&open.hold, entry.at, &actor, Some(&entry)).await,
    };
    let resolution = resolution.map_err(Error::unknown("repeat it: a hold ends once"))?;
    let charged = match resolution {
        Resolution::Done(state) => state.charged(),
        Resolution::Already(Some(state)) => return Err(ended(call, state, " just now")),
        Resolution::Already(None) => return Err(Error::refused("the hold is gone")),
    };
    let done = if charged == Credits::ZERO { "released" } else { "charged" };
    let json = json!({
        "account_id": id,
        "call_id": call,
        "held": held,
        "charged": charged,
        "reason": reason,
        "actor": actor,
    });
    Ok(Report::change(json, done))
}

/// The facts to show before the confirmation.
fn facts(session: &Session<'_, '_>, open: &OpenHold) -> Fields {
    let now = session.clock.now();
    let fields = Fields::new("account", &open.hold.account).members("", &hold_json(open));
    // If a call fails to end its hold, the hold is checked at once.
    let may_run = now < open.next_check_at && now.duration_since(open.created_at) < FIRST_CHECK;
    if may_run { fields.and("attention", "the call may still be running") } else { fields }
}

fn ended(call: &CallId, state: HoldState, when: &str) -> Error {
    let how = match state {
        HoldState::Open => "is open, but could not be ended; repeat it".to_owned(),
        HoldState::Settled(charged) => {
            format!("was charged with {charged}{when}; nothing was done")
        }
        HoldState::Released => format!("was released{when}; nothing was done"),
    };
    Error::refused(format!("the hold of call {call} {how}"))
}
