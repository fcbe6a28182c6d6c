//! The charge worker: batches of due accounts from the queue.

use std::collections::BTreeSet;

use account::AccountId;
use charging::ChargeReport;
use futures_util::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Deps;

/// Accounts report off at once.
const AT_ONCE: usize = 8;

/// Messages of the queue, in the form in which Lambda is given them
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
    /// That of the tick which found the accounts due.
    pub(crate) time: Timestamp,
    pub(crate) account_ids: Vec<AccountId>,
}

impl Record {
    /// The accounts, and the time to work at: the tick's, and as long after it as the message waited, in
    /// whole minutes. `None` if the message cannot be read.
    fn read(&self, now: Timestamp) -> Option<(Vec<AccountId>, Timestamp)> {
        let message: Message = serde_json::from_str(&self.body).ok()?;
        let sent = Timestamp::from_millisecond(self.attributes.sent.parse().ok()?).ok()?;
        let waited = now.duration_since(sent).as_mins().max(0);
        let time = message
            .time
            .saturating_add(SignedDuration::from_mins(waited));
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
    /// Does the message stay in the queue?
    pub fn keeps(&self, message_id: &str) -> bool {
        self.failures
            .iter()
            .any(|failure| failure.message_id == message_id)
    }
}

/// Works a batch off: all its accounts, whatever becomes of one of them. A message stays in the queue
/// if it cannot be read, or if some account of it failed; what is done is not done again then.
pub async fn work(deps: &Deps, batch: Batch) -> (BatchAnswer, ChargeReport) {
    let now = deps.clock.now();
    let (mut accounts, mut failed) = (Vec::new(), BTreeSet::new());
    for (at, record) in batch.records.iter().enumerate() {
        let Some((named, time)) = record.read(now) else {
            let message = record.message_id.as_str();
            tracing::error!(message, "a message of the queue cannot be read");
            failed.insert(at);
            continue;
        };
        accounts.extend(named.into_iter().map(|account| (at, account, time)));
    }
    let works = accounts.into_iter().map(async |(at, account, time)| {
        let report = charging::run_due(deps.charging.at(time), &account).await;
        (at, report)
    });
    let mut works = stream::iter(works).buffer_unordered(AT_ONCE);
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
        .map(|(_, record)| Failure {
            message_id: record.message_id,
        });
    let answer = BatchAnswer {
        failures: failures.collect(),
    };
    (answer, sum)
}
