//! Refunds and disputes.

use serde_json::{Value, json};

use super::error::ApiError;
use super::params::Params;
use super::state::{NotPossible, StripeState};

impl StripeState {
    pub(super) fn create_refund(&mut self, params: &Params) -> Result<String, ApiError> {
        params.only("amount payment_intent")?;
        self.refund(params.required("payment_intent")?, params.integer("amount")?)
    }

    /// Makes the `next` refunds fail: the bank rejects the money.
    pub fn fail_refunds(&mut self, next: u32) {
        self.failing_refunds = next;
    }

    /// Refunds `amount`, or the rest. Returns the refund's id.
    fn refund(&mut self, intent: &str, amount: Option<i64>) -> Result<String, ApiError> {
        if self.known("payment_intent", intent).is_err() {
            return Err(ApiError::no_such_value("payment_intent", intent));
        }
        if self.get(intent)["status"] != "succeeded" {
            let message = format!(
                "This PaymentIntent ({intent}) does not have a successful charge to refund."
            );
            return Err(ApiError::state(None, &message));
        }
        let id = self.text(intent, "latest_charge");
        if self.get(&id)["disputed"] == true {
            let message = format!("Charge {id} has been charged back; cannot issue a refund.");
            return Err(ApiError::state(Some("charge_disputed"), &message));
        }
        let left = self.unrefunded(&id);
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
        self.add_refunded(&id, amount);
        self.emit("charge.refunded", &id);
        let refund = self.add("re", "refund", self.part_of_charge(&id, amount, "succeeded"));
        if self.failing_refunds > 0 {
            self.failing_refunds -= 1;
            self.fail_refund(&refund);
        }
        Ok(refund)
    }

    fn unrefunded(&self, charge: &str) -> i64 {
        self.integer(charge, "amount") - self.integer(charge, "amount_refunded")
    }

    fn add_refunded(&mut self, charge: &str, cents: i64) {
        let refunded = self.integer(charge, "amount_refunded") + cents;
        let is_full = refunded == self.integer(charge, "amount");
        self.set(charge, json!({"amount_refunded": refunded, "refunded": is_full}));
    }

    /// The members that refunds and disputes share.
    fn part_of_charge(&self, charge: &str, amount: i64, status: &str) -> Value {
        let of = self.get(charge);
        json!({
            "amount": amount,
            "charge": charge,
            "currency": of["currency"],
            "payment_intent": of["payment_intent"],
            "status": status,
        })
    }

    /// The bank rejects the refund, and the money comes back.
    fn fail_refund(&mut self, id: &str) {
        self.set(id, json!({"status": "failed"}));
        self.add_refunded(&self.text(id, "charge"), -self.integer(id, "amount"));
        self.emit("refund.failed", id);
    }

    /// The merchant makes a refund in Stripe's dashboard.
    pub fn refund_in_dashboard(&mut self, intent: &str, cents: i64) -> Result<(), NotPossible> {
        let refund = self.refund(intent, Some(cents));
        refund.map(drop).map_err(|error| {
            let message = error.error["message"].as_str();
            NotPossible(message.unwrap_or_default().to_owned())
        })
    }

    /// The bank rejects the first refund of a PaymentIntent, days later.
    pub fn bounce_refund(&mut self, intent: &str) -> Result<(), NotPossible> {
        let made =
            |refund: &Value| refund["payment_intent"] == intent && refund["status"] == "succeeded";
        let Some((first, _)) = self.all("re_").find(|(_, refund)| made(refund)) else {
            return Err(NotPossible(format!("{intent} was not refunded")));
        };
        let first = first.clone();
        self.fail_refund(&first);
        Ok(())
    }

    /// The cardholder disputes the amount not refunded yet. Returns the dispute's id.
    pub fn dispute(&mut self, intent: &str) -> Result<String, NotPossible> {
        let charge = self.text(intent, "latest_charge");
        let found = self.get(&charge);
        let left = self.unrefunded(&charge);
        if found["status"] != "succeeded" || found["disputed"] == true || left == 0 {
            let message = format!("{intent} is not a payment that can be disputed");
            return Err(NotPossible(message));
        }
        self.set(&charge, json!({"disputed": true}));
        let dispute = self.part_of_charge(&charge, left, "needs_response");
        let id = self.add("du", "dispute", dispute);
        self.emit("charge.dispute.created", &id);
        Ok(id)
    }

    /// The bank decides a dispute: if it is `won`, the merchant keeps the money.
    pub fn close_dispute(&mut self, id: &str, won: bool) -> Result<(), NotPossible> {
        if self.get(id)["status"] != "needs_response" {
            return Err(NotPossible(format!("{id} is not an open dispute")));
        }
        self.set(id, json!({"status": if won { "won" } else { "lost" }}));
        self.set(&self.text(id, "charge"), json!({"disputed": !won}));
        self.emit("charge.dispute.closed", id);
        Ok(())
    }
}
