//! What the scheduler asks for.

use jiff::Timestamp;
use serde_json::Value;
use store::Segment;

/// Which accounts to look at, and when "now" is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) time: Option<Timestamp>,
    pub(crate) segment: Segment,
}

/// Why an event is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    #[error(
        "the event must be an object, with `time`, `segment` and `segments` where they are needed"
    )]
    NoObject,
    #[error("the event's `time` must be an RFC 3339 time")]
    Time,
    #[error(
        "the event's `segment` and `segments` must come together: `segments` from 1 to 1000000, \
         `segment` from 0 to one less"
    )]
    Segment,
    #[error("the answer cannot be written")]
    Answer(#[from] serde_json::Error),
}

/// More of them DynamoDB does not allow.
const MOST_SEGMENTS: i32 = 1_000_000;

impl Asked {
    /// Reads our own event, or EventBridge's envelope, where the segment is in `detail`.
    pub(crate) fn parse(event: &Value) -> Result<Self, EventError> {
        let event = event.as_object().ok_or(EventError::NoObject)?;
        let time = match event.get("time") {
            None => None,
            Some(time) => {
                let time = time.as_str().and_then(|time| time.parse().ok());
                Some(time.ok_or(EventError::Time)?)
            }
        };
        let place = match event.get("detail") {
            None => event,
            Some(detail) => detail.as_object().ok_or(EventError::NoObject)?,
        };
        let segment = match (place.get("segment"), place.get("segments")) {
            (None, None) => Segment::ALL,
            (Some(index), Some(of)) => segment(index, of).ok_or(EventError::Segment)?,
            // One without the other would leave accounts out that nobody else looks at.
            _ => return Err(EventError::Segment),
        };
        Ok(Self { time, segment })
    }
}

fn segment(index: &Value, of: &Value) -> Option<Segment> {
    let whole = |value: &Value| i32::try_from(value.as_i64()?).ok();
    let (index, of) = (whole(index)?, whole(of)?);
    let fits = (1..=MOST_SEGMENTS).contains(&of) && (0..of).contains(&index);
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
            let asked = Asked::parse(&event).unwrap();
            assert_eq!((asked.time, asked.segment), (time, segment), "{event}");
        }
    }

    #[test]
    fn what_would_leave_accounts_out_is_refused() {
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
            assert!(Asked::parse(&event).is_err(), "{event}");
        }
    }
}
