//! `gretactl webhooks`.

use serde_json::{Value, json};
use store::Recorded;

use crate::error::Error;
use crate::output::{Fields, Report, table};
use crate::session::Session;

fn event_json(event: &Recorded) -> Value {
    json!({
        "event_id": event.id,
        "type": event.kind,
        "state": event.state,
        "reason": event.reason,
        "received_at": event.received_at,
        "tries": event.tries,
    })
}

pub(crate) async fn list(session: &Session<'_, '_>) -> Result<Report, Error> {
    let mut events = Vec::new();
    for shard in store::shards() {
        events.extend(session.store.inbox.pending(shard).await?);
    }
    events.sort_by_key(|event| event.received_at);
    let events: Vec<Value> = events.iter().map(event_json).collect();
    let text = if events.is_empty() {
        "all events that were received are applied".to_owned()
    } else {
        table(["event_id", "type", "received_at", "tries", "reason"], &events)
    };
    Ok(Report::new(json!({ "events": events }), text))
}

/// Has the next billing tick apply the event, whatever its state.
pub(crate) async fn replay(session: &mut Session<'_, '_>, id: &str) -> Result<Report, Error> {
    let actor = session.actor()?;
    let Some(event) = session.store.inbox.get(id).await? else {
        return Err(Error::refused(format!("no event {id} was received")));
    };
    let fields = Fields::default().members("", &event_json(&event));
    session.confirm("The event is applied again; it may move money.", fields)?;
    let now = session.clock.now();
    let replayed = session.store.inbox.replay(id, &actor, now).await;
    replayed.map_err(Error::unknown("see `gretactl webhooks list`"))?;
    let json = json!({"event": event_json(&event), "actor": actor});
    let was = json["event"]["state"].as_str().unwrap_or_default().to_owned();
    Ok(Report::change(json, format!("the next billing tick applies it; it was {was}")))
}
