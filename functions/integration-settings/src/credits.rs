//! The account's credits: the balance, the ledger, and the daily spending.

use std::collections::HashMap;

use account::{CallId, Credits, EntryId};
use axum::Json;
use axum::extract::{Query, State};
use edge::{ApiError, Caller, Code};
use http::Uri;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::Serialize;
use store::EntryKind;

use crate::cursor;
use crate::deps::Deps;

#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Serialize)]
pub(crate) struct Balance {
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    available: Credits,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    held: Credits,
    #[serde(rename = "balance")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    total: Credits,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    owed: Credits,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    minimum: Credits,
}

/// Reads the balance of credits.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/v1/credits", tag = "credits", operation_id = "read_credits",
    responses((status = 200, description = "The balance", body = Balance), edge::openapi::ReadProblems),
))]
pub(crate) async fn read(
    State(deps): State<Deps>,
    caller: Caller,
) -> Result<Json<Balance>, ApiError> {
    let balance = deps.api.account(&caller.account).await?.balance;
    Ok(Json(Balance {
        available: balance.available(),
        held: balance.held(),
        total: balance.balance(),
        owed: balance.owed(),
        minimum: deps.api.settings.policy.minimum_balance,
    }))
}

#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Serialize)]
pub(crate) struct Ledger {
    entries: Vec<Entry>,
    next_cursor: Option<String>,
}

#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Serialize)]
struct Entry {
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    id: EntryId,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    at: Timestamp,
    kind: EntryKind,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    amount: Credits,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    balance_after: Credits,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    call_id: Option<CallId>,
    note: String,
}

/// Lists the movements of credits, newest first.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/v1/credits/ledger", tag = "credits", operation_id = "list_ledger_entries",
    params(
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("limit" = Option<u8>, Query, minimum = 1, maximum = 100, description = "Entries per page"),
    ),
    responses((status = 200, description = "A page of the ledger, newest first", body = Ledger), edge::openapi::ReadProblems),
))]
pub(crate) async fn ledger(
    State(deps): State<Deps>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Ledger>, ApiError> {
    let query = QueryParameters::parse(&uri)?;
    let limit = query.number("limit", 50, 100)?;
    let account = deps.api.account(&caller.account).await?;
    let cursor =
        match query.get("cursor") {
            None => None,
            Some(text) => Some(cursor::decode(&account.number, text).ok_or_else(|| {
                invalid("`cursor` is not from your ledger; start without a cursor")
            })?),
        };
    let limit = u8::try_from(limit).unwrap_or(u8::MAX);
    let page = deps.api.store.ledger.page(&account, cursor.as_ref(), limit);
    let page = page.await.map_err(|error| ApiError::storage(&error))?;
    let entries = page.entries.into_iter().map(|(entry, balance_after)| Entry {
        id: entry.id,
        at: entry.at,
        kind: entry.kind,
        amount: entry.amount,
        balance_after,
        call_id: entry.call_id,
        note: entry.note,
    });
    let next = page.next.map(|next| cursor::encode(&account.number, &next));
    Ok(Json(Ledger { entries: entries.collect(), next_cursor: next }))
}

#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Serialize)]
pub(crate) struct Daily {
    days: Vec<Day>,
}

#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Serialize)]
struct Day {
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    date: Date,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    spent: Credits,
    calls: u64,
}

/// Every UTC day of the range, oldest first, including those without calls.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/v1/credits/daily", tag = "credits", operation_id = "list_days",
    params(("days" = Option<u16>, Query, minimum = 1, maximum = 366, description = "Days to list")),
    responses((status = 200, description = "Credits spent per UTC day, oldest first", body = Daily), edge::openapi::ReadProblems),
))]
pub(crate) async fn daily(
    State(deps): State<Deps>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Daily>, ApiError> {
    let days = QueryParameters::parse(&uri)?.number("days", 30, 366)?;
    let account = deps.api.account(&caller.account).await?;
    let last = deps.api.clock.now().to_zoned(TimeZone::UTC).date();
    let first = last.saturating_sub((days - 1).days());
    let stored = deps.api.store.ledger.days(&account.number, first..=last).await;
    let stored = stored.map_err(|error| ApiError::storage(&error))?;
    let stored: HashMap<Date, store::Day> = stored.into_iter().map(|day| (day.date, day)).collect();
    let dates = first.series(1.day()).take_while(|date| *date <= last);
    let days = dates.map(|date| {
        let day = stored.get(&date);
        Day {
            date,
            spent: day.map(|day| day.spent).unwrap_or_default(),
            calls: day.map(|day| day.calls).unwrap_or_default(),
        }
    });
    Ok(Json(Daily { days: days.collect() }))
}

struct QueryParameters(HashMap<String, String>);

impl QueryParameters {
    fn parse(uri: &Uri) -> Result<Self, ApiError> {
        let query = Query::try_from_uri(uri);
        query
            .map(|Query(parameters)| Self(parameters))
            .map_err(|_| invalid("the query cannot be read; write it as name=value&name=value"))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A whole number from 1 to `max`.
    fn number(&self, name: &str, default: i64, max: i64) -> Result<i64, ApiError> {
        let Some(text) = self.get(name) else {
            return Ok(default);
        };
        let number = text.parse().ok().filter(|number| (1..=max).contains(number));
        number.ok_or_else(|| invalid(format!("`{name}` must be a whole number from 1 to {max}")))
    }
}

fn invalid(detail: impl Into<std::borrow::Cow<'static, str>>) -> ApiError {
    ApiError::new(Code::InvalidRequest, detail)
}
