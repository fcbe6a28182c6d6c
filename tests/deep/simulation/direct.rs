//! DynamoDB without a connection, for runs with many requests and no retries.

use std::fmt;

use dynoxide::actions::transact_write_items::TransactWriteItemsRequest;
use dynoxide::{Database, DynoxideError};
use local::engines::Engines;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Direct(Database);

impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Direct").finish_non_exhaustive()
    }
}

impl Direct {
    pub(crate) fn to(engines: &Engines) -> Self {
        Self(engines.database().clone())
    }

    /// The status and body of the response to `operation`, for example `GetItem`. `None` for rare
    /// operations: they go over the wire.
    pub(crate) fn answer(&self, operation: &str, body: &[u8]) -> Option<(u16, String)> {
        let database = &self.0;
        let answer = match operation {
            "GetItem" => run(body, |request| database.get_item(request)),
            "PutItem" => run(body, |request| database.put_item(request)),
            "UpdateItem" => run(body, |request| database.update_item(request)),
            "DeleteItem" => run(body, |request| database.delete_item(request)),
            "Query" => run(body, |request| database.query(request)),
            "TransactWriteItems" => run(body, |mut request: TransactWriteItemsRequest| {
                // Searching for an earlier use would take long, and there are no retries.
                request.client_request_token = None;
                database.transact_write_items(request)
            }),
            _ => return None,
        };
        Some(match answer {
            Ok(body) => (200, body),
            Err(error) => (error.status_code(), error.to_json()),
        })
    }
}

fn run<Q: DeserializeOwned, A: Serialize>(
    body: &[u8],
    answer: impl FnOnce(Q) -> dynoxide::Result<A>,
) -> dynoxide::Result<String> {
    let unreadable =
        |error: serde_json::Error| DynoxideError::SerializationException(error.to_string());
    let answer = answer(serde_json::from_slice(body).map_err(unreadable)?)?;
    serde_json::to_string(&answer).map_err(unreadable)
}
