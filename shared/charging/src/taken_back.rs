//! Payments that others than us take back: refunds from the provider's dashboard, and disputes. And money
//! that was given back and came back.

use account::add_on::{Fact, GenerationId};
use account::{Account, Credits, EntryId, Period};
use jiff::Timestamp;
use payments::{Cents, DisputeId, DisputeState, IntentId};
use store::{Buys, EntryKind, Outcome, Payable, Posting};

use crate::heard::ACTOR;
use crate::{Charging, ChargingError, News};

impl Charging {
    /// Card money went back. `refunded` is all of it so far.
    pub(crate) async fn heard_refund(
        &self,
        intent: &IntentId,
        refunded: Option<Cents>,
        full: bool,
        now: Timestamp,
    ) -> Result<News, ChargingError> {
        let Some((payable, outcome)) = self.paid_for(intent).await? else {
            return Ok(News::Ahead);
        };
        if outcome.is_some_and(|outcome| outcome != Outcome::Counted) {
            // Our own.
            return Ok(News::Nothing);
        }
        let Some(account) = self.store.account_of(&payable.account_number).await? else {
            return Ok(News::Nothing);
        };
        if let Buys::Credits { order, credits } = &payable.buys {
            let cents = if full {
                payable.amount_cents
            } else {
                refunded.map_or(0, Cents::get)
            };
            self.take_back(&account, &payable, order, *credits, cents, now)
                .await?;
        } else if let (true, Some((generation, period))) = (full, period_of(&payable)) {
            self.change(&account.id, now, |profile| {
                profile.add_on.apply(Fact::RefundedInFull {
                    generation: generation.clone(),
                    period,
                });
            })
            .await?;
        }
        Ok(News::Nothing)
    }

    /// Money that was given back, by us or by others, came back: its payer does not have it, and somebody
    /// has to look.
    pub(crate) async fn heard_failed_refund(
        &self,
        intent: &IntentId,
    ) -> Result<News, ChargingError> {
        let Some((payable, outcome)) = self.paid_for(intent).await? else {
            return Ok(News::Ahead);
        };
        match outcome {
            // It is not written down yet that it was given back.
            None | Some(Outcome::RefundDue) => return Ok(News::Ahead),
            Some(Outcome::RefundFailed) => return Ok(News::Nothing),
            Some(Outcome::Counted | Outcome::Refunded) => refund_failed(&payable.object),
        }
        // Told first: where this breaks off, it is told once more, and not never.
        if outcome == Some(Outcome::Refunded) {
            let failed = Outcome::RefundFailed;
            self.store.end_refund(&payable.object, failed).await?;
        }
        Ok(News::Nothing)
    }

    /// The cardholder disputes a payment, or that is decided.
    pub(crate) async fn heard_dispute(
        &self,
        id: &DisputeId,
        intent: &IntentId,
        amount: Option<Cents>,
        state: DisputeState,
        now: Timestamp,
    ) -> Result<News, ChargingError> {
        let closed = match state {
            // No money was moved.
            DisputeState::Inquiry | DisputeState::Other => return Ok(News::Nothing),
            DisputeState::Open => None,
            DisputeState::Won => Some(true),
            DisputeState::Lost => Some(false),
        };
        let Some((payable, _)) = self.paid_for(intent).await? else {
            return Ok(News::Ahead);
        };
        let Some(account) = self.store.account_of(&payable.account_number).await? else {
            return Ok(News::Nothing);
        };
        if let Buys::Credits { credits, .. } = &payable.buys {
            let cents = amount.map_or(payable.amount_cents, Cents::get);
            let credits = share(*credits, cents, payable.amount_cents);
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
        } else if let Some((generation, period)) = period_of(&payable) {
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
        Ok(News::Nothing)
    }

    /// Takes bought credits back, for the share of their price that was given back so far.
    async fn take_back(
        &self,
        account: &Account,
        payable: &Payable,
        order: &EntryId,
        credits: Credits,
        cents: u64,
        now: Timestamp,
    ) -> Result<(), ChargingError> {
        let cents = cents.min(payable.amount_cents);
        // One step at a time, each finished by whoever comes next.
        while let Some((from, to)) = self.store.take_back(&payable.object, cents).await? {
            let before = share(credits, from, payable.amount_cents);
            let after = share(credits, to, payable.amount_cents);
            let amount = after.checked_sub(before).unwrap_or(Credits::ZERO);
            let name = format!("{order}-back-{to}");
            let note = "card payment given back";
            self.post(account, &name, EntryKind::Reversal, amount, note, now)
                .await?;
            self.store.taken_back(&payable.object, to).await?;
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
        Ok(self.store.post(&account.id, &posting).await?.map(drop)?)
    }

    /// What the payment object paid for, also where a checkout stands between.
    async fn paid_for(
        &self,
        intent: &IntentId,
    ) -> Result<Option<(Payable, Option<Outcome>)>, ChargingError> {
        let Some((payable, outcome)) = self.store.payable(intent.as_str()).await? else {
            return Ok(None);
        };
        match &payable.buys {
            Buys::Through { session } => Ok(self.store.payable(session).await?),
            _ => Ok(Some((payable, outcome))),
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

fn period_of(payable: &Payable) -> Option<(GenerationId, Period)> {
    match &payable.buys {
        Buys::Generation { .. } => {
            Some((GenerationId::new(payable.object.as_str()), Period::FIRST))
        }
        Buys::Period { generation, period } => Some((generation.clone(), *period)),
        Buys::Credits { .. } | Buys::Card | Buys::Through { .. } => None,
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
