//! `gretactl webhooks`.

use std::fmt::{self, Display};

use jiff::Timestamp;
use serde::Serialize;
use store::{EventState, Recorded};

use crate::cli::WebhooksCommand;
use crate::error::Error;
use crate::output::{Answer, Fields, Table, name_of, or_dash, time};
use crate::session::Session;

pub(crate) async fn carry_out(
    session: &mut Session<'_, '_>,
    command: WebhooksCommand,
) -> Result<Answer, Error> {
    match command {
        WebhooksCommand::List => list(session).await,
        WebhooksCommand::Replay { event_id } => replay(session, &event_id).await,
    }
}

#[derive(Serialize)]
struct Listed {
    events: Vec<EventFacts>,
}

#[derive(Serialize)]
struct EventFacts {
    event_id: String,
    #[serde(rename = "type")]
    kind: String,
    state: EventState,
    reason: Option<String>,
    received_at: Timestamp,
    tries: u32,
}

impl From<Recorded> for EventFacts {
    fn from(event: Recorded) -> Self {
        Self {
            event_id: event.id,
            kind: event.kind,
            state: event.state,
            reason: event.reason,
            received_at: event.received_at,
            tries: event.tries,
        }
    }
}

impl Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.events.is_empty() {
            return writeln!(f, "all events that were received are applied");
        }
        let mut table = Table::new(["event", "type", "received", "tries", "why not applied"]);
        for event in &self.events {
            table.push([
                event.event_id.clone(),
                event.kind.clone(),
                time(event.received_at),
                event.tries.to_string(),
                or_dash(event.reason.clone(), |reason| reason),
            ]);
        }
        write!(f, "{table}")
    }
}

async fn list(session: &Session<'_, '_>) -> Result<Answer, Error> {
    let mut events = Vec::new();
    for shard in store::shards() {
        for event in session.store.inbox.pending(shard).await? {
            events.push(EventFacts::from(event));
        }
    }
    events.sort_by_key(|event| event.received_at);
    Answer::of(&Listed { events })
}

#[derive(Serialize)]
struct Replayed {
    event: EventFacts,
    actor: String,
}

impl Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = Fields::new("event", &self.event.event_id)
            .and("type", &self.event.kind)
            .and("was", name_of(&self.event.state))
            .and("by", &self.actor);
        write!(f, "the next billing tick applies it\n\n{fields}")
    }
}

/// Has the next billing tick apply the event, whatever became of it before.
async fn replay(session: &mut Session<'_, '_>, id: &str) -> Result<Answer, Error> {
    let actor = session.actor()?;
    let Some(event) = session.store.inbox.get(id).await? else {
        return Err(Error::refused(format!("no event {id} was received")));
    };
    let facts = Fields::new("event", &event.id)
        .and("type", &event.kind)
        .and("state", name_of(&event.state))
        .and("received", time(event.received_at))
        .and("reason", or_dash(event.reason.clone(), |reason| reason));
    session.confirm("The event is applied again; it may move money.", facts)?;
    let now = session.clock.now();
    let replayed = session.store.inbox.replay(id, &actor, now).await;
    replayed.map_err(|source| Error::Unknown {
        advice: "look at `gretactl webhooks list`".to_owned(),
        source,
    })?;
    Answer::of(&Replayed {
        event: event.into(),
        actor,
    })
}
