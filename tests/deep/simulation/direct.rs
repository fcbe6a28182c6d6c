//! DynamoDB without a connection, for runs with many requests and no retries.

use std::fmt;

use dynoxide::Database;
use dynoxide::actions::transact_write_items::TransactWriteItemsRequest;
use local::engines::{Engines, dynamodb};

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

    /// The status and body of the response to `operation`, for example `GetItem`.
    pub(crate) fn answer(&self, operation: &str, body: &[u8]) -> (u16, String) {
        if operation != "TransactWriteItems" {
            return dynamodb::answer(&self.0, operation, body);
        }
        dynamodb::run(body, |mut request: TransactWriteItemsRequest| {
            // Searching for an earlier use would take long, and there are no retries.
            request.client_request_token = None;
            self.0.transact_write_items(request)
        })
    }
}
