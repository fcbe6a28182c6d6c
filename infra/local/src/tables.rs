//! The deployment's tables, made in an engine: read from infra/template.yaml, so that there is one
//! definition of keys and indexes.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType, TimeToLiveSpecification,
};
use serde::Deserialize;

const TEMPLATE: &str = include_str!("../../template.yaml");

/// A table of the template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its logical id, for example `AccountsTable`.
    pub logical_id: String,
    properties: Properties,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Template {
    resources: BTreeMap<String, Resource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Resource {
    r#type: String,
    // Read only for tables: the others hold intrinsic functions at any place.
    #[serde(default)]
    properties: serde_yaml_ng::Value,
}

/// What a local engine needs to know; names, encryption and backups are the deployment's own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Properties {
    attribute_definitions: Vec<Attribute>,
    key_schema: Vec<Key>,
    #[serde(default)]
    global_secondary_indexes: Vec<Index>,
    time_to_live_specification: Option<TimeToLive>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attribute {
    #[serde(rename = "AttributeName")]
    name: String,
    #[serde(rename = "AttributeType")]
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Key {
    attribute_name: String,
    key_type: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Index {
    #[serde(rename = "IndexName")]
    name: String,
    key_schema: Vec<Key>,
    projection: IndexProjection,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct IndexProjection {
    projection_type: String,
    non_key_attributes: Option<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TimeToLive {
    attribute_name: String,
    enabled: bool,
}

/// The tables of infra/template.yaml, by logical id.
///
/// # Panics
/// If the template is no template, or a table in it lacks its keys.
pub fn all() -> Vec<Table> {
    parse(TEMPLATE).expect("infra/template.yaml defines its tables")
}

fn parse(template: &str) -> Result<Vec<Table>, serde_yaml_ng::Error> {
    let template: Template = serde_yaml_ng::from_str(template)?;
    template
        .resources
        .into_iter()
        .filter(|(_, resource)| resource.r#type == "AWS::DynamoDB::Table")
        .map(|(logical_id, resource)| {
            Ok(Table {
                logical_id,
                properties: serde_yaml_ng::from_value(resource.properties)?,
            })
        })
        .collect()
}

/// Creates every table of the template; `name_of` gives a table its name from its logical id.
///
/// # Errors
/// The engine's, for example if a table exists.
pub async fn create_all(
    client: &Client,
    name_of: impl Fn(&str) -> String,
) -> Result<(), aws_sdk_dynamodb::Error> {
    for table in all() {
        let name = name_of(&table.logical_id);
        create(client, &name, table.properties).await?;
    }
    Ok(())
}

async fn create(
    client: &Client,
    name: &str,
    table: Properties,
) -> Result<(), aws_sdk_dynamodb::Error> {
    let attributes = table.attribute_definitions.into_iter().map(attribute);
    let indexes: Vec<_> = table
        .global_secondary_indexes
        .into_iter()
        .map(index)
        .collect();
    client
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest)
        .set_attribute_definitions(Some(attributes.collect()))
        .set_key_schema(Some(keys(table.key_schema)))
        .set_global_secondary_indexes((!indexes.is_empty()).then_some(indexes))
        .send()
        .await?;
    if let Some(expiry) = table.time_to_live_specification {
        let expiry = TimeToLiveSpecification::builder()
            .attribute_name(expiry.attribute_name)
            .enabled(expiry.enabled)
            .build()
            .expect("both members are set");
        client
            .update_time_to_live()
            .table_name(name)
            .time_to_live_specification(expiry)
            .send()
            .await?;
    }
    Ok(())
}

fn attribute(attribute: Attribute) -> AttributeDefinition {
    AttributeDefinition::builder()
        .attribute_name(attribute.name)
        .attribute_type(ScalarAttributeType::from(attribute.kind.as_str()))
        .build()
        .expect("both members are set")
}

fn keys(keys: Vec<Key>) -> Vec<KeySchemaElement> {
    keys.into_iter()
        .map(|key| {
            KeySchemaElement::builder()
                .attribute_name(key.attribute_name)
                .key_type(KeyType::from(key.key_type.as_str()))
                .build()
                .expect("both members are set")
        })
        .collect()
}

fn index(index: Index) -> GlobalSecondaryIndex {
    let projection = Projection::builder()
        .projection_type(ProjectionType::from(
            index.projection.projection_type.as_str(),
        ))
        .set_non_key_attributes(index.projection.non_key_attributes)
        .build();
    GlobalSecondaryIndex::builder()
        .index_name(index.name)
        .set_key_schema(Some(keys(index.key_schema)))
        .projection(projection)
        .build()
        .expect("name and keys are set")
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::{TableDescription, TimeToLiveStatus};

    use super::*;
    use crate::engines::Engines;

    #[test]
    fn intrinsic_functions_are_passed_over() {
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
        let tables = parse(template).unwrap();
        assert_eq!(tables.len(), 1);
        assert_eq!(tables[0].logical_id, "OneTable");
        assert_eq!(tables[0].properties.key_schema[0].attribute_name, "id");
    }

    async fn described(client: &Client, name: &str) -> TableDescription {
        let answer = client.describe_table().table_name(name).send().await;
        answer.unwrap().table.unwrap()
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
    async fn the_tables_are_as_the_product_needs_them() {
        let engines = Engines::start().await.unwrap();
        let client = engines.dynamodb();
        create_all(&client, |id| format!("test-{id}"))
            .await
            .unwrap();

        let table = [
            (
                "test-AccountsTable",
                "HASH:account_id:S RANGE:item:S",
                Some("due KEYS_ONLY HASH:due_shard:S RANGE:due_at:S"),
                None,
            ),
            (
                "test-LedgerTable",
                "HASH:account_number:S RANGE:entry:S",
                None,
                None,
            ),
            (
                "test-HoldsTable",
                "HASH:account_number:S RANGE:hold:S",
                Some("next_check KEYS_ONLY HASH:check_shard:S RANGE:next_check_at:S"),
                Some("expires_at_epoch"),
            ),
            (
                "test-ChargesTable",
                "HASH:account_number:S RANGE:charge:S",
                Some("due KEYS_ONLY HASH:due_shard:S RANGE:due_at:S"),
                None,
            ),
            (
                "test-WebhooksTable",
                "HASH:event_id:S",
                Some("due KEYS_ONLY HASH:due_shard:S RANGE:due_at:S"),
                Some("expires_at_epoch"),
            ),
        ];
        assert_eq!(all().len(), table.len());
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
