//! The planner: puts due accounts into the queue, from which the worker takes them.
//!
//! The planner postpones an account's billing task before it queues the account. So only one of two
//! concurrent ticks queues it, and later ticks skip it while it waits. If its message is lost, the
//! task becomes due again.

use std::error::Error;

use account::AccountId;
use aws_sdk_sqs::types::{QueueAttributeName, SendMessageBatchRequestEntry};
use futures_util::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use store::{Due, DueKind, DueTask, StoreError};

use crate::deps::Deps;
use crate::worker::Message;

/// Maximum number of accounts queued in one tick and shard; more wait for the next tick.
const ACCOUNTS_PER_SHARD: usize = 1_000;
const CONCURRENT_CLAIMS: usize = 32;
const ACCOUNTS_PER_MESSAGE: usize = 25;
/// Maximum number of messages in one request to the queue.
const MESSAGES_PER_BATCH: usize = 10;
/// The time after which an account is queued again if no worker has changed it.
const REQUEUE_DELAY: SignedDuration = SignedDuration::from_mins(15);
/// Maximum length of the queue, in working time of the workers. Less than [`REQUEUE_DELAY`],
/// so that an account is not queued again while it waits.
const LONGEST_QUEUE: SignedDuration = SignedDuration::from_mins(10);

/// The results of planning.
#[derive(Debug, Default)]
pub(crate) struct Planned {
    /// Accounts put into the queue.
    pub(crate) queued: u32,
    /// Accounts that could not be claimed, and messages that were not accepted.
    pub(crate) errors: u32,
}

impl Planned {
    fn failed(&mut self, error: &(dyn Error + 'static), what: &str) {
        edge::log_error(error, what);
        self.errors += 1;
    }
}

/// Queues the accounts that are due at `now`.
pub(crate) async fn plan(deps: &Deps, now: Timestamp) -> Planned {
    let mut planned = Planned::default();
    let room = match room(deps).await {
        Ok(room) => room,
        Err(error) => {
            planned.failed(&*error, "could not read the queue's depth");
            return planned;
        }
    };
    // Each shard gets the same share, so that none waits behind another.
    let per_shard = (room / store::shards().len()).min(ACCOUNTS_PER_SHARD);
    if per_shard == 0 {
        tracing::warn!("the queue is full; due accounts wait for the next tick");
        return planned;
    }
    let per_shard = i32::try_from(per_shard).unwrap_or(i32::MAX);
    let mut waiting = Vec::new();
    for shard in store::shards() {
        waiting.extend(claim_due(deps, shard, per_shard, now, &mut planned).await);
        while waiting.len() >= ACCOUNTS_PER_MESSAGE * MESSAGES_PER_BATCH {
            let accounts = waiting.drain(..ACCOUNTS_PER_MESSAGE * MESSAGES_PER_BATCH);
            queue(deps, &accounts.collect::<Vec<_>>(), now, &mut planned).await;
        }
    }
    if !waiting.is_empty() {
        queue(deps, &waiting, now, &mut planned).await;
    }
    edge::metric("accounts_queued", u64::from(planned.queued));
    planned
}

/// The number of accounts that the queue has room for.
async fn room(deps: &Deps) -> Result<usize, Box<dyn Error + Send + Sync>> {
    let response = deps
        .queue
        .get_queue_attributes()
        .queue_url(deps.queue_url.as_str())
        .attribute_names(QueueAttributeName::ApproximateNumberOfMessages)
        .send()
        .await?;
    let attributes = response.attributes.unwrap_or_default();
    let messages = attributes.get(&QueueAttributeName::ApproximateNumberOfMessages);
    let messages: usize = messages.map_or("", String::as_str).parse()?;
    let longest =
        usize::try_from(LONGEST_QUEUE.as_secs())? * usize::try_from(deps.charges_per_second)?;
    Ok(longest.saturating_sub(messages.saturating_mul(ACCOUNTS_PER_MESSAGE)))
}

/// Claims the due accounts of a shard.
async fn claim_due(
    deps: &Deps,
    shard: u8,
    limit: i32,
    now: Timestamp,
    planned: &mut Planned,
) -> Vec<AccountId> {
    let due = deps.store.due.find(DueKind::Billing, shard, now, limit);
    let due = due.await.unwrap_or_else(|error| vec![Err(error)]);
    let claims = due.into_iter().map(|due| claim(deps, due, now));
    let mut claims = stream::iter(claims).buffer_unordered(CONCURRENT_CLAIMS);
    let mut accounts = Vec::new();
    while let Some(claimed) = claims.next().await {
        match claimed {
            Ok(account) => accounts.extend(account),
            Err(error) => planned.failed(&error, "a due account was not queued"),
        }
    }
    accounts
}

async fn claim(
    deps: &Deps,
    due: Result<Due, StoreError>,
    now: Timestamp,
) -> Result<Option<AccountId>, StoreError> {
    let due = due?;
    let claimed = deps.store.due.postpone(&due, now + REQUEUE_DELAY).await?;
    Ok(match due.task {
        DueTask::Billing(account) if claimed => Some(account),
        _ => None,
    })
}

/// Sends one batch of messages.
async fn queue(deps: &Deps, accounts: &[AccountId], now: Timestamp, planned: &mut Planned) {
    let messages: Vec<_> = accounts.chunks(ACCOUNTS_PER_MESSAGE).collect();
    let refused = send(deps, &messages, now).await.unwrap_or_else(|error| {
        edge::log_error(&*error, "could not queue due accounts");
        (0..messages.len()).collect()
    });
    for (at, accounts) in messages.iter().enumerate() {
        if refused.contains(&at) {
            planned.errors += 1;
        } else {
            planned.queued += u32::try_from(accounts.len()).unwrap_or(u32::MAX);
        }
    }
}

/// Sends messages; returns the positions of those that the queue refused.
async fn send(
    deps: &Deps,
    messages: &[&[AccountId]],
    now: Timestamp,
) -> Result<Vec<usize>, Box<dyn Error + Send + Sync>> {
    let entries = messages.iter().enumerate().map(|(at, accounts)| {
        let message = Message { time: now, account_ids: accounts.to_vec() };
        let entry = SendMessageBatchRequestEntry::builder()
            .id(at.to_string())
            .message_body(serde_json::to_string(&message)?);
        Ok(entry.build()?)
    });
    let entries: Result<Vec<_>, Box<dyn Error + Send + Sync>> = entries.collect();
    let response = deps
        .queue
        .send_message_batch()
        .queue_url(deps.queue_url.as_str())
        .set_entries(Some(entries?))
        .send()
        .await?;
    let refused = response.failed.iter().map(|entry| {
        tracing::error!(code = entry.code, "the queue refused a message");
        entry.id.parse()
    });
    Ok(refused.collect::<Result<_, _>>()?)
}
