//! The events of the bus. `docs/events/account-events.schema.json` describes them for senders; a
//! test keeps the two in step.

use account::{AccountId, Plan};
use jiff::Timestamp;
use serde_json::Value;
use store::HistoryEntry;

/// The highest integer that every JSON parser reads exactly.
const MAX_VERSION: u64 = 9_007_199_254_740_991;

/// A change of an account in Greta's core system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountEvent {
    pub account: AccountId,
    /// Grows with every event of the account: the highest one counts.
    pub version: u64,
    /// The time of the change.
    pub at: Timestamp,
    pub change: AccountChange,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountChange {
    /// The account exists and has this plan.
    Upserted(Plan),
    Deleted,
}

/// A field of the event that is missing or malformed. Its value is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the event's `{field}` must be {must_be}")]
pub struct Malformed {
    field: &'static str,
    must_be: &'static str,
}

impl AccountEvent {
    /// Reads an event in EventBridge's envelope, ignoring fields that are not needed. The error
    /// names the first malformed field.
    pub fn parse(event: &Value) -> Result<Self, Malformed> {
        let is_upserted =
            required(event, "detail-type", EVENTS, |value| match value.as_str()? {
                "account.upserted" => Some(true),
                "account.deleted" => Some(false),
                _ => None,
            })?;
        Ok(Self {
            at: required(event, "time", "an RFC 3339 time", time)?,
            account: required(event, "detail.account_id", ACCOUNT, account)?,
            version: required(event, "detail.version", VERSION, version)?,
            change: if is_upserted {
                AccountChange::Upserted(required(event, "detail.plan", PLANS, plan)?)
            } else {
                AccountChange::Deleted
            },
        })
    }

    /// This event in the account's history. Its id makes repeated writes one entry.
    pub(crate) fn history_entry(&self, at: Timestamp, what: String) -> HistoryEntry {
        let change = match self.change {
            AccountChange::Upserted(_) => "upserted",
            AccountChange::Deleted => "deleted",
        };
        HistoryEntry {
            id: format!("{change}-{}", self.version),
            at,
            actor: "account-events".to_owned(),
            what,
        }
    }
}

const EVENTS: &str = "`account.upserted` or `account.deleted`";
const ACCOUNT: &str = "an account id: 1 to 64 letters, digits, `_` or `-`";
const VERSION: &str = "a whole number from 0 to 9007199254740991";
const PLANS: &str = "`standard` or `enterprise`";

fn required<T>(
    event: &Value,
    field: &'static str,
    must_be: &'static str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<T, Malformed> {
    let value = field.split('.').try_fold(event, |value, name| value.get(name));
    value.and_then(read).ok_or(Malformed { field, must_be })
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

fn account(value: &Value) -> Option<AccountId> {
    AccountId::new(value.as_str()?).ok()
}

fn plan(value: &Value) -> Option<Plan> {
    match value.as_str()? {
        "standard" => Some(Plan::Standard),
        "enterprise" => Some(Plan::Enterprise),
        _ => None,
    }
}

fn version(value: &Value) -> Option<u64> {
    let number = value.as_number()?.to_string();
    // In JSON, 7.0 is the same number as 7, and some senders write it so.
    let whole = number.strip_suffix(".0").unwrap_or(&number);
    let version = whole.parse().ok()?;
    (version <= MAX_VERSION).then_some(version)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn upserted() -> Value {
        json!({
            "version": "0",
            "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
            "detail-type": "account.upserted",
            "source": "greta.accounts",
            "account": "111122223333",
            "time": "2026-11-23T10:00:00Z",
            "region": "eu-central-1",
            "resources": [],
            "detail": {"account_id": "acme", "plan": "enterprise", "version": 7, "country": "AT"},
        })
    }

    #[test]
    fn both_kinds_of_events_are_read() {
        let mut event = upserted();
        let mut expected = AccountEvent {
            account: AccountId::new("acme").unwrap(),
            version: 7,
            at: "2026-11-23T10:00:00Z".parse().unwrap(),
            change: AccountChange::Upserted(Plan::Enterprise),
        };
        assert_eq!(AccountEvent::parse(&event), Ok(expected.clone()));
        event["detail-type"] = json!("account.deleted");
        expected.change = AccountChange::Deleted;
        assert_eq!(AccountEvent::parse(&event), Ok(expected.clone()));
        event["detail"] = json!({"account_id": "acme", "version": 7.0});
        assert_eq!(AccountEvent::parse(&event), Ok(expected));
    }

    #[test]
    fn a_malformed_field_is_named() {
        let table = [
            ("/detail-type", json!("account.merged"), "`detail-type` must be `account.upserted`"),
            ("/detail-type", json!(null), "`detail-type`"),
            ("/time", json!("yesterday"), "`time` must be an RFC 3339 time"),
            ("/detail", json!([]), "`detail.account_id`"),
            ("/detail/account_id", json!("a/b"), "`detail.account_id` must be an account id"),
            ("/detail/version", json!("7"), "`detail.version` must be a whole number"),
            ("/detail/version", json!(-1), "`detail.version`"),
            ("/detail/version", json!(7.5), "`detail.version`"),
            ("/detail/version", json!(MAX_VERSION + 1), "`detail.version`"),
            ("/detail/plan", json!("Enterprise"), "`detail.plan` must be `standard` or"),
        ];
        for (at, value, expected) in table {
            let mut event = upserted();
            *event.pointer_mut(at).unwrap() = value;
            let error = AccountEvent::parse(&event).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        for event in [json!(null), json!("account.upserted"), json!({})] {
            assert!(AccountEvent::parse(&event).is_err());
        }
    }
}
