//! The charge worker: batches of due accounts from the queue.

use std::collections::BTreeSet;

use account::AccountId;
use charging::ChargeReport;
use futures_util::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::deps::Deps;

const CONCURRENT_ACCOUNTS: usize = 8;

/// Messages of the queue, as Lambda receives them
/// (<https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html>).
#[derive(Debug, Deserialize)]
pub struct Batch {
    #[serde(rename = "Records")]
    records: Vec<Record>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    message_id: String,
    body: String,
    attributes: Attributes,
}

#[derive(Debug, Deserialize)]
struct Attributes {
    /// Milliseconds since 1970.
    #[serde(rename = "SentTimestamp")]
    sent: String,
}

/// The body of a message.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Message {
    /// The time of the tick that found the accounts due.
    pub(crate) time: Timestamp,
    pub(crate) account_ids: Vec<AccountId>,
}

impl Record {
    /// The accounts, and the charge time: the tick's plus the whole minutes that the message
    /// waited. `None` if the message cannot be read.
    fn read(&self, now: Timestamp) -> Option<(Vec<AccountId>, Timestamp)> {
        let message: Message = serde_json::from_str(&self.body).ok()?;
        let sent = Timestamp::from_millisecond(self.attributes.sent.parse().ok()?).ok()?;
        let waited = now.duration_since(sent).as_mins().max(0);
        let time = message.time.saturating_add(SignedDuration::from_mins(waited));
        Some((message.account_ids, time.unwrap_or(message.time)))
    }
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

impl BatchAnswer {
    /// Whether the message stays in the queue.
    pub fn keeps(&self, message_id: &str) -> bool {
        self.failures.iter().any(|failure| failure.message_id == message_id)
    }
}

/// Works through a batch: all its accounts, even if one of them fails. A message stays in the queue
/// if it cannot be read, or if one of its accounts failed; accounts that are done are not charged
/// again.
pub async fn work(deps: &Deps, batch: Batch) -> (BatchAnswer, ChargeReport) {
    let now = deps.clock.now();
    let (mut accounts, mut failed) = (Vec::new(), BTreeSet::new());
    for (at, record) in batch.records.iter().enumerate() {
        let Some((named, time)) = record.read(now) else {
            let message_id = record.message_id.as_str();
            tracing::error!(message_id, "could not read a message of the queue");
            failed.insert(at);
            continue;
        };
        accounts.extend(named.into_iter().map(|account| (at, account, time)));
    }
    let works = accounts.into_iter().map(async |(at, account, time)| {
        let report = charging::run_due(deps.charging.at(time), &account).await;
        (at, report)
    });
    let mut works = stream::iter(works).buffer_unordered(CONCURRENT_ACCOUNTS);
    let mut sum = ChargeReport::default();
    while let Some((at, report)) = works.next().await {
        match report {
            Ok(report) => sum += report,
            Err(error) => {
                edge::log_error(&error, "a due account was not charged");
                failed.insert(at);
            }
        }
    }
    let records = batch.records.into_iter().enumerate();
    let failures = records
        .filter(|(at, _)| failed.contains(at))
        .map(|(_, record)| Failure { message_id: record.message_id });
    let answer = BatchAnswer { failures: failures.collect() };
    (answer, sum)
}
