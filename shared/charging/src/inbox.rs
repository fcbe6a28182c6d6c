//! The provider's events: each is recorded once, and applied until that succeeds.

use jiff::{SignedDuration, Timestamp};
use payments::{Event, Notice};
use store::{EventState, Recorded};

use crate::{Charging, ChargingError, PaymentUpdate};

/// When an event that could not be applied is tried again, each from the try before it; the last one
/// again and again.
const AGAIN: [SignedDuration; 3] = [
    SignedDuration::from_mins(5),
    SignedDuration::from_hours(1),
    SignedDuration::from_hours(24),
];
/// How long news of a payment may be ahead of the payment itself. After that it is none of ours.
const AHEAD: SignedDuration = SignedDuration::from_hours(24);
/// From when on people are to look at an event that cannot be applied.
const TOO_LONG_PENDING: SignedDuration = SignedDuration::from_hours(3 * 24);

impl Charging {
    /// Records an event and applies it, unless that was done before.
    ///
    /// # Errors
    /// [`ChargingError`] if it could not be recorded: then the provider is to deliver it again.
    pub async fn receive(
        &self,
        event: &Event,
        now: Timestamp,
    ) -> Result<EventState, ChargingError> {
        let content = serde_json::to_string(&event.notice)?;
        let (id, again) = (event.id.as_str(), later(now, 0));
        let recorded = self
            .store
            .inbox
            .record(id, &event.kind, &content, now, again)
            .await?;
        if recorded.state != EventState::Pending {
            return Ok(recorded.state);
        }
        if event.livemode != self.settings.livemode {
            let reason = "an event of the other mode (live or test)";
            return self
                .end(&recorded, EventState::Ignored, Some(reason), now)
                .await;
        }
        self.apply(&recorded, now).await
    }

    /// Applies an event that is recorded, again if need be: it does no more than the first time.
    ///
    /// # Errors
    /// [`ChargingError`] if what became of it could not be written down; it then comes up again.
    pub async fn replay(
        &self,
        id: &str,
        now: Timestamp,
    ) -> Result<Option<EventState>, ChargingError> {
        match self.store.inbox.get(id).await? {
            Some(recorded) => self.apply(&recorded, now).await.map(Some),
            None => Ok(None),
        }
    }

    async fn apply(
        &self,
        recorded: &Recorded,
        now: Timestamp,
    ) -> Result<EventState, ChargingError> {
        let notice: Notice = serde_json::from_str(&recorded.content)?;
        let age = now.duration_since(recorded.received_at);
        let reason = match Box::pin(self.apply_notice(&notice, now)).await {
            Ok(PaymentUpdate::Taken(_) | PaymentUpdate::Nothing) => {
                return self.end(recorded, EventState::Applied, None, now).await;
            }
            Ok(PaymentUpdate::Ignored(reason)) => {
                return self
                    .end(recorded, EventState::Ignored, Some(reason), now)
                    .await;
            }
            Ok(PaymentUpdate::Ahead) if age > AHEAD => {
                let reason = "about no payment of ours";
                return self
                    .end(recorded, EventState::Ignored, Some(reason), now)
                    .await;
            }
            Ok(PaymentUpdate::Ahead) => "about a payment that was not heard of yet".to_owned(),
            Err(error) => {
                edge::log_error(&error, "an event could not be applied");
                error.to_string()
            }
        };
        if age > TOO_LONG_PENDING {
            edge::metric("webhooks_pending_for_long", 1);
        }
        let again = later(now, recorded.tries);
        self.store.inbox.keep(&recorded.id, &reason, again).await?;
        Ok(EventState::Pending)
    }

    async fn end(
        &self,
        recorded: &Recorded,
        state: EventState,
        reason: Option<&str>,
        now: Timestamp,
    ) -> Result<EventState, ChargingError> {
        tracing::info!(
            event = recorded.id,
            kind = recorded.kind,
            ?state,
            reason,
            "event done"
        );
        self.store
            .inbox
            .end(&recorded.id, state, reason, now)
            .await?;
        Ok(state)
    }

    async fn apply_notice(
        &self,
        notice: &Notice,
        now: Timestamp,
    ) -> Result<PaymentUpdate, ChargingError> {
        match notice {
            Notice::Checkout { session, .. } => self.apply_checkout(session, now).await,
            Notice::Intent(intent) => self.apply_intent(intent, now).await,
            Notice::Refunded {
                intent: Some(intent),
                amount_refunded,
                full,
            } => {
                self.apply_refund(intent, *amount_refunded, *full, now)
                    .await
            }
            Notice::RefundFailed {
                intent: Some(intent),
            } => self.apply_failed_refund(intent).await,
            Notice::Dispute {
                id,
                intent: Some(intent),
                amount,
                state,
            } => self.apply_dispute(id, intent, *amount, *state, now).await,
            Notice::Refunded { .. } | Notice::RefundFailed { .. } | Notice::Dispute { .. } => {
                Ok(PaymentUpdate::Ignored("about no payment object"))
            }
            Notice::Invoice {
                id,
                subscription: Some(subscription),
            } => self.apply_subscription(subscription, Some(id), now).await,
            Notice::Invoice { .. } => Ok(PaymentUpdate::Ignored("about no subscription")),
            Notice::Subscription { id } => self.apply_subscription(id, None, now).await,
            Notice::Other => Ok(PaymentUpdate::Ignored("nothing that is used here")),
        }
    }
}

fn later(now: Timestamp, tries: u32) -> Timestamp {
    let wait = usize::try_from(tries)
        .ok()
        .and_then(|tries| AGAIN.get(tries));
    let wait = wait.or(AGAIN.last()).copied().unwrap_or_default();
    now.saturating_add(wait).unwrap_or(now)
}
