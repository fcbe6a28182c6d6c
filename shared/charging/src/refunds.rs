//! Payments that others than us take back: refunds from the provider's dashboard, and disputes. And money
//! that was given back and came back.

use account::add_on::{Fact, GenerationId};
use account::{Account, Credits, EntryId, Period};
use jiff::Timestamp;
use payments::{Cents, DisputeId, DisputeState, IntentId};
use store::{EntryKind, Outcome, PaymentOrder, Posting, Purchase};

use crate::apply::ACTOR;
use crate::{Charging, ChargingError, PaymentUpdate};

impl Charging {
    /// Card money went back. `refunded` is all of it so far.
    pub(crate) async fn apply_refund(
        &self,
        intent: &IntentId,
        refunded: Option<Cents>,
        full: bool,
        now: Timestamp,
    ) -> Result<PaymentUpdate, ChargingError> {
        let Some((order, outcome)) = self.paid_for(intent).await? else {
            return Ok(PaymentUpdate::Ahead);
        };
        if outcome.is_some_and(|outcome| outcome != Outcome::Counted) {
            // Our own.
            return Ok(PaymentUpdate::Nothing);
        }
        let Some(account) = self.store.accounts.by_number(&order.account_number).await? else {
            return Ok(PaymentUpdate::Nothing);
        };
        if let Purchase::Credits { entry, credits } = &order.purchase {
            let cents = if full {
                order.amount_cents
            } else {
                refunded.map_or(0, Cents::get)
            };
            self.begin_reversal(&account, &order, entry, *credits, cents, now)
                .await?;
        } else if let (true, Some((generation, period))) = (full, period_of(&order)) {
            self.change(&account.id, now, |profile| {
                profile.add_on.apply(Fact::RefundedInFull {
                    generation: generation.clone(),
                    period,
                });
            })
            .await?;
        }
        Ok(PaymentUpdate::Nothing)
    }

    /// Money that was given back, by us or by others, came back: its payer does not have it, and somebody
    /// has to look.
    pub(crate) async fn apply_failed_refund(
        &self,
        intent: &IntentId,
    ) -> Result<PaymentUpdate, ChargingError> {
        let Some((order, outcome)) = self.paid_for(intent).await? else {
            return Ok(PaymentUpdate::Ahead);
        };
        match outcome {
            // It is not written down yet that it was given back.
            None | Some(Outcome::RefundDue) => return Ok(PaymentUpdate::Ahead),
            Some(Outcome::RefundFailed) => return Ok(PaymentUpdate::Nothing),
            Some(Outcome::Counted | Outcome::Refunded) => refund_failed(&order.stripe_id),
        }
        // Told first: where this breaks off, it is told once more, and not never.
        if outcome == Some(Outcome::Refunded) {
            let failed = Outcome::RefundFailed;
            self.store
                .payments
                .end_refund(&order.stripe_id, failed)
                .await?;
        }
        Ok(PaymentUpdate::Nothing)
    }

    /// The cardholder disputes a payment, or that is decided.
    pub(crate) async fn apply_dispute(
        &self,
        id: &DisputeId,
        intent: &IntentId,
        amount: Option<Cents>,
        state: DisputeState,
        now: Timestamp,
    ) -> Result<PaymentUpdate, ChargingError> {
        let closed = match state {
            // No money was moved.
            DisputeState::Inquiry | DisputeState::Other => return Ok(PaymentUpdate::Nothing),
            DisputeState::Open => None,
            DisputeState::Won => Some(true),
            DisputeState::Lost => Some(false),
        };
        let Some((order, _)) = self.paid_for(intent).await? else {
            return Ok(PaymentUpdate::Ahead);
        };
        let Some(account) = self.store.accounts.by_number(&order.account_number).await? else {
            return Ok(PaymentUpdate::Nothing);
        };
        if let Purchase::Credits { credits, .. } = &order.purchase {
            let cents = amount.map_or(order.amount_cents, Cents::get);
            let credits = share(*credits, cents, order.amount_cents);
            let name = id.as_str();
            let note = "card payment disputed";
            self.post(&account, name, EntryKind::Reversal, credits, note, now)
                .await?;
            if closed == Some(true) {
                // A grant, because it also pays what the dispute left owed.
                let (name, note) = (format!("{name}-won"), "dispute won");
                self.post(&account, &name, EntryKind::Grant, credits, note, now)
                    .await?;
            }
        } else if let Some((generation, period)) = period_of(&order) {
            let dispute = id.to_string();
            self.change(&account.id, now, |profile| {
                profile.add_on.apply(Fact::Disputed {
                    generation: generation.clone(),
                    period,
                    dispute: dispute.clone(),
                });
                if let Some(won) = closed {
                    profile.add_on.apply(Fact::DisputeClosed {
                        generation: generation.clone(),
                        dispute: dispute.clone(),
                        won,
                        at: now,
                    });
                }
            })
            .await?;
        }
        Ok(PaymentUpdate::Nothing)
    }

    /// Takes bought credits back, for the share of their price that was given back so far.
    async fn begin_reversal(
        &self,
        account: &Account,
        order: &PaymentOrder,
        entry: &EntryId,
        credits: Credits,
        cents: u64,
        now: Timestamp,
    ) -> Result<(), ChargingError> {
        let cents = cents.min(order.amount_cents);
        // One step at a time, each finished by whoever comes next.
        let (payments, stripe_id) = (&self.store.payments, &order.stripe_id);
        while let Some(step) = payments.begin_reversal(stripe_id, cents).await? {
            let to = step.to;
            let before = share(credits, step.from, order.amount_cents);
            let after = share(credits, to, order.amount_cents);
            let amount = after.checked_sub(before).unwrap_or(Credits::ZERO);
            let name = format!("{entry}-back-{to}");
            let note = "card payment given back";
            self.post(account, &name, EntryKind::Reversal, amount, note, now)
                .await?;
            payments.end_reversal(stripe_id, to).await?;
        }
        Ok(())
    }

    async fn post(
        &self,
        account: &Account,
        name: &str,
        kind: EntryKind,
        amount: Credits,
        note: &str,
        now: Timestamp,
    ) -> Result<(), ChargingError> {
        let posting = Posting {
            id: &EntryId::new(name)?,
            kind,
            amount: match kind {
                EntryKind::Reversal => amount.checked_neg().unwrap_or(Credits::ZERO),
                _ => amount,
            },
            at: now,
            note,
            actor: ACTOR,
        };
        self.store.ledger.post(&account.id, &posting).await?;
        Ok(())
    }

    /// What the payment object paid for, also where a checkout stands between.
    async fn paid_for(
        &self,
        intent: &IntentId,
    ) -> Result<Option<(PaymentOrder, Option<Outcome>)>, ChargingError> {
        let Some((order, outcome)) = self.store.payments.order(intent.as_str()).await? else {
            return Ok(None);
        };
        match &order.purchase {
            Purchase::Via { session } => Ok(self.store.payments.order(session).await?),
            _ => Ok(Some((order, outcome))),
        }
    }
}

/// Tells people that a payment was not given back.
pub(crate) fn refund_failed(object: &str) {
    tracing::error!(
        object,
        "a payment cannot be given back; somebody has to look"
    );
    edge::metric("refunds_failed", 1);
}

fn period_of(order: &PaymentOrder) -> Option<(GenerationId, Period)> {
    match &order.purchase {
        Purchase::Generation { .. } => {
            Some((GenerationId::new(order.stripe_id.as_str()), Period::FIRST))
        }
        Purchase::Period { generation, period } => Some((generation.clone(), *period)),
        Purchase::Credits { .. } | Purchase::Card | Purchase::Via { .. } => None,
    }
}

/// The part of `credits` that `cents` of their price `of` are, rounded up.
fn share(credits: Credits, cents: u64, of: u64) -> Credits {
    let micros = u128::try_from(credits.micros()).unwrap_or(0);
    let part = micros
        .saturating_mul(u128::from(cents))
        .div_ceil(u128::from(of.max(1)));
    Credits::from_micros(i64::try_from(part.min(micros)).unwrap_or(credits.micros()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_up_and_never_more_than_all() {
        let table = [
            (100, 0, 300, 0),
            (100, 100, 300, 34),
            (100, 300, 300, 100),
            (100, 900, 300, 100),
        ];
        for (credits, cents, of, expected) in table {
            let credits = Credits::from_micros(credits);
            assert_eq!(
                share(credits, cents, of).micros(),
                expected,
                "{cents} of {of}"
            );
        }
    }
}
