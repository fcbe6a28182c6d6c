//! Stripe's events: each is recorded once, and retried until it is applied.

use jiff::{SignedDuration, Timestamp};
use payments::{Event, JsonError, Notice};
use store::{EventState, Recorded};

use crate::apply::{apply_intent, apply_session};
use crate::context::Context;
use crate::disputes::apply_dispute;
use crate::error::Result;
use crate::outcome::PaymentUpdate;
use crate::refunds::{apply_failed_refund, apply_refund};
use crate::stripe_subscription::apply_subscription;

/// Delays between attempts to apply an event; the last one repeats.
const RETRY_DELAYS: [SignedDuration; 3] =
    [SignedDuration::from_mins(5), SignedDuration::from_hours(1), SignedDuration::from_hours(24)];
/// Maximum time that an event waits for its payment. After that, the payment is not ours.
const MAX_LEAD: SignedDuration = SignedDuration::from_hours(24);
/// The age at which a pending event raises an alarm.
const TOO_LONG_PENDING: SignedDuration = SignedDuration::from_hours(3 * 24);

/// Records an event and applies it, unless that was done before. An event that could not be applied
/// stays due; after an error, Stripe delivers the event again.
pub async fn receive(cx: Context<'_>, event: &Event) -> Result<EventState> {
    let content = serde_json::to_string(&event.notice).map_err(JsonError::from)?;
    let (id, retry_at) = (event.id.as_str(), retry_at(cx, 0));
    let inbox = &cx.store.inbox;
    let recorded = inbox.record(id, event.kind, &content, cx.now, retry_at).await?;
    if recorded.state != EventState::Pending {
        return Ok(recorded.state);
    }
    if event.livemode != cx.settings.livemode {
        let reason = "an event of the other mode (live or test)";
        return end(cx, &recorded, EventState::Ignored, Some(reason)).await;
    }
    apply(cx, &recorded).await
}

/// Applies a recorded event, even again; after an error, it stays due. `None`: no such event.
pub async fn replay(cx: Context<'_>, id: &str) -> Result<Option<EventState>> {
    match cx.store.inbox.get(id).await? {
        Some(recorded) => apply(cx, &recorded).await.map(Some),
        None => Ok(None),
    }
}

async fn apply(cx: Context<'_>, recorded: &Recorded) -> Result<EventState> {
    let notice: Notice = serde_json::from_str(&recorded.content).map_err(JsonError::from)?;
    let age = cx.now.duration_since(recorded.received_at);
    let (state, reason) = match Box::pin(apply_notice(cx, &notice)).await {
        Ok(PaymentUpdate::Applied(_) | PaymentUpdate::NoPayment) => (EventState::Applied, None),
        Ok(PaymentUpdate::Ignored(reason)) => (EventState::Ignored, Some(reason)),
        Ok(PaymentUpdate::TooEarly) if age > MAX_LEAD => {
            (EventState::Ignored, Some("not about a payment of ours"))
        }
        Ok(PaymentUpdate::TooEarly) => {
            return keep(cx, recorded, age, "about a payment that is not known yet").await;
        }
        Err(error) => {
            edge::log_error(&error, "could not apply an event");
            return keep(cx, recorded, age, &error.to_string()).await;
        }
    };
    end(cx, recorded, state, reason).await
}

async fn keep(
    cx: Context<'_>,
    recorded: &Recorded,
    age: SignedDuration,
    reason: &str,
) -> Result<EventState> {
    if age > TOO_LONG_PENDING {
        edge::metric("webhooks_pending_for_long", 1);
    }
    let retry_at = retry_at(cx, recorded.tries);
    cx.store.inbox.keep(&recorded.id, reason, retry_at).await?;
    Ok(EventState::Pending)
}

async fn end(
    cx: Context<'_>,
    recorded: &Recorded,
    state: EventState,
    reason: Option<&str>,
) -> Result<EventState> {
    let (event, kind) = (&recorded.id, &recorded.kind);
    tracing::info!(event, kind, ?state, reason, "event done");
    cx.store.inbox.end(event, state, reason, cx.now).await?;
    Ok(state)
}

async fn apply_notice(cx: Context<'_>, notice: &Notice) -> Result<PaymentUpdate> {
    match notice {
        Notice::Checkout { session } => apply_session(cx, session).await,
        Notice::Intent(intent) => apply_intent(cx, intent).await,
        Notice::Refunded { intent: Some(intent), full } => apply_refund(cx, intent, *full).await,
        Notice::RefundFailed { intent: Some(intent) } => apply_failed_refund(cx, intent).await,
        Notice::Dispute { id, intent: Some(intent), amount, state } => {
            apply_dispute(cx, id, intent, (*amount, *state)).await
        }
        Notice::Refunded { .. } | Notice::RefundFailed { .. } | Notice::Dispute { .. } => {
            Ok(PaymentUpdate::Ignored("not about a PaymentIntent"))
        }
        Notice::Invoice { id, subscription: Some(subscription) } => {
            apply_subscription(cx, subscription, Some(id)).await
        }
        Notice::Invoice { .. } => Ok(PaymentUpdate::Ignored("not about a subscription")),
        Notice::Subscription { id } => apply_subscription(cx, id, None).await,
        Notice::Other => Ok(PaymentUpdate::Ignored("an event that is not used")),
    }
}

fn retry_at(cx: Context<'_>, tries: u32) -> Timestamp {
    let tries = usize::try_from(tries).unwrap_or(usize::MAX);
    let delay = RETRY_DELAYS.get(tries).or(RETRY_DELAYS.last());
    cx.later(delay.copied().unwrap_or_default())
}
