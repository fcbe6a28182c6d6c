//! `gretactl holds`.

use std::fmt::{self, Display};

use account::hold::{FIRST_CHECK, HoldState};
use account::{AccountId, CallId, Credits};
use jiff::Timestamp;
use serde::Serialize;
use store::{OpenHold, Resolution, StoredHold};

use crate::cli::HoldsCommand;
use crate::error::Error;
use crate::output::{Answer, Fields, Table, or_dash, time};
use crate::session::Session;

pub(crate) async fn carry_out(
    session: &mut Session<'_, '_>,
    command: HoldsCommand,
) -> Result<Answer, Error> {
    match command {
        HoldsCommand::List { account } => list(session, account.account).await,
        HoldsCommand::Resolve {
            account,
            call_id,
            release: _,
            charge,
            reason,
        } => resolve(session, account.account, &call_id, charge, &reason).await,
    }
}

#[derive(Serialize)]
struct Listed {
    account_id: AccountId,
    holds: Vec<HoldFacts>,
}

#[derive(Serialize)]
struct HoldFacts {
    call_id: CallId,
    amount: Credits,
    model: String,
    created_at: Timestamp,
    next_check_at: Timestamp,
    expires_at: Timestamp,
    /// The provider's id of the call.
    generation_id: Option<String>,
}

impl From<OpenHold> for HoldFacts {
    fn from(open: OpenHold) -> Self {
        Self {
            call_id: open.hold.call,
            amount: open.hold.amount,
            model: open.hold.model,
            created_at: open.created_at,
            next_check_at: open.next_check_at,
            expires_at: open.expires_at,
            generation_id: open.generation_id,
        }
    }
}

impl Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.holds.is_empty() {
            return writeln!(f, "account {} has no open holds", self.account_id);
        }
        let heads = [
            "call",
            "amount",
            "model",
            "taken",
            "next check",
            "expires",
            "provider's id",
        ];
        let mut table = Table::new(heads);
        for hold in &self.holds {
            table.push([
                hold.call_id.to_string(),
                hold.amount.to_string(),
                hold.model.clone(),
                time(hold.created_at),
                time(hold.next_check_at),
                time(hold.expires_at),
                or_dash(hold.generation_id.clone(), |id| id),
            ]);
        }
        write!(f, "{table}")
    }
}

async fn list(session: &Session<'_, '_>, id: AccountId) -> Result<Answer, Error> {
    let number = session.number(&id).await?;
    let mut holds = session.store.holds.open(&number).await?;
    holds.sort_by_key(|open| open.created_at);
    Answer::of(&Listed {
        account_id: id,
        holds: holds.into_iter().map(HoldFacts::from).collect(),
    })
}

#[derive(Serialize)]
struct Resolved {
    account_id: AccountId,
    call_id: CallId,
    held: Credits,
    charged: Credits,
    reason: String,
    actor: String,
}

impl Display for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = if self.charged == Credits::ZERO {
            "released"
        } else {
            "charged"
        };
        let fields = Fields::new("account", &self.account_id)
            .and("call", &self.call_id)
            .and("held", self.held)
            .and("charged", self.charged)
            .and("reason", &self.reason)
            .and("by", &self.actor);
        write!(f, "{done}\n\n{fields}")
    }
}

/// `charge`: what is taken; `None` releases the hold.
async fn resolve(
    session: &mut Session<'_, '_>,
    id: AccountId,
    call: &CallId,
    charge: Option<Credits>,
    reason: &str,
) -> Result<Answer, Error> {
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
                "account {id} has no hold of call {call}; `gretactl holds list {id}` lists those there are"
            )));
        }
    };
    let held = open.hold.amount;
    if let Some(charge) = charge.filter(|charge| *charge > held) {
        return Err(Error::refused(format!(
            "{charge} credits are more than the {held} that are held, and never more is taken; nothing was done"
        )));
    }
    let what = match charge {
        Some(charge) => format!("{charge} of {held} credits that are held are taken."),
        None => format!("The hold of {held} credits is released; nothing is taken."),
    };
    session.confirm(what, facts(session, &open))?;
    let what = match charge {
        Some(charge) => format!("hold of call {call} charged with {charge}: {reason}"),
        None => format!("hold of call {call} released: {reason}"),
    };
    let why = session.history(what)?;
    let store = &session.store;
    let resolution = match charge {
        Some(charge) => {
            let settled = store
                .holds
                .settle(&open.hold, charge, why.at, &actor, Some(&why));
            settled.await
        }
        None => {
            store
                .holds
                .release(&open.hold, why.at, &actor, Some(&why))
                .await
        }
    };
    let resolution = resolution.map_err(|source| Error::Unknown {
        advice: "repeat it: a hold ends once".to_owned(),
        source,
    })?;
    match resolution {
        Resolution::Done(state) => Answer::of(&Resolved {
            account_id: id,
            call_id: call.clone(),
            held,
            charged: state.charged(),
            reason: reason.to_owned(),
            actor,
        }),
        Resolution::Already(Some(state)) => Err(ended(call, state, " at this moment")),
        Resolution::Already(None) => Err(Error::refused("the hold is gone")),
    }
}

/// What whoever confirms should know.
fn facts(session: &Session<'_, '_>, open: &OpenHold) -> Fields {
    let now = session.clock.now();
    let fields = Fields::new("account", &open.hold.account)
        .and("call", &open.hold.call)
        .and("model", &open.hold.model)
        .and("taken", time(open.created_at))
        .and("next check", time(open.next_check_at))
        .and(
            "provider's id",
            or_dash(open.generation_id.clone(), |id| id),
        );
    // A call that knows that it cannot end its hold has it checked at once.
    let may_run = now < open.next_check_at && now.duration_since(open.created_at) < FIRST_CHECK;
    if may_run {
        fields.and("attention", "the call may still be running")
    } else {
        fields
    }
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
