//! Payments: each has one outcome, written in the transaction of its effect on the account.

use account::{Account, Profile};
use jiff::Timestamp;

use crate::accounts::{account_by_number, set_profile};
use crate::db::Db;
use crate::due_index::{DueTask, order_key};
use crate::effects::Effect;
use crate::error::StoreError;
use crate::item::{Attributes, Item, text};
use crate::orders::{
    Outcome, PaymentOrder, Purchase, charge_key, order_item, put_order, read_order, set_outcome,
    set_paid,
};
use crate::outbox::put_add_on_event;
use crate::retry::Retry;
use crate::write::{Transacted, Write, update};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub order: PaymentOrder,
    pub outcome: Outcome,
    /// False if an earlier call applied it.
    pub by_this_call: bool,
}

#[derive(Debug, Clone)]
pub struct Payments {
    pub(crate) db: Db,
}

impl Payments {
    /// The order with this Stripe id, and its outcome once it was paid.
    pub async fn order(
        &self,
        stripe_id: &str,
    ) -> Result<Option<(PaymentOrder, Option<Outcome>)>, StoreError> {
        let item = self.item(stripe_id).await?;
        item.map(|item| read_order(stripe_id, &item)).transpose()
    }

    pub(crate) async fn item(&self, stripe_id: &str) -> Result<Option<Item>, StoreError> {
        self.db.charge("read order", order_key(stripe_id)).await
    }

    /// Stores an order that does not change the profile. A known order stays as it is.
    pub async fn create_order(&self, order: &PaymentOrder) -> Result<(), StoreError> {
        self.create(order_item(order)?).await
    }

    /// Stores a Checkout Session's order, to look up after it closes if Stripe reports nothing.
    pub async fn create_session_order(
        &self,
        order: &PaymentOrder,
        closes_at: Timestamp,
    ) -> Result<(), StoreError> {
        let mut item = order_item(order)?;
        item.extend(session_task(&order.stripe_id).item(closes_at));
        self.create(item).await
    }

    async fn create(&self, item: Item) -> Result<(), StoreError> {
        let items = vec![put_order(&self.db, item)];
        // The condition fails only if the order exists.
        self.db.transact("store order", items).await.map(drop)
    }

    /// A closed Checkout Session needs no look-up any more.
    pub async fn close_session(&self, stripe_id: &str) -> Result<(), StoreError> {
        let (table, key) = (&self.db.tables.charges, order_key(stripe_id));
        let update = update(table, key, "REMOVE due_shard, due_at")
            // Another task, such as a refund, stays due.
            .condition_expression("due_shard = :shard")
            .expression_attribute_values(":shard", text(session_task(stripe_id).partition()));
        self.db.write("close session", update).await.map(drop)
    }

    /// Applies a payment. `judge` says whether it is owed, and changes the profile accordingly; it
    /// is called again if the profile has changed meanwhile. A deleted account owes nothing. `None`
    /// if there is no such order. Applying it again is safe.
    pub async fn apply(
        &self,
        stripe_id: &str,
        at: Timestamp,
        mut judge: impl FnMut(&PaymentOrder, &mut Profile) -> (bool, Vec<Effect>),
    ) -> Result<Option<Applied>, StoreError> {
        let mut retry = Retry::new("apply payment");
        loop {
            let Some((order, known)) = self.order(stripe_id).await? else {
                return Ok(None);
            };
            if let Some(outcome) = known {
                return Ok(Some(Applied { order, outcome, by_this_call: false }));
            }
            let account = account_by_number(&self.db, &order.account_number).await?;
            let (outcome, items) = match account {
                Some(before) => {
                    let mut after = before.clone();
                    let (mut owed, effects) = judge(&order, &mut after.profile);
                    // Stripe may have collected a period twice.
                    if owed && !retry.is_first_try() && self.is_paid_by_another(&order).await? {
                        (owed, after) = (false, before.clone());
                    }
                    self.judged(&order, owed, &before, after, &effects, at)?
                }
                None => {
                    let outcome = Outcome::RefundDue;
                    (outcome, vec![set_outcome(&self.db, &order, outcome, at)?])
                }
            };
            let written = self.db.transact("apply payment", items).await;
            if retry.is_done(written.map(Transacted::succeeded)).await? {
                return Ok(Some(Applied { order, outcome, by_this_call: true }));
            }
        }
    }

    fn judged(
        &self,
        order: &PaymentOrder,
        owed: bool,
        before: &Account,
        mut after: Account,
        effects: &[Effect],
        at: Timestamp,
    ) -> Result<(Outcome, Vec<Write>), StoreError> {
        let db = &self.db;
        let outcome = if owed { Outcome::Counted } else { Outcome::RefundDue };
        let mut items = vec![set_outcome(db, order, outcome, at)?];
        if after.profile != before.profile {
            after.revision += 1;
            items.push(set_profile(db, before, &after)?.into());
            items.extend(put_add_on_event(db, before, &after, at)?);
        }
        if owed {
            items.extend(set_paid(db, order, at));
        }
        for effect in effects {
            items.push(effect.write(db, before)?);
        }
        Ok((outcome, items))
    }

    async fn is_paid_by_another(&self, order: &PaymentOrder) -> Result<bool, StoreError> {
        let Purchase::Period { generation, period } = &order.purchase else {
            return Ok(false);
        };
        let key = charge_key(&order.account_number, generation.as_str(), *period);
        let Some(charge) = self.db.charge("read charge", key).await? else {
            return Ok(false);
        };
        let paid_by = Attributes::of("charge", &charge).optional::<String>("paid_by")?;
        Ok(paid_by.is_some_and(|paid_by| paid_by != order.stripe_id))
    }

    /// Writes the outcome of a payment that changes no profile. True if the stored one is the same.
    pub async fn set_outcome(
        &self,
        order: &PaymentOrder,
        outcome: Outcome,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let items = vec![set_outcome(&self.db, order, outcome, at)?];
        if self.db.transact("set outcome", items).await?.succeeded() {
            return Ok(true);
        }
        let known = self.order(&order.stripe_id).await?;
        Ok(known.is_some_and(|(_, known)| known == Some(outcome)))
    }
}

fn session_task(stripe_id: &str) -> DueTask {
    DueTask::CheckoutSession(stripe_id.to_owned())
}
