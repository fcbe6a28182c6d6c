//! Pages of the provider's on which credits are bought or a card is given: what came of them is looked up
//! once they have closed, if nobody told before.

use jiff::Timestamp;

use crate::due_index::{DueKind, due_shard};
use crate::error::condition_failed;
use crate::item::{text, time};
use crate::payments::{DuePayment, PaymentOrder, due_object, payable_item, payable_key};
use crate::{Store, StoreError};

impl Store {
    /// Stores what a page is for that changes nothing of the profile, before anybody is shown it. What came
    /// of it is looked up once it has closed, if nobody told before.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn ask_for_on_page(
        &self,
        order: &PaymentOrder,
        closes_at: Timestamp,
    ) -> Result<(), StoreError> {
        let mut item = payable_item(order)?;
        let shard = due_shard(DueKind::Page, &order.object);
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
    ) -> Result<Vec<Result<DuePayment, StoreError>>, StoreError> {
        let table = &self.tables.charges;
        self.due_in(table, DueKind::Page, shard, now, limit, due_object)
            .await
    }

    /// Puts a page off to `until`; for ever, if it is `None`.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn put_off_page(
        &self,
        due: &DuePayment,
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
            .expression_attribute_values(":shard", text(due_shard(DueKind::Page, &due.object)))
            .send()
            .await;
        match done {
            Ok(_) => Ok(()),
            Err(error) if condition_failed(&error) => Ok(()),
            Err(error) => Err(StoreError::unavailable("forget page", error)),
        }
    }
}
