//! How often something is done by all processes together.
//!
//! What is done of one kind has slots, an interval apart. The item of the kind says when its next slot is
//! free (the generic cell rate algorithm's "theoretical arrival time", without a burst), and slots are
//! reserved by moving that on. A slot that nobody uses is lost.

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{ReturnValue, ReturnValuesOnConditionCheckFailure};
use jiff::{SignedDuration, Timestamp};

use crate::item::{Attributes, Item, key, number};
use crate::retry::{TRIES, pause};
use crate::{Store, StoreError};

const WHAT: &str = "pace";

/// So many slots a second, and how far ahead they are reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Between two slots, in microseconds.
    interval: i64,
    /// To the first slot of a reservation, in microseconds.
    longest_wait: i64,
}

/// Where a reservation comes to be. Times are in microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nobody waits: from now on.
    Now,
    /// Behind those who wait.
    Behind,
    /// So many microseconds ahead: too far.
    TooFar(i64),
}

impl Pace {
    /// `a_second` is at least 1 and at most a million.
    pub fn new(a_second: u32, longest_wait: SignedDuration) -> Self {
        Self {
            interval: i64::from(1_000_000_u32.div_ceil(a_second.max(1))),
            longest_wait: micros(longest_wait),
        }
    }

    /// Where a reservation at `now` comes to be if the next slot is free at `free_at`.
    fn place(self, free_at: Option<i64>, now: i64) -> Place {
        match free_at {
            Some(free_at) if free_at > now.saturating_add(self.longest_wait) => {
                Place::TooFar(free_at.saturating_sub(now))
            }
            Some(free_at) if free_at >= now => Place::Behind,
            _ => Place::Now,
        }
    }

    /// How long so many slots take.
    fn length(self, slots: u32) -> i64 {
        self.interval.saturating_mul(i64::from(slots))
    }

    fn slots(self, first: i64, slots: u32) -> Vec<Timestamp> {
        let times = (0..slots).map(|slot| first.saturating_add(self.length(slot)));
        times
            .filter_map(|time| Timestamp::from_microsecond(time).ok())
            .collect()
    }
}

fn micros(time: SignedDuration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

impl Store {
    /// Reserves so many slots for what is called `kind`, the first free ones from `now` on: their times.
    /// `Err` with the time until the next one is free, if that is too far.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer: slots may be lost then.
    pub async fn reserve_slots(
        &self,
        kind: &str,
        slots: u32,
        pace: Pace,
        now: Timestamp,
    ) -> Result<Result<Vec<Timestamp>, SignedDuration>, StoreError> {
        let now = now.as_microsecond();
        let mut next = Place::Behind;
        for tried in 0..TRIES {
            let moved = match next {
                Place::TooFar(wait) => return Ok(Err(SignedDuration::from_micros(wait))),
                Place::Behind => self.move_on(kind, slots, pace, now).await?,
                Place::Now => self.begin(kind, slots, pace, now).await?,
            };
            match moved {
                Ok(first) => return Ok(Ok(pace.slots(first, slots))),
                Err(free_at) => next = pace.place(free_at, now),
            }
            if tried > 0 {
                pause(tried).await;
            }
        }
        Err(StoreError::Contended { operation: RESERVE })
    }

    /// The first slot behind those that are reserved; `Err` with the next free one, if there are none or
    /// too many.
    async fn move_on(
        &self,
        kind: &str,
        slots: u32,
        pace: Pace,
        now: i64,
    ) -> Result<Result<i64, Option<i64>>, StoreError> {
        let latest = now.saturating_add(pace.longest_wait);
        let sent = self
            .db
            .client
            .update_item()
            .table_name(&self.db.tables.charges)
            .set_key(Some(pace_key(kind)))
            .update_expression("SET free_at = free_at + :length")
            .condition_expression("free_at >= :now AND free_at <= :latest")
            .expression_attribute_values(":length", number(pace.length(slots)))
            .expression_attribute_values(":now", number(now))
            .expression_attribute_values(":latest", number(latest))
            .return_values(ReturnValue::UpdatedNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        match sent {
            Ok(output) => {
                let free_at: i64 = free_at(&output.attributes.unwrap_or_default())?;
                Ok(Ok(free_at.saturating_sub(pace.length(slots))))
            }
            Err(error) => refused(error).map(Err),
        }
    }

    /// The slots from `now` on; `Err` with the next free one, if others wait.
    async fn begin(
        &self,
        kind: &str,
        slots: u32,
        pace: Pace,
        now: i64,
    ) -> Result<Result<i64, Option<i64>>, StoreError> {
        let sent = self
            .db
            .client
            .update_item()
            .table_name(&self.db.tables.charges)
            .set_key(Some(pace_key(kind)))
            .update_expression("SET free_at = :end")
            .condition_expression("attribute_not_exists(free_at) OR free_at < :now")
            .expression_attribute_values(":end", number(now.saturating_add(pace.length(slots))))
            .expression_attribute_values(":now", number(now))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        match sent {
            Ok(_) => Ok(Ok(now)),
            Err(error) => refused(error).map(Err),
        }
    }
}

const RESERVE: &str = "reserve slots";

/// When the next slot is free, as a condition that failed tells.
fn refused(error: SdkError<UpdateItemError>) -> Result<Option<i64>, StoreError> {
    match error.as_service_error() {
        Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
            failed.item().map(free_at).transpose()
        }
        _ => Err(StoreError::unavailable(RESERVE, error)),
    }
}

fn free_at(item: &Item) -> Result<i64, StoreError> {
    Attributes::of(WHAT, item).get("free_at")
}

fn pace_key(kind: &str) -> Item {
    let name = format!("rate#{kind}");
    key([("account_number", &name), ("charge", WHAT)])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn a_reservation_comes_behind_those_before_it() {
        let pace = Pace::new(20, SignedDuration::from_secs(30));
        let now = 1_000 * SECOND;
        let table = [
            (None, Place::Now),
            (Some(0), Place::Now),
            (Some(now - 1), Place::Now),
            (Some(now), Place::Behind),
            (Some(now + 30 * SECOND), Place::Behind),
            (Some(now + 30 * SECOND + 1), Place::TooFar(30 * SECOND + 1)),
        ];
        for (free_at, place) in table {
            assert_eq!(pace.place(free_at, now), place, "{free_at:?}");
        }
    }

    #[test]
    fn the_interval_is_rounded_up() {
        let interval = |a_second| Pace::new(a_second, SignedDuration::ZERO).interval;
        assert_eq!(interval(20), 50_000);
        assert_eq!(interval(3), 333_334);
        assert_eq!(interval(1_000_000), 1);
    }

    proptest! {
        /// Whoever reserves, whenever, and with whatever clock: two slots are an interval apart, so that
        /// a span of time has one more than fits into it, at most.
        #[test]
        fn slots_are_an_interval_apart(
            a_second in 1_u32..2_000,
            reservations in prop::collection::vec((0_i64..3 * SECOND, -SECOND..SECOND, 1_u32..6), 1..200),
            span in 1_i64..5 * SECOND,
        ) {
            let longest = SignedDuration::from_secs(30);
            let pace = Pace::new(a_second, longest);
            let (mut now, mut free_at) = (1_000 * SECOND, None);
            let mut slots = Vec::new();
            for (passed, skew, wanted) in reservations {
                now += passed / 100;
                let theirs = now + skew;
                let first = match pace.place(free_at, theirs) {
                    Place::Now => theirs,
                    Place::Behind => free_at.unwrap(),
                    Place::TooFar(wait) => {
                        prop_assert!(wait > micros(longest));
                        continue;
                    }
                };
                prop_assert!(first >= theirs && first <= theirs + micros(longest));
                free_at = Some(first + pace.length(wanted));
                let times = pace.slots(first, wanted);
                slots.extend(times.iter().map(|time| time.as_microsecond()));
            }
            for pair in slots.windows(2) {
                prop_assert!(pair[1] - pair[0] >= pace.interval);
            }
            let fits = span * i64::from(a_second) / SECOND;
            for (at, first) in slots.iter().enumerate() {
                let within = slots[at..].iter().take_while(|slot| **slot < first + span);
                prop_assert!(i64::try_from(within.count()).unwrap() <= fits + 1);
            }
        }
    }
}
