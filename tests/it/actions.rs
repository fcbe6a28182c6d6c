//! The AWS permissions that each function uses while the tests run, which its role must grant, and
//! no others. `infra/checks` compares them with the template.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::{LazyLock, Mutex};

use serde_json::Value;

/// A line for each function, IAM action and resource, named as in the template. The tests append to
/// it; delete it before a comparison.
const FILE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/aws-actions");

static RECORDED: LazyLock<Mutex<BTreeSet<String>>> = LazyLock::new(Mutex::default);

/// Records the permissions that a request needs. `target` is that of AWS's JSON protocols, such as
/// `DynamoDB_20120810.GetItem`.
pub(crate) fn note(function: &str, target: &str, body: &[u8]) {
    let body: Value = serde_json::from_slice(body).unwrap();
    for (action, resource) in needed(target, &body) {
        let line = format!("{function} {action} {resource}\n");
        if RECORDED.lock().unwrap().insert(line.clone()) {
            let file = OpenOptions::new().create(true).append(true).open(FILE);
            file.unwrap().write_all(line.as_bytes()).unwrap();
        }
    }
}

/// The permissions that a request needs.
fn needed(target: &str, body: &Value) -> Vec<(String, String)> {
    let (service, operation) = target.split_once('.').unwrap();
    let named = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let one = |service: &str, action: &str, resource: String| {
        vec![(format!("{service}:{action}"), resource)]
    };
    match service {
        "DynamoDB_20120810" if operation == "TransactWriteItems" => {
            let items = body["TransactItems"].as_array().unwrap();
            items.iter().flat_map(in_transaction).collect()
        }
        "DynamoDB_20120810" => {
            let table = named("TableName");
            let resource = match body["IndexName"].as_str() {
                Some(index) => format!("{table}/index/{index}"),
                None => table,
            };
            one("dynamodb", operation, resource)
        }
        "secretsmanager" => {
            let name = body["SecretId"].as_str().or(body["Name"].as_str());
            one("secretsmanager", operation, secret(name.unwrap()))
        }
        "AmazonSQS" => {
            let action = operation.strip_suffix("Batch").unwrap_or(operation);
            one("sqs", action, "ChargeQueue".to_owned())
        }
        "AWSEvents" => one("events", operation, "EventBus".to_owned()),
        _ => panic!("unknown permission for {target}"),
    }
}

/// A transaction needs the permissions of its parts.
fn in_transaction(item: &Value) -> impl Iterator<Item = (String, String)> {
    let parts = item.as_object().unwrap().iter();
    parts.map(|(kind, part)| {
        let action = match kind.as_str() {
            "ConditionCheck" => "ConditionCheckItem",
            "Put" => "PutItem",
            "Update" => "UpdateItem",
            "Delete" => "DeleteItem",
            _ => panic!("unknown permission for {kind} in a transaction"),
        };
        let table = part["TableName"].as_str().unwrap();
        (format!("dynamodb:{action}"), table.to_owned())
    })
}

fn secret(name: &str) -> String {
    let known = match name {
        "greta/default-ai" => "DefaultAiSecret",
        "greta/stripe-api" => "StripeApiSecret",
        "greta/stripe-webhook" => "StripeWebhookSecret",
        _ if name.starts_with("greta/openrouter/") => "user secrets",
        _ => return format!("the secret {name}"),
    };
    known.to_owned()
}
