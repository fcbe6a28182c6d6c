//! Refunds of PaymentIntents.

use serde_json::Value;

use crate::client::{Decided, Stripe, parse};
use crate::error::PaymentError;
use crate::ids::{Cents, IntentId, RefundId};
use crate::read;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refund {
    /// The money is on its way back.
    Made,
    /// The whole payment was refunded before.
    AlreadyMade,
    /// The payment cannot be refunded through the API: an operator must act.
    Failed,
}

/// A refund as Stripe lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRefund {
    pub id: RefundId,
    pub amount: Cents,
    /// The money came back to us. A refund can fail days after it succeeded.
    pub failed: bool,
}

impl Stripe {
    /// Refunds the rest of a payment. Stripe refuses if it is disputed (`charge_disputed`).
    pub async fn refund(
        &self,
        intent: &IntentId,
        idempotency: &str,
    ) -> Result<Refund, PaymentError> {
        let form = vec![("payment_intent", intent.to_string())];
        match self.post("/v1/refunds", form, Some(idempotency)).await? {
            Decided::Done(refund) => parse(&refund, |refund| match read::text(refund, "status") {
                Some("succeeded" | "pending" | "requires_action") => Some(Refund::Made),
                Some("failed" | "canceled") => Some(Refund::Failed),
                _ => None,
            }),
            Decided::Refused(refusal) if refusal.is("charge_already_refunded") => {
                Ok(Refund::AlreadyMade)
            }
            Decided::Refused(refusal) => Err(refusal.into()),
        }
    }

    /// All refunds of a payment in their current state, ours and others'.
    pub async fn refunds(&self, intent: &IntentId) -> Result<Vec<ListedRefund>, PaymentError> {
        let mut refunds = Vec::new();
        loop {
            let last = refunds.last().map(|refund: &ListedRefund| &refund.id);
            let after = last.map(|id| format!("&starting_after={id}")).unwrap_or_default();
            let path = format!("/v1/refunds?payment_intent={intent}&limit=100{after}");
            let (page, has_more) = self.get(&path, read_page).await?;
            let is_last = !has_more || page.is_empty();
            refunds.extend(page);
            if is_last {
                return Ok(refunds);
            }
        }
    }
}

fn read_page(list: &Value) -> Option<(Vec<ListedRefund>, bool)> {
    let page = list.get("data")?.as_array()?.iter().map(ListedRefund::read);
    Some((page.collect::<Option<_>>()?, read::flag(list, "has_more").unwrap_or_default()))
}

impl ListedRefund {
    fn read(refund: &Value) -> Option<Self> {
        Some(Self {
            id: read::id(refund, "id")?,
            amount: read::cents(refund, "amount")?,
            failed: is_failed(refund),
        })
    }
}

/// Source: <https://docs.stripe.com/api/refunds/object#refund_object-status>.
pub(crate) fn is_failed(refund: &Value) -> bool {
    matches!(read::text(refund, "status"), Some("failed" | "canceled"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_failed_and_canceled_refunds_count_as_failed() {
        let table = [
            ("pending", false),
            ("requires_action", false),
            ("succeeded", false),
            ("a_status_of_the_future", false),
            ("failed", true),
            ("canceled", true),
        ];
        for (status, failed) in table {
            let wire = json!({"has_more": true, "data": [
                {"id": "re_1", "object": "refund", "amount": 250, "status": status}]});
            let (page, has_more) = read_page(&wire).unwrap();
            let id = RefundId::new("re_1").unwrap();
            assert_eq!(page, [ListedRefund { id, amount: Cents::new(250), failed }], "{status}");
            assert!(has_more);
        }
        for unreadable in [json!({}), json!({"data": [{"id": "re_1"}]})] {
            assert_eq!(read_page(&unreadable), None);
        }
    }
}
