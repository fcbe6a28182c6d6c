//! The scheduler's event.

use jiff::Timestamp;
use serde_json::Value;
use store::Segment;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunRequest {
    /// The time to reconcile for; by default, the clock's.
    pub(crate) time: Option<Timestamp>,
    /// The accounts to check.
    pub(crate) segment: Segment,
}

#[derive(Debug, thiserror::Error)]
pub enum EventError {
    #[error(
        "the event must be an object, with `time`, `segment` and `segments` where they are needed"
    )]
    NotAnObject,
    #[error("the event's `time` must be an RFC 3339 time")]
    Time,
    #[error(
        "the event's `segment` and `segments` must come together: `segments` from 1 to 1000000, \
         `segment` from 0 to one less"
    )]
    Segment,
    #[error("could not write the report")]
    Report(#[from] serde_json::Error),
}

/// DynamoDB's own limit.
const MAX_SEGMENTS: i32 = 1_000_000;

impl RunRequest {
    /// Reads our own event, or EventBridge's envelope with the segment in `detail`.
    pub(crate) fn parse(event: &Value) -> Result<Self, EventError> {
        let event = event.as_object().ok_or(EventError::NotAnObject)?;
        let time = match event.get("time") {
            None => None,
            Some(time) => {
                let time = time.as_str().and_then(|time| time.parse().ok());
                Some(time.ok_or(EventError::Time)?)
            }
        };
        let fields = match event.get("detail") {
            None => event,
            Some(detail) => detail.as_object().ok_or(EventError::NotAnObject)?,
        };
        let segment = match (fields.get("segment"), fields.get("segments")) {
            (None, None) => Segment::ALL,
            (Some(index), Some(of)) => segment(index, of).ok_or(EventError::Segment)?,
            // One without the other would skip accounts that no other run checks.
            _ => return Err(EventError::Segment),
        };
        Ok(Self { time, segment })
    }
}

fn segment(index: &Value, of: &Value) -> Option<Segment> {
    let whole = |value: &Value| i32::try_from(value.as_i64()?).ok();
    let (index, of) = (whole(index)?, whole(of)?);
    let fits = (1..=MAX_SEGMENTS).contains(&of) && (0..of).contains(&index);
    fits.then_some(Segment { index, of })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn our_own_event_and_the_envelope_are_read() {
        let noon = Some("2026-11-23T12:00:00Z".parse().unwrap());
        let second = Segment { index: 1, of: 4 };
        let table = [
            (json!({}), None, Segment::ALL),
            (json!({"time": "2026-11-23T12:00:00Z"}), noon, Segment::ALL),
            (json!({"segment": 1, "segments": 4}), None, second),
            (
                json!({"version": "0", "time": "2026-11-23T12:00:00Z", "detail": {}}),
                noon,
                Segment::ALL,
            ),
            (
                json!({"time": "2026-11-23T13:00:00+01:00", "detail": {"segment": 1, "segments": 4}}),
                noon,
                second,
            ),
        ];
        for (event, time, segment) in table {
            let request = RunRequest::parse(&event).unwrap();
            assert_eq!((request.time, request.segment), (time, segment), "{event}");
        }
    }

    #[test]
    fn events_that_would_skip_accounts_are_refused() {
        for event in [
            json!({"segment": 0}),
            json!({"segments": 4}),
            json!({"segment": 4, "segments": 4}),
            json!({"segment": -1, "segments": 4}),
            json!({"segment": 0, "segments": 0}),
            json!({"segment": 0, "segments": 1_000_001}),
            json!({"segment": "0", "segments": "1"}),
            json!({"detail": {"segments": 2}}),
            json!({"detail": null}),
            json!({"time": "now"}),
            json!({"time": null}),
            json!(null),
        ] {
            assert!(RunRequest::parse(&event).is_err(), "{event}");
        }
    }
}
