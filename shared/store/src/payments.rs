//! What the payment provider was asked for, and what became of each payment.
//!
//! What a payment is for is stored before anybody can make it; a payment of anything else counts for
//! nothing. Each has one outcome, written once, in the transaction of what it does to the account.

use account::add_on::{Collection, GenerationId};
use account::{Account, AccountId, AccountNumber, Credits, EntryId, Period, Profile};
use aws_sdk_dynamodb::types::{Put, TransactWriteItem, Update};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::accounts::Effect;
use crate::error::condition_failed;
use crate::events::DomainEvent;
use crate::item::{self, Item, get_number, get_text, key, number, text, time};
use crate::transaction::{self, TRIES};
use crate::work::{Work, due_shard};
use crate::{Store, StoreError};

/// Something that can be paid at the provider, as we asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payable {
    /// The provider's id of it: a checkout session or a payment intent.
    pub object: String,
    pub account_number: AccountNumber,
    pub buys: Buys,
    pub amount_cents: u64,
    pub asked_at: Timestamp,
}

/// What is paid for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Buys {
    /// The first period of a generation, which has the payable's name.
    Generation { collection: Collection },
    Period {
        generation: GenerationId,
        period: Period,
    },
    /// `order` is our own name of the purchase, and of its ledger entry.
    Credits { order: EntryId, credits: Credits },
    /// Nothing is paid: a card is given.
    Card,
    /// What the checkout session is for that this object paid.
    Through { session: String },
}

/// What became of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It paid for what it was asked for.
    Counted,
    /// It was not owed, and is to be given back.
    RefundDue,
    /// It was not owed, and is given back.
    Refunded,
    /// It was not owed, and cannot be given back the usual way: somebody has to look.
    RefundFailed,
}

/// News of a payment, taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub payable: Payable,
    pub outcome: Outcome,
    /// False if it was heard before.
    pub now: bool,
}

/// A payment that is to be given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueRefund {
    pub object: String,
    pub due: Timestamp,
}

/// A page of the provider's that has closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuePage {
    pub object: String,
    pub due: Timestamp,
}

/// What a deleted account left at the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueWindUp {
    pub account_number: AccountNumber,
    /// What could still be paid, by the provider's ids.
    pub objects: Vec<String>,
}

impl Store {
    /// What we asked for under this id of the provider's; with the outcome, if it was paid.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer or the item cannot be read.
    pub async fn payable(
        &self,
        object: &str,
    ) -> Result<Option<(Payable, Option<Outcome>)>, StoreError> {
        let read = self
            .client
            .get_item()
            .table_name(&self.tables.charges)
            .set_key(Some(payable_key(object)))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| StoreError::unavailable("read payment", error))?;
        read.item.map(|item| payable(object, &item)).transpose()
    }

    /// Stores what a page is for that changes nothing of the profile, before anybody is shown it. What came
    /// of it is looked up once it has closed, if nobody told before.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn ask_for_on_page(
        &self,
        payable: &Payable,
        closes_at: Timestamp,
    ) -> Result<(), StoreError> {
        let mut item = payable_item(payable)?;
        let shard = due_shard(Work::Page, &payable.object);
        item.insert("due_shard".to_owned(), text(shard));
        item.insert("due_at".to_owned(), time(closes_at));
        let items = vec![self.put_payable(item)?];
        // Cancelled only where it is there already.
        self.transact("store payment", items).await.map(drop)
    }

    /// The pages of one shard that have closed by `now`, and of which nothing was heard.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn due_pages(
        &self,
        shard: u8,
        now: Timestamp,
        limit: i32,
    ) -> Result<Vec<Result<DuePage, StoreError>>, StoreError> {
        let table = &self.tables.charges;
        self.due_in(table, Work::Page, shard, now, limit, due_page)
            .await
    }

    /// Puts a page off to `until`; for ever, if it is `None`.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn put_off_page(
        &self,
        due: &DuePage,
        until: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let (table, key) = (&self.tables.charges, payable_key(&due.object));
        if let Some(until) = until {
            return self.claim_in(table, key, due.due, until).await.map(drop);
        }
        let done = self
            .client
            .update_item()
            .table_name(table)
            .set_key(Some(key))
            .update_expression("REMOVE due_shard, due_at")
            // A payment that is to be given back has its own.
            .condition_expression("due_shard = :shard")
            .expression_attribute_values(":shard", text(due_shard(Work::Page, &due.object)))
            .send()
            .await;
        match done {
            Ok(_) => Ok(()),
            Err(error) if condition_failed(&error) => Ok(()),
            Err(error) => Err(StoreError::unavailable("forget page", error)),
        }
    }

    /// Stores what may be paid that changes nothing of the profile.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn ask_for(&self, payable: &Payable) -> Result<(), StoreError> {
        let items = vec![self.new_payable(payable)?];
        // Cancelled only where it is there already.
        self.transact("store payment", items).await.map(drop)
    }

    /// The account of this number; `None` once it is deleted and nothing is left of it.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer or the item cannot be read.
    pub async fn account_of(&self, number: &AccountNumber) -> Result<Option<Account>, StoreError> {
        let Some(item) = self.account_item(number.as_str(), NUMBER).await? else {
            return Ok(None);
        };
        let id = AccountId::new(get_text(&item, "id", NUMBER)?);
        let id = id.map_err(|_| StoreError::corrupt(NUMBER))?;
        let account = self.account(&id).await?;
        Ok(account.filter(|account| account.number == *number))
    }

    /// Takes in that `object` was paid. `judge` says whether it is owed, and changes the profile
    /// accordingly; it is called again if the profile changed meanwhile. Of an account that is gone,
    /// nothing is owed. `None` if we never asked for it.
    ///
    /// # Errors
    /// [`StoreError`] if the outcome is not known; hearing of it again is safe.
    pub async fn hear_payment(
        &self,
        object: &str,
        at: Timestamp,
        mut judge: impl FnMut(&Payable, &mut Profile) -> (bool, Vec<Effect>),
    ) -> Result<Option<Heard>, StoreError> {
        let mut doubted = false;
        for tried in 0..TRIES {
            let Some((payable, known)) = self.payable(object).await? else {
                return Ok(None);
            };
            if let Some(outcome) = known {
                return Ok(Some(Heard {
                    payable,
                    outcome,
                    now: false,
                }));
            }
            let (outcome, items) = match self.account_of(&payable.account_number).await? {
                Some(before) => {
                    let mut after = before.clone();
                    let (mut owed, effects) = judge(&payable, &mut after.profile);
                    // Where the provider collects, it may have collected a period twice.
                    if owed && tried > 0 && self.is_paid_by_another(&payable).await? {
                        (owed, after) = (false, before.clone());
                    }
                    let outcome = if owed {
                        Outcome::Counted
                    } else {
                        Outcome::RefundDue
                    };
                    let mut items = vec![self.ended(&payable, outcome, at)?];
                    if after.profile != before.profile {
                        after.revision += 1;
                        items.push(self.profile_update(&before, &after)?);
                        if let Some(event) = DomainEvent::add_on(&before, &after, at) {
                            items.push(self.effect(&before, Effect::Event(event))?);
                        }
                    }
                    if owed {
                        items.extend(self.paid_by(&payable, at)?);
                    }
                    for effect in effects {
                        items.push(self.effect(&before, effect)?);
                    }
                    (outcome, items)
                }
                None => {
                    let outcome = Outcome::RefundDue;
                    (outcome, vec![self.ended(&payable, outcome, at)?])
                }
            };
            match self.transact("hear of payment", items).await {
                Ok(Ok(())) => {
                    return Ok(Some(Heard {
                        payable,
                        outcome,
                        now: true,
                    }));
                }
                Ok(Err(_)) => transaction::pause(tried).await,
                // What is stored tells whether it took place.
                Err(StoreError::Unavailable { .. }) if !doubted => doubted = true,
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Contended {
            operation: "hear of payment",
        })
    }

    /// Is what it is for paid by another object?
    async fn is_paid_by_another(&self, payable: &Payable) -> Result<bool, StoreError> {
        let Buys::Period { generation, period } = &payable.buys else {
            return Ok(false);
        };
        let key = charge_key(&payable.account_number, generation.as_str(), *period);
        let read = self
            .client
            .get_item()
            .table_name(&self.tables.charges)
            .set_key(Some(key))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| StoreError::unavailable("read charge", error))?;
        let paid_by = read.item.and_then(|item| item.get("paid_by").cloned());
        Ok(paid_by.is_some_and(|paid_by| paid_by != text(&payable.object)))
    }

    /// Writes down what became of a payment that changes no profile. True if it is so by now.
    ///
    /// # Errors
    /// [`StoreError`] if the outcome is not known; ending it again is safe.
    pub async fn end_payment(
        &self,
        payable: &Payable,
        outcome: Outcome,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let items = vec![self.ended(payable, outcome, at)?];
        if self.transact("end payment", items).await?.is_ok() {
            return Ok(true);
        }
        let known = self.payable(&payable.object).await?;
        Ok(known.is_some_and(|(_, known)| known == Some(outcome)))
    }

    /// The payments of one shard that are to be given back at `now`, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn due_refunds(
        &self,
        shard: u8,
        now: Timestamp,
        limit: i32,
    ) -> Result<Vec<Result<DueRefund, StoreError>>, StoreError> {
        let table = &self.tables.charges;
        self.due_in(table, Work::Refund, shard, now, limit, due_refund)
            .await
    }

    /// Puts a payment that could not be given back off to `until`, so that it hides no other.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn put_off_refund(
        &self,
        due: &DueRefund,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        let (table, key) = (&self.tables.charges, payable_key(&due.object));
        self.claim_in(table, key, due.due, until).await.map(drop)
    }

    /// What deleted accounts of one shard left at the provider.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn due_wind_ups(
        &self,
        shard: u8,
        now: Timestamp,
        limit: i32,
    ) -> Result<Vec<Result<DueWindUp, StoreError>>, StoreError> {
        let table = &self.tables.charges;
        let rows = self.due_in(table, Work::WindUp, shard, now, limit, due_wind_up);
        let mut due = Vec::new();
        for account in rows.await? {
            due.push(match account {
                Ok(account) => self.wind_up(account).await,
                Err(error) => Err(error),
            });
        }
        Ok(due)
    }

    async fn wind_up(&self, account: AccountNumber) -> Result<DueWindUp, StoreError> {
        let read = self
            .client
            .get_item()
            .table_name(&self.tables.charges)
            .set_key(Some(wind_up_key(&account)))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| StoreError::unavailable("read wind-up", error))?;
        let objects = read.item.and_then(|item| item.get("objects").cloned());
        Ok(DueWindUp {
            account_number: account,
            objects: match objects {
                Some(objects) => item::from_attribute("wind-up", objects)?,
                None => Vec::new(),
            },
        })
    }

    /// What a deleted account left at the provider is done with, but for `left`, which is tried again
    /// at `again`.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer; it then comes up again.
    pub async fn wound_up(
        &self,
        account: &AccountNumber,
        left: &[String],
        again: Timestamp,
    ) -> Result<(), StoreError> {
        if left.is_empty() {
            let deleted = self
                .client
                .delete_item()
                .table_name(&self.tables.charges)
                .set_key(Some(wind_up_key(account)))
                .send()
                .await;
            return deleted
                .map(drop)
                .map_err(|error| StoreError::unavailable("wind up", error));
        }
        let item = wind_up_item(account, left, again)?;
        let put = self.client.put_item().table_name(&self.tables.charges);
        put.set_item(Some(item))
            .send()
            .await
            .map(drop)
            .map_err(|error| StoreError::unavailable("wind up", error))
    }

    /// What the account leaves at the provider; `None` if there is nothing.
    pub(crate) fn new_wind_up(
        &self,
        account: &Account,
        due: Timestamp,
    ) -> Result<Option<TransactWriteItem>, StoreError> {
        let objects = account.profile.billing.open_objects();
        if objects.is_empty() {
            return Ok(None);
        }
        let put = Put::builder()
            .table_name(&self.tables.charges)
            .set_item(Some(wind_up_item(&account.number, &objects, due)?));
        transaction::put(put).map(Some)
    }

    /// Writes down what became of giving a payment back.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer; saying it again is safe.
    pub async fn end_refund(&self, object: &str, outcome: Outcome) -> Result<(), StoreError> {
        self.client
            .update_item()
            .table_name(&self.tables.charges)
            .set_key(Some(payable_key(object)))
            .update_expression("SET outcome = :outcome REMOVE due_shard, due_at")
            .condition_expression("attribute_exists(outcome)")
            .expression_attribute_values(":outcome", item::to_attribute(PAYABLE, &outcome)?)
            .send()
            .await
            .map(drop)
            .map_err(|error| StoreError::unavailable("note refund", error))
    }

    /// Takes on to take back what `upto` cents of a purchase were for: from how many cents on, and up to
    /// how many. A step that somebody took on before is to be finished first. `None` if so many are
    /// taken back already.
    ///
    /// # Errors
    /// [`StoreError`] if the outcome is not known; asking again is safe.
    pub async fn take_back(
        &self,
        object: &str,
        upto: u64,
    ) -> Result<Option<(u64, u64)>, StoreError> {
        for tried in 0..TRIES {
            let read = self
                .client
                .get_item()
                .table_name(&self.tables.charges)
                .set_key(Some(payable_key(object)))
                .consistent_read(true)
                .send()
                .await
                .map_err(|error| StoreError::unavailable("read payment", error))?;
            let item = read.item.ok_or_else(|| StoreError::corrupt(PAYABLE))?;
            let from = get_number(&item, "taken_back", PAYABLE)?;
            if item.contains_key("taking_back") {
                let to = get_number(&item, "taking_back", PAYABLE)?;
                return Ok(Some((from, to)));
            }
            if upto <= from {
                return Ok(None);
            }
            let update = Update::builder()
                .table_name(&self.tables.charges)
                .set_key(Some(payable_key(object)))
                .update_expression("SET taking_back = :to")
                .condition_expression("taken_back = :from AND attribute_not_exists(taking_back)")
                .expression_attribute_values(":from", number(from))
                .expression_attribute_values(":to", number(upto));
            let taken = self.transact("take back", vec![transaction::update(update)?]);
            if taken.await?.is_ok() {
                return Ok(Some((from, upto)));
            }
            transaction::pause(tried).await;
        }
        Err(StoreError::Contended {
            operation: "take back",
        })
    }

    /// The step up to `to` cents is finished. Saying it again changes nothing.
    ///
    /// # Errors
    /// [`StoreError`] if the outcome is not known.
    pub async fn taken_back(&self, object: &str, to: u64) -> Result<(), StoreError> {
        let update = Update::builder()
            .table_name(&self.tables.charges)
            .set_key(Some(payable_key(object)))
            .update_expression("SET taken_back = :to REMOVE taking_back")
            .condition_expression("taking_back = :to")
            .expression_attribute_values(":to", number(to));
        let update = vec![transaction::update(update)?];
        self.transact("take back", update).await.map(drop)
    }

    pub(crate) fn new_payable(&self, payable: &Payable) -> Result<TransactWriteItem, StoreError> {
        self.put_payable(payable_item(payable)?)
    }

    fn put_payable(&self, item: Item) -> Result<TransactWriteItem, StoreError> {
        let put = Put::builder()
            .table_name(&self.tables.charges)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(payer)");
        transaction::put(put)
    }

    /// A payment's one outcome.
    fn ended(
        &self,
        payable: &Payable,
        outcome: Outcome,
        at: Timestamp,
    ) -> Result<TransactWriteItem, StoreError> {
        let update = Update::builder()
            .table_name(&self.tables.charges)
            .set_key(Some(payable_key(&payable.object)))
            .condition_expression("attribute_exists(payer) AND attribute_not_exists(outcome)")
            .expression_attribute_values(":outcome", item::to_attribute(PAYABLE, &outcome)?)
            .expression_attribute_values(":at", time(at));
        transaction::update(if outcome == Outcome::RefundDue {
            let shard = due_shard(Work::Refund, &payable.object);
            update
                .update_expression(
                    "SET outcome = :outcome, heard_at = :at, due_shard = :shard, due_at = :at",
                )
                .expression_attribute_values(":shard", text(shard))
        } else {
            update.update_expression(
                "SET outcome = :outcome, heard_at = :at REMOVE due_shard, due_at",
            )
        })
    }

    /// The charge record of a period: one for each generation and period, paid by one payment.
    pub(crate) fn paid_by(
        &self,
        payable: &Payable,
        at: Timestamp,
    ) -> Result<Option<TransactWriteItem>, StoreError> {
        let (generation, period) = match &payable.buys {
            Buys::Generation { .. } => (payable.object.as_str(), Period::FIRST),
            Buys::Period { generation, period } => (generation.as_str(), *period),
            Buys::Credits { .. } | Buys::Card | Buys::Through { .. } => return Ok(None),
        };
        let update = Update::builder()
            .table_name(&self.tables.charges)
            .set_key(Some(charge_key(
                &payable.account_number,
                generation,
                period,
            )))
            .update_expression("SET paid_by = :object, paid_at = :at, amount_cents = :amount")
            .condition_expression("attribute_not_exists(paid_by)")
            .expression_attribute_values(":object", text(&payable.object))
            .expression_attribute_values(":at", time(at))
            .expression_attribute_values(":amount", number(payable.amount_cents));
        transaction::update(update).map(Some)
    }

    /// The charge record of a period that was missed. A payment of it that comes all the same is written
    /// beside that.
    pub(crate) fn waived(
        &self,
        account: &AccountNumber,
        generation: &GenerationId,
        period: Period,
        at: Timestamp,
    ) -> Result<TransactWriteItem, StoreError> {
        let update = Update::builder()
            .table_name(&self.tables.charges)
            .set_key(Some(charge_key(account, generation.as_str(), period)))
            // No condition: it takes nothing away, and is written with the profile that says so.
            .update_expression("SET waived_at = if_not_exists(waived_at, :at)")
            .expression_attribute_values(":at", time(at));
        transaction::update(update)
    }

    /// The way from an account's number to the account.
    pub(crate) fn new_number(
        &self,
        account: &AccountNumber,
        id: &AccountId,
    ) -> Result<TransactWriteItem, StoreError> {
        let mut item = number_key(account);
        item.insert("id".to_owned(), text(id.as_str()));
        let put = Put::builder()
            .table_name(&self.tables.accounts)
            .set_item(Some(item));
        transaction::put(put)
    }
}

const PAYABLE: &str = "payment";
/// The range key of the item that leads from an account's number to the account.
const NUMBER: &str = "number";

pub(crate) fn number_key(account: &AccountNumber) -> Item {
    key([("account_id", account.as_str()), ("item", NUMBER)])
}

fn payable_key(object: &str) -> Item {
    let object = format!("object#{object}");
    key([("account_number", object.as_str()), ("charge", "object")])
}

fn payable_item(payable: &Payable) -> Result<Item, StoreError> {
    let mut item = payable_key(&payable.object);
    let attributes = [
        ("payer", text(payable.account_number.as_str())),
        ("buys", item::to_attribute(PAYABLE, &payable.buys)?),
        ("amount_cents", number(payable.amount_cents)),
        ("asked_at", time(payable.asked_at)),
        ("taken_back", number(0)),
    ];
    item.extend(attributes.map(|(name, value)| (name.to_owned(), value)));
    Ok(item)
}

fn wind_up_key(account: &AccountNumber) -> Item {
    key([("account_number", account.as_str()), ("charge", "wind_up")])
}

fn wind_up_item(
    account: &AccountNumber,
    objects: &[String],
    due: Timestamp,
) -> Result<Item, StoreError> {
    let mut item = wind_up_key(account);
    let shard = due_shard(Work::WindUp, account.as_str());
    let objects = item::to_attribute("wind-up", &objects)?;
    item.insert("objects".to_owned(), objects);
    item.insert("due_shard".to_owned(), text(shard));
    item.insert("due_at".to_owned(), time(due));
    Ok(item)
}

fn charge_key(account: &AccountNumber, generation: &str, period: Period) -> Item {
    let charge = format!("{generation}#{:04}", period.number());
    key([("account_number", account.as_str()), ("charge", &charge)])
}

fn payable(object: &str, item: &Item) -> Result<(Payable, Option<Outcome>), StoreError> {
    let corrupt = || StoreError::corrupt(PAYABLE);
    let number = AccountNumber::new(get_text(item, "payer", PAYABLE)?);
    let buys = item.get("buys").cloned().ok_or_else(corrupt)?;
    let outcome = item.get("outcome").cloned();
    let outcome = outcome.map(|outcome| item::from_attribute(PAYABLE, outcome));
    let payable = Payable {
        object: object.to_owned(),
        account_number: number.map_err(|_| corrupt())?,
        buys: item::from_attribute(PAYABLE, buys)?,
        amount_cents: get_number(item, "amount_cents", PAYABLE)?,
        asked_at: item::get_time(item, "asked_at", PAYABLE)?,
    };
    Ok((payable, outcome.transpose()?))
}

fn due_wind_up(item: &Item) -> Result<AccountNumber, StoreError> {
    const WHAT: &str = "due wind-up";
    let account = AccountNumber::new(get_text(item, "account_number", WHAT)?);
    account.map_err(|_| StoreError::corrupt(WHAT))
}

fn due_refund(item: &Item) -> Result<DueRefund, StoreError> {
    let (object, due) = due_object("due refund", item)?;
    Ok(DueRefund { object, due })
}

fn due_page(item: &Item) -> Result<DuePage, StoreError> {
    let (object, due) = due_object("due page", item)?;
    Ok(DuePage { object, due })
}

fn due_object(what: &'static str, item: &Item) -> Result<(String, Timestamp), StoreError> {
    let name = get_text(item, "account_number", what)?;
    let object = name.strip_prefix("object#");
    let object = object.ok_or_else(|| StoreError::corrupt(what))?.to_owned();
    Ok((object, item::get_time(item, "due_at", what)?))
}
