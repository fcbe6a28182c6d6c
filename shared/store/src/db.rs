//! The DynamoDB client and the tables, shared by all parts of the store.

use std::sync::Arc;

use account::{Credits, Plan};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;

use crate::error::StoreError;
use crate::item::Item;

#[derive(Debug, Clone)]
pub struct Tables {
    pub accounts: String,
    pub ledger: String,
    pub holds: String,
    pub charges: String,
    pub webhooks: String,
}

impl Tables {
    /// `value_of` returns a setting's value.
    pub fn from_settings(mut value_of: impl FnMut(&'static str) -> String) -> Self {
        Self {
            accounts: value_of("ACCOUNTS_TABLE"),
            ledger: value_of("LEDGER_TABLE"),
            holds: value_of("HOLDS_TABLE"),
            charges: value_of("CHARGES_TABLE"),
            webhooks: value_of("WEBHOOKS_TABLE"),
        }
    }
}

pub(crate) type Db = Arc<Database>;

#[derive(Debug, Clone)]
pub(crate) struct Database {
    pub(crate) client: Client,
    pub(crate) tables: Tables,
    /// See [`crate::Store::with_low_credits_events`].
    pub(crate) low_below: Option<Credits>,
}

impl Database {
    /// The item as it is now: one strongly consistent read.
    pub(crate) async fn get(
        &self,
        operation: &'static str,
        table: &str,
        key: Item,
    ) -> Result<Option<Item>, StoreError> {
        let read = self
            .client
            .get_item()
            .table_name(table)
            .set_key(Some(key))
            .consistent_read(true)
            .send();
        // The SDK's futures are large, and those that contain them are moved several times.
        let output = Box::pin(read).await;
        let output = output.map_err(|error| StoreError::unavailable(operation, error))?;
        Ok(output.item)
    }

    pub(crate) async fn charge(
        &self,
        operation: &'static str,
        key: Item,
    ) -> Result<Option<Item>, StoreError> {
        self.get(operation, &self.tables.charges, key).await
    }

    pub(crate) async fn query(
        &self,
        operation: &'static str,
        query: QueryFluentBuilder,
    ) -> Result<Vec<Item>, StoreError> {
        let items = query.into_paginator().items().send();
        let items = Box::pin(items.collect::<Result<_, _>>()).await;
        items.map_err(|error| StoreError::unavailable(operation, error))
    }

    /// The balance at which `credits.low` is published for accounts of this plan.
    pub(crate) fn low_below(&self, plan: Plan) -> Option<Credits> {
        self.low_below.filter(|_| routing::minimum_balance_applies(plan))
    }
}
