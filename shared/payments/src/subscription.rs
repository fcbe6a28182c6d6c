//! Subscriptions that Stripe runs, where it collects the add-on's price.

use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::Value;

use crate::ids::{InvoiceId, PaymentMethodId, SubscriptionId};
use crate::{Form, PaymentError, Stripe, read};

/// Source: <https://docs.stripe.com/api/subscriptions/object#subscription_object-status>.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscriptionStatus {
    /// The first payment is still to come.
    Incomplete,
    /// It never came.
    IncompleteExpired,
    Trialing,
    Active,
    PastDue,
    Canceled,
    Unpaid,
    Paused,
    Other,
}

/// A subscription as it stands. What the wire left out is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    pub id: SubscriptionId,
    pub status: SubscriptionStatus,
    /// The end of the period that was billed last, which may be unpaid. With several items the
    /// earliest.
    pub current_period_end: Option<Timestamp>,
    pub latest_invoice: Option<InvoiceId>,
    pub cancel_at_period_end: Option<bool>,
}

impl Stripe {
    /// Looks a subscription up.
    ///
    /// # Errors
    /// [`PaymentError`].
    pub async fn subscription(
        &self,
        key: &SecretString,
        id: &SubscriptionId,
    ) -> Result<Subscription, PaymentError> {
        of(&self.get(key, &path(id)).await?.done()?)
    }

    /// Has a subscription end with the period that is paid (`true`), or go on (`false`).
    ///
    /// # Errors
    /// [`PaymentError`]; one that is over is [`PaymentError::Missing`] or refused.
    pub async fn end_subscription_with_its_period(
        &self,
        key: &SecretString,
        id: &SubscriptionId,
        ends: bool,
    ) -> Result<Subscription, PaymentError> {
        let form = vec![("cancel_at_period_end", ends.to_string())];
        self.update(key, id, form).await
    }

    /// Has a subscription be charged to this card from now on.
    ///
    /// # Errors
    /// [`PaymentError`]; one that is over is [`PaymentError::Missing`] or refused.
    pub async fn charge_subscription_to(
        &self,
        key: &SecretString,
        id: &SubscriptionId,
        card: &PaymentMethodId,
    ) -> Result<Subscription, PaymentError> {
        let form = vec![("default_payment_method", card.to_string())];
        self.update(key, id, form).await
    }

    /// No idempotency key: what is asked for is a state.
    async fn update(
        &self,
        key: &SecretString,
        id: &SubscriptionId,
        form: Form,
    ) -> Result<Subscription, PaymentError> {
        of(&self.post(key, &path(id), form, None).await?.done()?)
    }

    /// Ends a subscription at once; nothing is paid back. One that is over already, which Stripe
    /// then does not find, is success.
    ///
    /// # Errors
    /// [`PaymentError`]: it may go on.
    pub async fn cancel_subscription(
        &self,
        key: &SecretString,
        id: &SubscriptionId,
    ) -> Result<(), PaymentError> {
        let refusal = match self.delete(key, &path(id)).await {
            Ok(answer) => answer.done().err(),
            Err(error) => Some(error),
        };
        match refusal {
            None | Some(PaymentError::Missing { .. }) => Ok(()),
            Some(refusal @ PaymentError::Refused { .. }) => {
                let found = self.subscription(key, id).await;
                if found.map_err(PaymentError::after_a_call)?.is_over() {
                    Ok(())
                } else {
                    Err(refusal)
                }
            }
            Some(error) => Err(error),
        }
    }
}

fn of(subscription: &Value) -> Result<Subscription, PaymentError> {
    Subscription::read(subscription).ok_or_else(PaymentError::unreadable)
}

fn path(id: &SubscriptionId) -> String {
    format!("/v1/subscriptions/{id}")
}

impl Subscription {
    /// Is it over for good? It then collects nothing more.
    pub fn is_over(&self) -> bool {
        use SubscriptionStatus::{Canceled, IncompleteExpired};
        matches!(self.status, Canceled | IncompleteExpired)
    }

    /// `None` without an id. Periods are told by item since 2025-03-31, and before by subscription.
    pub(crate) fn read(subscription: &Value) -> Option<Self> {
        use SubscriptionStatus as Status;
        let status = match read::text(subscription, "status") {
            Some("incomplete") => Status::Incomplete,
            Some("incomplete_expired") => Status::IncompleteExpired,
            Some("trialing") => Status::Trialing,
            Some("active") => Status::Active,
            Some("past_due") => Status::PastDue,
            Some("canceled") => Status::Canceled,
            Some("unpaid") => Status::Unpaid,
            Some("paused") => Status::Paused,
            _ => Status::Other,
        };
        let end = |object: &Value| read::time(object, "current_period_end");
        let items = subscription.pointer("/items/data");
        let items = items.and_then(Value::as_array).into_iter().flatten();
        Some(Self {
            id: read::id(subscription, "id")?,
            status,
            current_period_end: items.filter_map(end).min().or_else(|| end(subscription)),
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
    fn the_period_is_read_from_either_shape() {
        let end = Timestamp::from_second(1_780_000_000).ok();
        let table = [
            (json!({"current_period_end": 1_780_000_000}), end),
            (
                json!({"items": {"data": [{"current_period_end": 1_780_000_000}]}}),
                end,
            ),
            (
                json!({"items": {"data": [{"current_period_end": 1_780_000_001},
                    {"id": "si_2"}, {"current_period_end": 1_780_000_000}]}}),
                end,
            ),
            (
                json!({"current_period_end": null, "items": {"data": []}}),
                None,
            ),
            (json!({"items": "none"}), None),
        ];
        for (mut wire, expected) in table {
            wire["id"] = json!("sub_1");
            let read = Subscription::read(&wire).unwrap();
            assert_eq!(read.current_period_end, expected, "{wire}");
        }
        assert_eq!(Subscription::read(&json!({})), None);
    }

    #[test]
    fn statuses_and_references_are_read() {
        let wire = json!({"id": "sub_1", "status": "past_due", "cancel_at_period_end": false,
            "latest_invoice": {"id": "in_1", "object": "invoice"}});
        let read = Subscription::read(&wire).unwrap();
        assert_eq!(read.status, SubscriptionStatus::PastDue);
        assert_eq!(read.latest_invoice, InvoiceId::new("in_1").ok());
        assert_eq!(read.cancel_at_period_end, Some(false));
        let wire = json!({"id": "sub_1", "status": "resting"});
        let read = Subscription::read(&wire).unwrap();
        assert_eq!(read.status, SubscriptionStatus::Other);
    }
}
