//! Compares `infra/template.yaml` with the functions: the settings that each one gets and reads,
//! and its routes.

use std::collections::{BTreeMap, BTreeSet};

use edge::{Env, SettingsError};
use http::Method;
use serde_yaml_ng::{Mapping, Value};

use crate::support::World;

const TEMPLATE: &str = include_str!("../../infra/template.yaml");
/// Read by every function's log.
const LOG_LEVEL: &str = "LOG_LEVEL";
/// Read by `lambda_http`: without it, paths begin with the stage's name.
const WITHOUT_STAGE: &str = "AWS_LAMBDA_HTTP_IGNORE_STAGE_IN_PATH";

/// Routes that need no token.
const PUBLIC: [&str; 6] = [
    "/",
    "/assets/{version}/{name}",
    "/openapi.json",
    "/plans",
    "/settings/integrations",
    "/v1/webhooks/stripe",
];

fn template() -> Value {
    serde_yaml_ng::from_str(TEMPLATE).unwrap()
}

/// The properties of all functions.
fn functions(template: &Value) -> Vec<&Value> {
    let resources = template["Resources"].as_mapping().unwrap().values();
    let functions = resources.filter(|it| it["Type"] == "AWS::Serverless::Function");
    functions.map(|it| &it["Properties"]).collect()
}

/// The paths that lead to a function.
fn routes(function: &Value) -> Vec<&str> {
    let events = function.get("Events").and_then(Value::as_mapping);
    let events = events.into_iter().flat_map(Mapping::values);
    let routes = events.filter(|event| event["Type"] == "Api");
    let paths = routes.filter_map(|event| event["Properties"]["Path"].as_str());
    paths.collect()
}

/// Whether the function of this name accepts its settings.
fn settings_of(function: &str, env: Env) -> Result<(), SettingsError> {
    match function {
        "account-events" => account_events::Settings::from_env(env).map(drop),
        "ai-proxy" => ai_proxy::Settings::from_env(env).map(drop),
        "integration-settings" => integration_settings::Settings::from_env(env).map(drop),
        "key-save" => key_save::Settings::from_env(env).map(drop),
        "monthly-charge" => monthly_charge::Settings::from_env(env).map(drop),
        "reconciler" => reconciler::Settings::from_env(env).map(drop),
        "settings-page" => settings_page::Settings::from_env(env).map(drop),
        "subscription-webhook" => subscription_webhook::Settings::from_env(env).map(drop),
        _ => panic!("unknown function {function}"),
    }
}

/// A variable's value if no parameter is set. Values known only at deployment become a placeholder
/// address.
fn value(template: &Value, variable: &Value) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        other => panic!("{other:?} is not text"),
    };
    match variable {
        Value::Tagged(tagged) if tagged.tag == "!Ref" => {
            let parameter = &template["Parameters"][text(&tagged.value).as_str()];
            let default = parameter.get("Default").map(text);
            default.unwrap_or_else(|| "https://greta.example/some".to_owned())
        }
        Value::Tagged(_) => "https://greta.example/some".to_owned(),
        literal => text(literal),
    }
}

/// Each function gets exactly the settings that it reads, and accepts their defaults.
#[test]
fn each_function_gets_the_settings_it_reads() {
    let template = template();
    let functions = functions(&template);
    assert_eq!(functions.len(), 8);
    for function in functions {
        let Value::Tagged(name) = &function["FunctionName"] else {
            panic!("{function:?} has no name");
        };
        let name = name.value.as_str().unwrap();
        let name = name.strip_prefix("greta-byok-${Stage}-").unwrap();
        let variables = function["Environment"]["Variables"].as_mapping().unwrap();
        let mut given: BTreeMap<String, String> = variables
            .iter()
            .map(|(name, given)| (name.as_str().unwrap().to_owned(), value(&template, given)))
            .collect();
        assert!(given.remove(LOG_LEVEL).is_some(), "{name}: {LOG_LEVEL}");
        let is_http = !routes(function).is_empty();
        assert_eq!(given.remove(WITHOUT_STAGE).is_some(), is_http, "{name}");

        let env = Env::from_pairs(given.clone());
        let names = env.names();
        let settings = settings_of(name, env);
        assert!(settings.is_ok(), "{name}: {settings:?}");
        let names = names.lock().unwrap();
        let read: BTreeSet<&str> = names.iter().copied().collect();
        let given: BTreeSet<&str> = given.keys().map(String::as_str).collect();
        assert_eq!(given, read, "{name}");
    }
}

/// Every route of the API requires a token, except the public ones.
#[tokio::test]
async fn only_public_routes_respond_without_a_token() {
    let world = World::start().await;
    let template = template();
    let mut public = BTreeSet::new();
    for path in functions(&template).into_iter().flat_map(routes) {
        let mut refused = 0;
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let at = path.replace("{version}", "latest").replace("{name}", "page.js");
            let method: Method = method.parse().unwrap();
            let request = world.request(method.clone(), &at).body("{}");
            match world.send(request).await.status.as_u16() {
                401 => refused += 1,
                405 => {}
                other => assert!(PUBLIC.contains(&path), "{method} {path} answers {other}"),
            }
        }
        if refused == 0 {
            public.insert(path);
        }
    }
    assert_eq!(public, BTreeSet::from(PUBLIC));
}

/// Every path of the OpenAPI document is a route of the deployment.
#[test]
fn the_template_routes_every_documented_path() {
    let template = template();
    let routes: BTreeSet<&str> = functions(&template).into_iter().flat_map(routes).collect();
    let document: serde_json::Value =
        serde_json::from_str(include_str!("../../docs/openapi.json")).unwrap();
    for path in document["paths"].as_object().unwrap().keys() {
        assert!(routes.contains(path.as_str()), "{path}");
    }
}

/// The README registers exactly the Stripe events that the code reads.
#[test]
fn the_readme_registers_the_events_that_are_read() {
    let readme = include_str!("../../infra/README.md");
    let reader = include_str!("../../shared/payments/src/event.rs");
    let is_event = |word: &&str| {
        let object = word.split('.').next().unwrap_or_default();
        word.contains('.')
            && ["checkout", "payment_intent", "charge", "refund", "invoice", "customer"]
                .contains(&object)
    };
    let registered: BTreeSet<&str> = readme.split_whitespace().filter(is_event).collect();
    let (reader, _) = reader.split_once("mod tests").unwrap_or((reader, ""));
    let read: BTreeSet<&str> = reader.split('"').filter(is_event).collect();
    assert!(read.len() > 15, "{read:?}");
    assert_eq!(registered, read);
}
