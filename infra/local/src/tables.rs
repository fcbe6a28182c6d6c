//! The deployment's tables, created in the engine as infra/template.yaml defines them, so that keys
//! and indexes are defined once.

use std::collections::BTreeMap;

use dynoxide::{Database, DynoxideError};
use serde::Deserialize;
use serde_json::json;
use serde_yaml_ng::Value;

const TEMPLATE: &str = include_str!("../../template.yaml");

/// The properties that an engine needs. `CreateTable` uses the same names.
const PROPERTIES: [&str; 3] = ["AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes"];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Template {
    resources: BTreeMap<String, Resource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Resource {
    r#type: String,
    #[serde(default)]
    properties: Value,
}

/// The properties of the template's tables, by logical id.
fn tables(template: &str) -> BTreeMap<String, Value> {
    let template: Template = serde_yaml_ng::from_str(template).expect("the template has resources");
    let resources = template.resources.into_iter();
    resources
        .filter(|(_, resource)| resource.r#type == "AWS::DynamoDB::Table")
        .map(|(logical_id, resource)| (logical_id, resource.properties))
        .collect()
}

/// Creates every table of the template, named by its logical id.
pub fn create_all(database: &Database) -> Result<(), DynoxideError> {
    for (name, table) in tables(TEMPLATE) {
        let mut request = json!({"TableName": name, "BillingMode": "PAY_PER_REQUEST"});
        for property in PROPERTIES {
            if let Some(value) = table.get(property) {
                request[property] = json!(value);
            }
        }
        let request = serde_json::from_value(request).expect("the template's tables have keys");
        database.create_table(request)?;
        if let Some(expiry) = table.get("TimeToLiveSpecification") {
            let request = json!({"TableName": name, "TimeToLiveSpecification": expiry});
            let request = serde_json::from_value(request).expect("expiry names an attribute");
            database.update_time_to_live(request)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::Client;
    use aws_sdk_dynamodb::types::{KeySchemaElement, TableDescription, TimeToLiveStatus};

    use super::*;
    use crate::engines::Engines;

    #[test]
    fn intrinsic_functions_are_skipped() {
        let template = r#"
            Resources:
              Function:
                Type: AWS::Serverless::Function
                Properties: {Role: !GetAtt Role.Arn, Events: !If [A, {B: !Ref C}, !Ref D]}
              OneTable:
                Type: AWS::DynamoDB::Table
                Properties:
                  TableName: !Sub "${Stage}-one"
                  Tags: [{Key: !Ref A, Value: !Sub "b"}]
                  AttributeDefinitions: [{AttributeName: id, AttributeType: S}]
                  KeySchema: [{AttributeName: id, KeyType: HASH}]
              Queue:
                Type: AWS::SQS::Queue
        "#;
        let tables = tables(template);
        assert_eq!(tables.len(), 1);
        assert_eq!(tables["OneTable"]["KeySchema"][0]["AttributeName"], "id");
    }

    async fn described(client: &Client, name: &str) -> TableDescription {
        let response = client.describe_table().table_name(name).send().await;
        response.unwrap().table.unwrap()
    }

    /// `hash/range`, each with its type.
    fn key_text(table: &TableDescription, keys: &[KeySchemaElement]) -> String {
        let of = |key: &KeySchemaElement| {
            let name = key.attribute_name();
            let definition = table.attribute_definitions().iter();
            let mut found = definition.filter(|attribute| attribute.attribute_name() == name);
            let kind = found.next().unwrap().attribute_type();
            format!("{}:{name}:{kind}", key.key_type())
        };
        keys.iter().map(of).collect::<Vec<_>>().join(" ")
    }

    #[tokio::test]
    async fn the_tables_have_the_keys_and_indexes_that_the_product_needs() {
        let engines = Engines::start().await.unwrap();
        let client = engines.dynamodb();
        create_all(engines.database()).unwrap();

        let table = [
            (
                "AccountsTable",
                "HASH:account_id:S RANGE:item:S",
                Some("due KEYS_ONLY HASH:due_shard:S RANGE:due_at:S"),
                None,
            ),
            ("LedgerTable", "HASH:account_number:S RANGE:entry:S", None, None),
            (
                "HoldsTable",
                "HASH:account_number:S RANGE:hold:S",
                Some("next_check KEYS_ONLY HASH:check_shard:S RANGE:next_check_at:S"),
                Some("expires_at_epoch"),
            ),
            (
                "ChargesTable",
                "HASH:account_number:S RANGE:charge:S",
                Some("due KEYS_ONLY HASH:due_shard:S RANGE:due_at:S"),
                None,
            ),
            (
                "WebhooksTable",
                "HASH:event_id:S",
                Some("due KEYS_ONLY HASH:due_shard:S RANGE:due_at:S"),
                Some("expires_at_epoch"),
            ),
        ];
        assert_eq!(tables(TEMPLATE).len(), table.len());
        for (name, keys, index, expiry) in table {
            let found = described(&client, name).await;
            assert_eq!(key_text(&found, found.key_schema()), keys);
            let indexes: Vec<_> = found
                .global_secondary_indexes()
                .iter()
                .map(|index| {
                    let projection = index.projection().unwrap().projection_type().unwrap();
                    let keys = key_text(&found, index.key_schema());
                    format!("{} {projection} {keys}", index.index_name().unwrap())
                })
                .collect();
            assert_eq!(indexes, Vec::from_iter(index), "{name}");
            let ttl = client.describe_time_to_live().table_name(name).send().await;
            let ttl = ttl.unwrap().time_to_live_description.unwrap();
            assert_eq!(ttl.attribute_name(), expiry, "{name}");
            let enabled = ttl.time_to_live_status() == Some(&TimeToLiveStatus::Enabled);
            assert_eq!(enabled, expiry.is_some(), "{name}");
        }
    }
}
