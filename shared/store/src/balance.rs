//! The only way to move credits.

use account::{AccountId, Movement};
use aws_sdk_dynamodb::types::builders::UpdateBuilder;

use crate::db::Database;
use crate::error::StoreError;
use crate::item::{account_key, micros, number};
use crate::write::update;

/// The only update expression that changes a balance.
pub(crate) const MOVE: &str = "balance = balance + :balance, held = held + :held, \
     available = available + :available, owed = owed + :owed, \
     open_holds = open_holds + :open_holds, entries = entries + :entries, \
     moves = moves + :one";

/// Changes the balance by `movement` and `entries` ledger entries. The caller adds the conditions.
pub(crate) fn move_credits(
    db: &Database,
    account: &AccountId,
    movement: Movement,
    entries: usize,
) -> Result<UpdateBuilder, StoreError> {
    let available = movement.available().map_err(StoreError::invalid)?;
    let (table, key) = (&db.tables.accounts, account_key(account));
    Ok(update(table, key, format!("SET {MOVE}"))
        .expression_attribute_values(":balance", micros(movement.balance))
        .expression_attribute_values(":held", micros(movement.held))
        .expression_attribute_values(":available", micros(available))
        .expression_attribute_values(":owed", micros(movement.owed))
        .expression_attribute_values(":open_holds", number(movement.open_holds))
        .expression_attribute_values(":entries", number(entries))
        .expression_attribute_values(":one", number(1)))
}
