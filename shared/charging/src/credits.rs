//! Collection from credits: the price leaves the balance in the transaction that pays the period.

use account::add_on::{Collection, GenerationId};
use account::billing::PRICE_CENTS;
use account::{Account, EntryId, Period, Profile};
use jiff::Timestamp;
use store::{CreditPayment, EntryKind, PaymentOrder, Posting, Purchase};

use crate::context::{Context, MONTHLY_CHARGE};
use crate::error::Result;

/// Begins a generation, named after its ledger entry, if the credits suffice.
pub(crate) async fn activate(cx: Context<'_>, account: &Account) -> Result<CreditPayment> {
    let entry = EntryId::new(edge::new_id("addon"))?;
    let at = entry_time(cx);
    let generation = GenerationId::new(entry.as_str());
    let judge = |profile: &mut Profile| {
        billing::activate(profile, generation.clone(), at, Collection::Credits)
    };
    let period = (&generation, Period::FIRST);
    pay(cx, account, &entry, period, at, judge).await
}

/// Pays a period if the credits suffice. It is paid once, since its ledger entry is named after it.
pub(crate) async fn pay_period(
    cx: Context<'_>,
    account: &Account,
    generation: &GenerationId,
    period: Period,
) -> Result<CreditPayment> {
    let entry = EntryId::new(format!("{}-{}", generation.as_str(), period.number()))?;
    let at = entry_time(cx);
    let judge =
        |profile: &mut Profile| billing::period_paid(profile, generation, period, entry.as_str());
    pay(cx, account, &entry, (generation, period), at, judge).await
}

async fn pay(
    cx: Context<'_>,
    account: &Account,
    entry: &EntryId,
    (generation, period): (&GenerationId, Period),
    at: Timestamp,
    judge: impl FnMut(&mut Profile) -> bool,
) -> Result<CreditPayment> {
    let price = cx.settings.price;
    let posting = Posting {
        id: entry,
        kind: EntryKind::AddOn,
        amount: price.checked_neg().unwrap_or_default(),
        at,
        note: "OpenRouter add-on",
        actor: MONTHLY_CHARGE,
    };
    let order = PaymentOrder {
        stripe_id: entry.to_string(),
        account_number: account.number.clone(),
        purchase: Purchase::Period { generation: generation.clone(), period },
        amount_cents: PRICE_CENTS,
        created_at: at,
    };
    let ledger = &cx.store.ledger;
    Ok(ledger.pay_add_on(&account.id, &posting, &order, judge).await?)
}

/// The ledger is ordered by time: a new entry is never dated before an existing one.
fn entry_time(cx: Context<'_>) -> Timestamp {
    cx.now.max(cx.clock.now())
}
