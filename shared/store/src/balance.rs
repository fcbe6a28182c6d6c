//! The one way in which credits move.

use account::{AccountId, Movement};
use aws_sdk_dynamodb::types::Update;
use aws_sdk_dynamodb::types::builders::UpdateBuilder;

use crate::accounts::account_key;
use crate::item::{micros, number};
use crate::{Store, StoreError};

/// Of all update expressions, the only one that changes a balance.
pub(crate) const MOVES: &str = "balance = balance + :balance, held = held + :held, \
     available = available + :available, owed = owed + :owed, \
     open_holds = open_holds + :open_holds, entries = entries + :entries, \
     moves = moves + :one";

impl Store {
    /// Changes the balance by `movement`, of which `entries` ledger entries tell. The conditions are
    /// the caller's.
    pub(crate) fn moves(
        &self,
        account: &AccountId,
        movement: Movement,
        entries: usize,
    ) -> Result<UpdateBuilder, StoreError> {
        let available = movement.available().map_err(StoreError::invalid)?;
        Ok(Update::builder()
            .table_name(&self.tables.accounts)
            .set_key(Some(account_key(account)))
            .update_expression(format!("SET {MOVES}"))
            .expression_attribute_values(":balance", micros(movement.balance))
            .expression_attribute_values(":held", micros(movement.held))
            .expression_attribute_values(":available", micros(available))
            .expression_attribute_values(":owed", micros(movement.owed))
            .expression_attribute_values(":open_holds", number(movement.open_holds))
            .expression_attribute_values(":entries", number(entries))
            .expression_attribute_values(":one", number(1)))
    }
}
