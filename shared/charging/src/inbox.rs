//! Stripe's events: each is recorded once, and applied until that succeeds.

use jiff::{SignedDuration, Timestamp};
use payments::{Event, Notice};
use store::{EventState, Recorded};

use crate::apply::{apply_intent, apply_session};
use crate::context::Charging;
use crate::disputes::apply_dispute;
use crate::error::ChargingError;
use crate::outcome::PaymentUpdate;
use crate::refunds::{apply_failed_refund, apply_refund};
use crate::stripe_subscription::apply_subscription;

/// Delays between attempts to apply an event; the last one repeats.
const RETRY_DELAYS: [SignedDuration; 3] = [
    SignedDuration::from_mins(5),
    SignedDuration::from_hours(1),
    SignedDuration::from_hours(24),
];
/// An event may be this far ahead of its payment. After that, it is not about one of ours.
const MAX_LEAD: SignedDuration = SignedDuration::from_hours(24);
/// An event that is pending for longer raises an alarm.
const TOO_LONG_PENDING: SignedDuration = SignedDuration::from_hours(3 * 24);

/// Records an event and applies it, unless that was done before. After an error it is not recorded, and
/// Stripe has to deliver it again.
pub async fn receive(
    charging: &Charging,
    event: &Event,
    now: Timestamp,
) -> Result<EventState, ChargingError> {
    let content = serde_json::to_string(&event.notice)?;
    let (id, retry_at) = (event.id.as_str(), retry_at(now, 0));
    let inbox = &charging.store.inbox;
    let recorded = inbox
        .record(id, &event.kind, &content, now, retry_at)
        .await?;
    if recorded.state != EventState::Pending {
        return Ok(recorded.state);
    }
    if event.livemode != charging.settings.livemode {
        let reason = "an event of the other mode (live or test)";
        return end(charging, &recorded, EventState::Ignored, Some(reason), now).await;
    }
    apply(charging, &recorded, now).await
}

/// Applies a recorded event; doing it again changes nothing more. After an error, the event stays due.
/// `None` if there is no such event.
pub async fn replay(
    charging: &Charging,
    id: &str,
    now: Timestamp,
) -> Result<Option<EventState>, ChargingError> {
    match charging.store.inbox.get(id).await? {
        Some(recorded) => apply(charging, &recorded, now).await.map(Some),
        None => Ok(None),
    }
}

async fn apply(
    charging: &Charging,
    recorded: &Recorded,
    now: Timestamp,
) -> Result<EventState, ChargingError> {
    let notice: Notice = serde_json::from_str(&recorded.content)?;
    let age = now.duration_since(recorded.received_at);
    let pending = match Box::pin(apply_notice(charging, &notice, now)).await {
        Ok(PaymentUpdate::Applied(_) | PaymentUpdate::NoPayment) => {
            return end(charging, recorded, EventState::Applied, None, now).await;
        }
        Ok(PaymentUpdate::Ignored(reason)) => {
            return end(charging, recorded, EventState::Ignored, Some(reason), now).await;
        }
        Ok(PaymentUpdate::TooEarly) if age > MAX_LEAD => {
            let reason = "not about a payment of ours";
            return end(charging, recorded, EventState::Ignored, Some(reason), now).await;
        }
        Ok(PaymentUpdate::TooEarly) => "about a payment that is not known yet".to_owned(),
        Err(error) => {
            edge::log_error(&error, "an event could not be applied");
            error.to_string()
        }
    };
    if age > TOO_LONG_PENDING {
        edge::metric("webhooks_pending_for_long", 1);
    }
    let retry_at = retry_at(now, recorded.tries);
    let inbox = &charging.store.inbox;
    inbox.keep(&recorded.id, &pending, retry_at).await?;
    Ok(EventState::Pending)
}

async fn end(
    charging: &Charging,
    recorded: &Recorded,
    state: EventState,
    reason: Option<&str>,
    now: Timestamp,
) -> Result<EventState, ChargingError> {
    let (event, kind) = (&recorded.id, &recorded.kind);
    tracing::info!(event, kind, ?state, reason, "event done");
    charging.store.inbox.end(event, state, reason, now).await?;
    Ok(state)
}

async fn apply_notice(
    charging: &Charging,
    notice: &Notice,
    now: Timestamp,
) -> Result<PaymentUpdate, ChargingError> {
    match notice {
        Notice::Checkout { session } => apply_session(charging, session, now).await,
        Notice::Intent(intent) => apply_intent(charging, intent, now).await,
        Notice::Refunded {
            intent: Some(intent),
            amount_refunded,
            full,
        } => apply_refund(charging, intent, *amount_refunded, *full, now).await,
        Notice::RefundFailed {
            intent: Some(intent),
        } => apply_failed_refund(charging, intent).await,
        Notice::Dispute {
            id,
            intent: Some(intent),
            amount,
            state,
        } => apply_dispute(charging, id, intent, (*amount, *state), now).await,
        Notice::Refunded { .. } | Notice::RefundFailed { .. } | Notice::Dispute { .. } => {
            Ok(PaymentUpdate::Ignored("not about a PaymentIntent"))
        }
        Notice::Invoice {
            id,
            subscription: Some(subscription),
        } => apply_subscription(charging, subscription, Some(id), now).await,
        Notice::Invoice { .. } => Ok(PaymentUpdate::Ignored("not about a subscription")),
        Notice::Subscription { id } => apply_subscription(charging, id, None, now).await,
        Notice::Other => Ok(PaymentUpdate::Ignored("an event that is not used")),
    }
}

fn retry_at(now: Timestamp, tries: u32) -> Timestamp {
    let tries = usize::try_from(tries).unwrap_or(usize::MAX);
    let delay = RETRY_DELAYS.get(tries).or(RETRY_DELAYS.last());
    now.saturating_add(delay.copied().unwrap_or_default())
        .unwrap_or(now)
}
