//! DynamoDB's wire protocol in front of the embedded database.

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use dynoxide::{Database, DynoxideError};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

/// DynamoDB's own limit, in bytes.
const MAX_BODY: usize = 16 * 1024 * 1024;
const AMZ_JSON: &str = "application/x-amz-json-1.0";

pub(super) fn router(database: Database) -> Router {
    Router::new()
        .route("/", post(respond))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(database)
}

async fn respond(State(database): State<Database>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    let operation = target.and_then(|target| target.strip_prefix("DynamoDB_20120810."));
    let (status, body) = answer(&database, operation.unwrap_or_default(), &body);
    let status = StatusCode::from_u16(status).expect("a valid status");
    (status, [(CONTENT_TYPE, AMZ_JSON)], body).into_response()
}

/// The status and body of the response to `operation`, for example `GetItem`.
pub fn answer(database: &Database, operation: &str, body: &[u8]) -> (u16, String) {
    macro_rules! operations {
        ($($name:literal: $method:ident,)*) => {
            match operation {
                $($name => run(body, |request| database.$method(request)),)*
                _ => {
                    let kind = "com.amazon.coral.service#UnknownOperationException";
                    return (400, json!({"__type": kind}).to_string());
                }
            }
        };
    }
    operations! {
        "BatchGetItem": batch_get_item,
        "BatchWriteItem": batch_write_item,
        "CreateTable": create_table,
        "DeleteItem": delete_item,
        "DescribeTable": describe_table,
        "DescribeTimeToLive": describe_time_to_live,
        "GetItem": get_item,
        "ListTables": list_tables,
        "PutItem": put_item,
        "Query": query,
        "Scan": scan,
        "TransactGetItems": transact_get_items,
        "TransactWriteItems": transact_write_items,
        "UpdateItem": update_item,
    }
}

/// Parses `body`, runs `execute`, and serializes the result.
pub fn run<Q: DeserializeOwned, A: Serialize>(
    body: &[u8],
    execute: impl FnOnce(Q) -> dynoxide::Result<A>,
) -> (u16, String) {
    let unreadable =
        |error: serde_json::Error| DynoxideError::SerializationException(error.to_string());
    let request = serde_json::from_slice(body).map_err(unreadable);
    let answer = request.and_then(execute);
    match answer.and_then(|answer| serde_json::to_string(&answer).map_err(unreadable)) {
        Ok(body) => (200, body),
        Err(error) => (error.status_code(), error.to_json()),
    }
}
