//! Refunds and disputes.

use serde_json::Value;

use super::error::ApiError;
use super::params::Params;
use super::resources::{Dispute, IntentStatus, Refund};
use super::state::{NotPossible, StripeState, existing};

impl StripeState {
    pub(super) fn create_refund(&mut self, params: &Params) -> Result<Value, ApiError> {
        params.only("amount metadata payment_intent reason")?;
        let intent = params.required("payment_intent")?;
        let id = self.refund(intent, params.integer("amount")?)?;
        let refund = existing(&mut self.refunds, &id);
        refund.reason = params.owned("reason");
        refund.metadata = params.map("metadata");
        Ok(refund.json())
    }

    /// The next refunds fail: the bank rejects the money.
    pub fn fail_refunds(&mut self, next: u32) {
        self.failing_refunds = next;
    }

    /// Refunds `amount`, or what is left. Returns the refund's id.
    fn refund(&mut self, intent: &str, amount: Option<i64>) -> Result<String, ApiError> {
        let found = self.intents.get(intent);
        let found = found.ok_or_else(|| ApiError::no_such_value("payment_intent", intent))?;
        let charge = found.latest_charge.as_ref();
        let charge = charge.filter(|_| found.status == IntentStatus::Succeeded);
        let Some(charge) = charge.and_then(|id| self.charges.get_mut(id)) else {
            let message = format!(
                "This PaymentIntent ({intent}) does not have a successful charge to refund."
            );
            return Err(ApiError::state(None, &message));
        };
        let left = charge.amount - charge.refunded;
        let id = charge.id.clone();
        if charge.disputed {
            let message = format!("Charge {id} has been charged back; cannot issue a refund.");
            return Err(ApiError::state(Some("charge_disputed"), &message));
        }
        if left == 0 {
            let message = format!("Charge {id} has already been refunded.");
            return Err(ApiError::state(Some("charge_already_refunded"), &message));
        }
        let amount = amount.unwrap_or(left);
        if !(1..=left).contains(&amount) {
            let message = format!(
                "Refund amount ({amount}) is not between 1 and the unrefunded amount on charge \
                 ({left})."
            );
            return Err(ApiError::state(None, &message).with("param", "amount"));
        }
        charge.refunded += amount;
        let currency = found.currency.clone();
        self.emit("charge.refunded", &id);
        let refund = Refund {
            id: self.new_id("re"),
            created: self.now,
            charge: id,
            payment_intent: intent.to_owned(),
            amount,
            currency,
            ..Refund::default()
        };
        let id = refund.id.clone();
        self.refunds.insert(id.clone(), refund);
        if self.failing_refunds > 0 {
            self.failing_refunds -= 1;
            self.fail_refund(&id);
        }
        Ok(id)
    }

    /// The bank rejects the refund, and the money comes back.
    fn fail_refund(&mut self, id: &str) {
        let refund = existing(&mut self.refunds, id);
        refund.failed = true;
        existing(&mut self.charges, &refund.charge).refunded -= refund.amount;
        self.emit("refund.failed", id);
    }

    /// Somebody makes a refund in Stripe's dashboard.
    pub fn refund_in_dashboard(&mut self, intent: &str, cents: i64) -> Result<(), NotPossible> {
        let refund = self.refund(intent, Some(cents));
        refund.map(drop).map_err(|error| {
            let message = error.error["message"].as_str();
            NotPossible(message.unwrap_or_default().to_owned())
        })
    }

    /// The bank rejects the first refund of a PaymentIntent, days later.
    pub fn bounce_refund(&mut self, intent: &str) -> Result<(), NotPossible> {
        let refunds = self.refunds.values();
        let made = refunds.filter(|refund| refund.payment_intent == intent && !refund.failed);
        let Some(first) = made.map(|refund| refund.id.clone()).min() else {
            return Err(NotPossible(format!("{intent} was not refunded")));
        };
        self.fail_refund(&first);
        Ok(())
    }

    /// The cardholder disputes what is not refunded yet. Returns the dispute's id.
    pub fn dispute(&mut self, intent: &str) -> Result<String, NotPossible> {
        let found = self.intents.get(intent);
        let charge = found.and_then(|found| found.latest_charge.as_ref());
        let charge = charge.and_then(|id| self.charges.get_mut(id));
        let charge = charge.filter(|charge| {
            charge.failure.is_none() && !charge.disputed && charge.refunded < charge.amount
        });
        let (Some(found), Some(charge)) = (found, charge) else {
            let message = format!("{intent} is not a payment that can be disputed");
            return Err(NotPossible(message));
        };
        charge.disputed = true;
        let (charge, amount) = (charge.id.clone(), charge.amount - charge.refunded);
        let currency = found.currency.clone();
        let id = self.new_id("du");
        let dispute = Dispute {
            id: id.clone(),
            created: self.now,
            charge,
            payment_intent: intent.to_owned(),
            amount,
            currency,
            won: None,
        };
        self.disputes.insert(id.clone(), dispute);
        self.emit("charge.dispute.created", &id);
        Ok(id)
    }

    /// The bank decides a dispute: if it is `won`, the merchant keeps the money.
    pub fn close_dispute(&mut self, id: &str, won: bool) -> Result<(), NotPossible> {
        let open = self.disputes.get_mut(id);
        let Some(dispute) = open.filter(|dispute| dispute.won.is_none()) else {
            return Err(NotPossible(format!("{id} is not an open dispute")));
        };
        dispute.won = Some(won);
        existing(&mut self.charges, &dispute.charge).disputed = !won;
        self.emit("charge.dispute.closed", id);
        Ok(())
    }
}
