//! The engines' behaviour that the product relies on, through the real SDK.

use aws_sdk_dynamodb::types::{
    AttributeValue, ConditionCheck, Put, ReturnValue, ReturnValuesOnConditionCheckFailure,
    TransactWriteItem, Update,
};
use aws_sdk_secretsmanager::error::ProvideErrorMetadata;

use super::*;
use crate::tables;

fn s(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn n(number: i64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

async fn started() -> (Engines, aws_sdk_dynamodb::Client) {
    let engines = Engines::start().await.unwrap();
    let client = engines.dynamodb();
    tables::create_all(engines.database()).unwrap();
    (engines, client)
}

/// Subtracts `amount` from `available` of account `a`, unless less is available.
fn debit(amount: i64) -> TransactWriteItem {
    let update = Update::builder()
        .table_name("AccountsTable")
        .key("account_id", s("a"))
        .key("item", s("account"))
        .update_expression("SET available = available - :amount")
        .condition_expression("available >= :amount")
        .expression_attribute_values(":amount", n(amount))
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
    TransactWriteItem::builder().update(update.build().unwrap()).build()
}

fn hold(id: &str) -> TransactWriteItem {
    let put = Put::builder()
        .table_name("HoldsTable")
        .item("account_number", s("n1"))
        .item("hold", s(id))
        .item("check_shard", s("3"))
        .item("next_check_at", s("2026-01-01T00:00:00Z"))
        .condition_expression("attribute_not_exists(#hold)")
        .expression_attribute_names("#hold", "hold")
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
    TransactWriteItem::builder().put(put.build().unwrap()).build()
}

async fn with_account(client: &aws_sdk_dynamodb::Client, available: i64) {
    let put = client.put_item().table_name("AccountsTable");
    let put = put.item("account_id", s("a")).item("item", s("account"));
    put.item("available", n(available)).send().await.unwrap();
}

async fn available(client: &aws_sdk_dynamodb::Client) -> AttributeValue {
    let get = client.get_item().table_name("AccountsTable").consistent_read(true);
    let get = get.key("account_id", s("a")).key("item", s("account"));
    get.send().await.unwrap().item.unwrap()["available"].clone()
}

#[tokio::test]
async fn a_transaction_is_atomic_and_reports_why_it_failed() {
    let (_engines, client) = started().await;
    with_account(&client, 100).await;
    let both = |amount, id| {
        client.transact_write_items().transact_items(debit(amount)).transact_items(hold(id))
    };

    both(60, "h1").send().await.unwrap();
    assert_eq!(available(&client).await, n(40));

    let error = both(60, "h2").send().await.unwrap_err().into_service_error();
    let aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError::TransactionCanceledException(error) = error else {
        panic!("{error}");
    };
    let reasons = error.cancellation_reasons();
    let codes: Vec<_> = reasons.iter().map(|reason| reason.code().unwrap()).collect();
    assert_eq!(codes, ["ConditionalCheckFailed", "None"]);
    assert_eq!(reasons[0].item().unwrap()["available"], n(40));
    assert!(reasons[1].item().is_none());

    let error = both(1, "h1").send().await.unwrap_err().into_service_error();
    assert_eq!(error.code(), Some("TransactionCanceledException"));
    assert_eq!(available(&client).await, n(40), "the debit was rolled back with the hold");
}

#[tokio::test]
async fn a_transaction_is_applied_once_per_token() {
    let (_engines, client) = started().await;
    with_account(&client, 100).await;
    let twice = |amount| {
        let write = client.transact_write_items().transact_items(debit(amount));
        write.client_request_token("token-1").send()
    };
    twice(30).await.unwrap();
    twice(30).await.unwrap();
    assert_eq!(available(&client).await, n(70));
    let error = twice(31).await.unwrap_err().into_service_error();
    assert_eq!(error.code(), Some("IdempotentParameterMismatchException"));
}

#[tokio::test]
async fn a_failed_condition_check_cancels() {
    let (_engines, client) = started().await;
    with_account(&client, 100).await;
    let check = ConditionCheck::builder()
        .table_name("LedgerTable")
        .key("account_number", s("n1"))
        .key("entry", s("e1"))
        .condition_expression("attribute_exists(entry)")
        .build()
        .unwrap();
    let check = TransactWriteItem::builder().condition_check(check).build();
    let write = client.transact_write_items();
    let write = write.transact_items(debit(1)).transact_items(check).send();
    let error = write.await.unwrap_err().into_service_error();
    assert_eq!(error.code(), Some("TransactionCanceledException"));
    assert_eq!(available(&client).await, n(100));
}

#[tokio::test]
async fn a_failed_update_returns_the_current_item() {
    let (_engines, client) = started().await;
    with_account(&client, 5).await;
    let update = client
        .update_item()
        .table_name("AccountsTable")
        .key("account_id", s("a"))
        .key("item", s("account"))
        .update_expression("SET available = :none")
        .condition_expression("available = :six")
        .expression_attribute_values(":none", n(0))
        .expression_attribute_values(":six", n(6))
        .return_values(ReturnValue::AllNew)
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
    let error = update.send().await.unwrap_err().into_service_error();
    let aws_sdk_dynamodb::operation::update_item::UpdateItemError::ConditionalCheckFailedException(
        error,
    ) = error
    else {
        panic!("{error}");
    };
    assert_eq!(error.item().unwrap()["available"], n(5));
}

#[tokio::test]
async fn a_sparse_index_lists_items_with_its_keys() {
    let (_engines, client) = started().await;
    for id in ["h2", "h1", "h3"] {
        let write = client.transact_write_items().transact_items(hold(id));
        write.send().await.unwrap();
    }
    let resolve = client
        .update_item()
        .table_name("HoldsTable")
        .key("account_number", s("n1"))
        .key("hold", s("h3"))
        .update_expression("REMOVE check_shard, next_check_at SET amount = :amount")
        .expression_attribute_values(":amount", n(1));
    resolve.send().await.unwrap();

    let due = |until: &str, limit| {
        client
            .query()
            .table_name("HoldsTable")
            .index_name("next_check")
            .key_condition_expression("check_shard = :shard AND next_check_at <= :until")
            .expression_attribute_values(":shard", s("3"))
            .expression_attribute_values(":until", s(until))
            .limit(limit)
    };
    let page = due("2026-06-01T00:00:00Z", 1).send().await.unwrap();
    assert_eq!(page.count(), 1);
    let rest = due("2026-06-01T00:00:00Z", 10);
    let rest = rest.set_exclusive_start_key(page.last_evaluated_key.clone());
    let rest = rest.send().await.unwrap();
    let mut found: Vec<_> = page.items().iter().chain(rest.items()).collect();
    found.sort_by_key(|item| item["hold"].as_s().unwrap().clone());
    let holds: Vec<_> = found.iter().map(|item| item["hold"].as_s().unwrap().as_str()).collect();
    assert_eq!(holds, ["h1", "h2"]);
    let mut members: Vec<_> = found[0].keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(members, ["account_number", "check_shard", "hold", "next_check_at"]);
    assert!(due("2025-01-01T00:00:00Z", 10).send().await.unwrap().items().is_empty());
}

#[tokio::test]
async fn concurrent_debits_never_go_below_zero() {
    let (_engines, client) = started().await;
    with_account(&client, 100).await;
    let debits = (0..64).map(|_| client.transact_write_items().transact_items(debit(7)).send());
    let results = futures_util::future::join_all(debits).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 14);
    assert_eq!(available(&client).await, n(2));
}

#[tokio::test]
async fn a_secret_is_created_once() {
    let engines = Engines::start().await.unwrap();
    let client = engines.secrets();
    let create = || client.create_secret().name("greta/openrouter/a/k1");
    create().secret_string("sk").client_request_token("t".repeat(32)).send().await.unwrap();
    create().secret_string("sk").client_request_token("t".repeat(32)).send().await.unwrap();
    let error = create().secret_string("other").send().await.unwrap_err().into_service_error();
    assert!(error.is_resource_exists_exception(), "{error}");
    assert_eq!(engines.secret_names().await, ["greta/openrouter/a/k1"]);

    let get = || client.get_secret_value().secret_id("greta/openrouter/a/k1").send();
    assert_eq!(get().await.unwrap().secret_string(), Some("sk"));
    let delete = || {
        let delete = client.delete_secret().secret_id("greta/openrouter/a/k1");
        delete.force_delete_without_recovery(true).send()
    };
    delete().await.unwrap();
    let error = get().await.unwrap_err().into_service_error();
    assert!(error.is_resource_not_found_exception(), "{error}");
    delete().await.unwrap();
    assert!(engines.secret_names().await.is_empty());

    create().secret_string("again").send().await.unwrap();
    assert_eq!(get().await.unwrap().secret_string(), Some("again"));
}

#[tokio::test]
async fn secrets_manager_fails_on_demand() {
    let engines = Engines::start().await.unwrap();
    let config = engines.secrets().config().to_builder();
    let once = aws_sdk_secretsmanager::config::retry::RetryConfig::disabled();
    let client = aws_sdk_secretsmanager::Client::from_conf(config.retry_config(once).build());
    let create = || client.create_secret().name("one").secret_string("sk").send();
    let get = || client.get_secret_value().secret_id("one").send();

    let faults = [
        (SecretsFault::Internal, "InternalServiceError"),
        (SecretsFault::AccessDenied, "AccessDeniedException"),
    ];
    for (fault, code) in faults {
        engines.fail_secrets(Some("CreateSecret"), fault);
        let error = create().await.unwrap_err().into_service_error();
        assert_eq!(error.code(), Some(code));
    }
    assert!(engines.secret_names().await.is_empty());
    engines.fail_secrets(Some("CreateSecret"), SecretsFault::ResponseLost);
    create().await.unwrap_err();
    assert_eq!(engines.secret_names().await, ["one"]);
    get().await.unwrap();

    engines.fail_secrets(None, SecretsFault::Internal);
    get().await.unwrap_err();
    engines.heal_secrets();
    get().await.unwrap();
    let operations = engines.secret_operations();
    assert_eq!(operations.iter().filter(|name| *name == "GetSecretValue").count(), 3);
}

#[tokio::test]
async fn stopped_engines_are_gone() {
    let engines = Engines::start().await.unwrap();
    let address = engines.dynamodb_url.strip_prefix("http://").unwrap().to_owned();
    tokio::net::TcpStream::connect(&address).await.unwrap();
    engines.stop().await;
    assert!(tokio::net::TcpStream::connect(&address).await.is_err());
}
