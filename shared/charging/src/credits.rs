//! Collection from credits: the price leaves the balance in the transaction that pays the period.

use account::add_on::{Collection, GenerationId};
use account::billing::PRICE_CENTS;
use account::{Account, EntryId, Period};
use jiff::Timestamp;
use store::{CreditPayment, EntryKind, PaymentOrder, Posting, Purchase};

use crate::{Charging, ChargingError};

/// Who takes the price, in the ledger, and gives it up, in the account's history.
pub(crate) const ACTOR: &str = "monthly-charge";

impl Charging {
    /// Begins a generation, named by its ledger entry, if credits suffice.
    pub(crate) async fn activate(
        &self,
        account: &Account,
        now: Timestamp,
    ) -> Result<CreditPayment, ChargingError> {
        let id = EntryId::new(edge::new_id("addon"))?;
        let at = self.entered_at(now);
        let generation = GenerationId::new(id.as_str());
        let buys = (generation.clone(), Period::FIRST);
        let judge = |profile: &mut account::Profile| {
            billing::activate(profile, generation.clone(), at, Collection::Credits)
        };
        self.pay_with_credits(account, &id, buys, at, judge).await
    }

    /// Pays a period of the generation, if credits suffice. The ledger entry has one name for each
    /// period, so that it is paid once.
    pub(crate) async fn pay_period(
        &self,
        account: &Account,
        generation: &GenerationId,
        period: Period,
        now: Timestamp,
    ) -> Result<CreditPayment, ChargingError> {
        let id = EntryId::new(format!("{}-{}", generation.as_str(), period.number()))?;
        let at = self.entered_at(now);
        let buys = (generation.clone(), period);
        let judge = |profile: &mut account::Profile| {
            billing::period_paid(profile, generation, period, id.as_str())
        };
        self.pay_with_credits(account, &id, buys, at, judge).await
    }

    async fn pay_with_credits(
        &self,
        account: &Account,
        id: &EntryId,
        (generation, period): (GenerationId, Period),
        at: Timestamp,
        judge: impl FnMut(&mut account::Profile) -> bool,
    ) -> Result<CreditPayment, ChargingError> {
        let price = self.settings.price.checked_neg().unwrap_or_default();
        let posting = Posting {
            id,
            kind: EntryKind::AddOn,
            amount: price,
            at,
            note: "OpenRouter add-on",
            actor: ACTOR,
        };
        let order = PaymentOrder {
            stripe_id: id.to_string(),
            account_number: account.number.clone(),
            purchase: Purchase::Period { generation, period },
            amount_cents: PRICE_CENTS,
            created_at: at,
        };
        let paid = self
            .store
            .ledger
            .pay_add_on(&account.id, &posting, &order, judge);
        Ok(paid.await?)
    }

    /// The ledger is read in the order of time: nothing is entered before what is there.
    fn entered_at(&self, now: Timestamp) -> Timestamp {
        now.max(self.clock.now())
    }
}
