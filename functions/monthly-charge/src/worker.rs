//! The charge worker: batches of due accounts from the queue.

use account::AccountId;
use serde::{Deserialize, Serialize};

use crate::Deps;

/// A message of the queue: `{"account_id": …}` as its body.
#[derive(Debug, Deserialize)]
pub struct Record {
    #[serde(rename = "messageId")]
    message_id: String,
    body: String,
}

/// Partial batch failures: the messages that stay in the queue.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct BatchAnswer {
    #[serde(rename = "batchItemFailures")]
    failures: Vec<Failure>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Failure {
    #[serde(rename = "itemIdentifier")]
    message_id: String,
}

/// Works a batch off.
pub async fn work(deps: &Deps, records: Vec<Record>) -> BatchAnswer {
    let mut answer = BatchAnswer::default();
    for record in records {
        if !settle(deps, &record).await {
            answer.failures.push(Failure {
                message_id: record.message_id,
            });
        }
    }
    answer
}

/// True if nothing is left to do for the message's account.
async fn settle(deps: &Deps, record: &Record) -> bool {
    #[derive(Deserialize)]
    struct Message {
        account_id: AccountId,
    }
    let message: Message = match serde_json::from_str(&record.body) {
        Ok(message) => message,
        Err(error) => {
            edge::log_error(&error, "a message names no account");
            return false;
        }
    };
    match deps
        .charging
        .work(&message.account_id, deps.clock.now())
        .await
    {
        Ok(_) => true,
        Err(error) => {
            edge::log_error(&error, "a due account was not charged");
            false
        }
    }
}
