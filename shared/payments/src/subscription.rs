//! Subscriptions, through which Stripe collects the add-on's price.

use serde_json::Value;

use crate::client::{Form, Stripe};
use crate::error::PaymentError;
use crate::ids::{InvoiceId, PaymentMethodId, SubscriptionId};
use crate::read;

/// A subscription in its current state. Fields that the response leaves out are absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    pub id: SubscriptionId,
    /// The subscription has ended for good: it collects nothing more.
    pub is_over: bool,
    pub latest_invoice: Option<InvoiceId>,
    pub cancel_at_period_end: Option<bool>,
}

impl Stripe {
    pub async fn subscription(&self, id: &SubscriptionId) -> Result<Subscription, PaymentError> {
        self.get(&path(id), Subscription::read).await
    }

    /// Makes a subscription end with the paid period (`true`) or renew (`false`). One that is over
    /// is [`PaymentError::Missing`] or refused.
    pub async fn end_subscription_with_its_period(
        &self,
        id: &SubscriptionId,
        ends: bool,
    ) -> Result<Subscription, PaymentError> {
        let form = vec![("cancel_at_period_end", ends.to_string())];
        self.update_subscription(id, form).await
    }

    /// Charges a subscription to this card from now on. One that is over is
    /// [`PaymentError::Missing`] or refused.
    pub async fn charge_subscription_to(
        &self,
        id: &SubscriptionId,
        card: &PaymentMethodId,
    ) -> Result<Subscription, PaymentError> {
        let form = vec![("default_payment_method", card.to_string())];
        self.update_subscription(id, form).await
    }

    /// Needs no idempotency key: the form contains the wanted state.
    async fn update_subscription(
        &self,
        id: &SubscriptionId,
        form: Form,
    ) -> Result<Subscription, PaymentError> {
        let updated = self.post(&path(id), form, None).await?;
        updated.done(Subscription::read)
    }

    /// Ends a subscription at once, without a refund. One that is over already is a success.
    pub async fn cancel_subscription(&self, id: &SubscriptionId) -> Result<(), PaymentError> {
        let cancelled = self.delete(&path(id)).await;
        match cancelled.and_then(|cancelled| cancelled.done(|_| Some(()))) {
            Err(PaymentError::Missing { .. }) => Ok(()),
            Err(refusal @ PaymentError::Refused { .. }) => {
                let found = self.subscription(id).await;
                if found.map_err(PaymentError::after_a_call)?.is_over {
                    Ok(())
                } else {
                    Err(refusal)
                }
            }
            cancelled => cancelled,
        }
    }
}

fn path(id: &SubscriptionId) -> String {
    format!("/v1/subscriptions/{id}")
}

impl Subscription {
    pub(crate) fn read(subscription: &Value) -> Option<Self> {
        Some(Self {
            id: read::id(subscription, "id")?,
            // <https://docs.stripe.com/api/subscriptions/object#subscription_object-status>
            is_over: matches!(
                read::text(subscription, "status"),
                Some("canceled" | "incomplete_expired")
            ),
            latest_invoice: read::id(subscription, "latest_invoice"),
            cancel_at_period_end: read::flag(subscription, "cancel_at_period_end"),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn statuses_and_references_are_read() {
        let wire = json!({"id": "sub_1", "status": "past_due", "cancel_at_period_end": false,
            "latest_invoice": {"id": "in_1", "object": "invoice"}});
        let read = Subscription::read(&wire).unwrap();
        assert!(!read.is_over);
        assert_eq!(read.latest_invoice, InvoiceId::new("in_1").ok());
        assert_eq!(read.cancel_at_period_end, Some(false));
        assert_eq!(Subscription::read(&json!({})), None);
        let wire = json!({"id": "sub_1", "status": "resting"});
        let read = Subscription::read(&wire).unwrap();
        assert!(!read.is_over);
        for over in ["canceled", "incomplete_expired"] {
            let wire = json!({"id": "sub_1", "status": over});
            assert!(Subscription::read(&wire).unwrap().is_over, "{over}");
        }
    }
}
