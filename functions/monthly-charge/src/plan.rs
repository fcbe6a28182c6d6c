//! The planner: accounts that are due go into the queue, from which the worker takes them.
//!
//! An account is taken on before it is queued, by putting its row of the index off: of two ticks at once
//! one queues it, and the next one leaves it alone while it waits. A message that is lost brings it back.

use std::error::Error;

use account::AccountId;
use aws_sdk_sqs::types::{QueueAttributeName, SendMessageBatchRequestEntry};
use futures_util::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use store::{Due, DueKind, DueTask, StoreError};

use crate::Deps;
use crate::worker::Message;

/// The most accounts queued by one tick, a shard; more wait for the next tick.
const ACCOUNTS_A_SHARD: usize = 1_000;
/// Accounts taken on at once.
const AT_ONCE: usize = 32;
/// Accounts that a message names.
const A_MESSAGE: usize = 25;
/// The most messages that the queue takes at once.
const A_BATCH: usize = 10;
/// When an account is queued again of which nothing was written down.
const AGAIN: SignedDuration = SignedDuration::from_mins(15);
/// No more is queued than the workers do in this time at their pace. It is less than [`AGAIN`]: what is
/// in the queue is not queued again for having to wait there.
const LONGEST_QUEUE: SignedDuration = SignedDuration::from_mins(10);

/// What was queued.
#[derive(Debug, Default)]
pub(crate) struct Planned {
    /// Accounts.
    pub(crate) queued: u32,
    /// Accounts that could not be taken on, and messages that were not accepted.
    pub(crate) errors: u32,
}

/// Queues the accounts that are due at `now`.
pub(crate) async fn plan(deps: &Deps, now: Timestamp) -> Planned {
    let mut planned = Planned::default();
    let room = match room(deps).await {
        Ok(room) => room,
        Err(error) => {
            edge::log_error(&*error, "the queue does not tell how long it is");
            planned.errors += 1;
            return planned;
        }
    };
    // The same for each, so that none waits behind another.
    let a_shard = (room / store::shards().len()).min(ACCOUNTS_A_SHARD);
    if a_shard == 0 {
        tracing::warn!("the queue is full: what is due waits for the next tick");
        return planned;
    }
    let a_shard = i32::try_from(a_shard).unwrap_or(i32::MAX);
    let mut waiting = Vec::new();
    for shard in store::shards() {
        waiting.extend(take_on(deps, shard, a_shard, now, &mut planned).await);
        while waiting.len() >= A_MESSAGE * A_BATCH {
            let accounts: Vec<_> = waiting.drain(..A_MESSAGE * A_BATCH).collect();
            queue(deps, &accounts, now, &mut planned).await;
        }
    }
    if !waiting.is_empty() {
        queue(deps, &waiting, now, &mut planned).await;
    }
    edge::metric("accounts_queued", u64::from(planned.queued));
    planned
}

/// How many accounts the queue has room for.
async fn room(deps: &Deps) -> Result<usize, Box<dyn Error + Send + Sync>> {
    let answer = deps
        .queue
        .get_queue_attributes()
        .queue_url(deps.queue_url.as_str())
        .attribute_names(QueueAttributeName::ApproximateNumberOfMessages)
        .send()
        .await?;
    let attributes = answer.attributes.unwrap_or_default();
    let messages = attributes.get(&QueueAttributeName::ApproximateNumberOfMessages);
    let messages: usize = messages.map_or("", String::as_str).parse()?;
    let longest = usize::try_from(LONGEST_QUEUE.as_secs())? * usize::try_from(deps.pace)?;
    Ok(longest.saturating_sub(messages.saturating_mul(A_MESSAGE)))
}

/// Takes on what is due in a shard.
async fn take_on(
    deps: &Deps,
    shard: u8,
    limit: i32,
    now: Timestamp,
    planned: &mut Planned,
) -> Vec<AccountId> {
    let due = match deps
        .store
        .due
        .find(DueKind::Billing, shard, now, limit)
        .await
    {
        Ok(due) => due,
        Err(error) => {
            edge::log_error(&error, "due accounts could not be found");
            planned.errors += 1;
            return Vec::new();
        }
    };
    let claims = due.into_iter().map(|due| claim(deps, due, now));
    let claims: Vec<_> = stream::iter(claims)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let mut accounts = Vec::new();
    for claimed in claims {
        match claimed {
            Ok(account) => accounts.extend(account),
            Err(error) => {
                edge::log_error(&error, "a due account was not queued");
                planned.errors += 1;
            }
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
    let until = now.saturating_add(AGAIN).unwrap_or(now);
    let claimed = deps.store.due.postpone(&due, until).await?;
    match due.task {
        DueTask::Billing { account } if claimed => Ok(Some(account)),
        _ => Ok(None),
    }
}

/// Sends one batch of messages.
async fn queue(deps: &Deps, accounts: &[AccountId], now: Timestamp, planned: &mut Planned) {
    let messages: Vec<_> = accounts.chunks(A_MESSAGE).collect();
    let refused = send(deps, &messages, now).await.unwrap_or_else(|error| {
        edge::log_error(&*error, "due accounts could not be queued");
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

/// The places of those messages that the queue did not accept.
async fn send(
    deps: &Deps,
    messages: &[&[AccountId]],
    now: Timestamp,
) -> Result<Vec<usize>, Box<dyn Error + Send + Sync>> {
    let entries = messages.iter().enumerate().map(|(at, accounts)| {
        let message = Message {
            time: now,
            account_ids: accounts.to_vec(),
        };
        let entry = SendMessageBatchRequestEntry::builder()
            .id(at.to_string())
            .message_body(serde_json::to_string(&message)?);
        Ok(entry.build()?)
    });
    let entries: Result<Vec<_>, Box<dyn Error + Send + Sync>> = entries.collect();
    let answer = deps
        .queue
        .send_message_batch()
        .queue_url(deps.queue_url.as_str())
        .set_entries(Some(entries?))
        .send()
        .await?;
    let refused = answer.failed.iter().map(|entry| {
        tracing::error!(code = entry.code, "the queue does not accept a message");
        entry.id.parse()
    });
    Ok(refused.collect::<Result<_, _>>()?)
}
