//! `infra/template.yaml` beside the functions: what it gives each and what the function asks for, and its
//! routes.

use std::collections::{BTreeMap, BTreeSet};

use edge::{Env, SettingsError};
use http::Method;
use serde_yaml_ng::{Mapping, Value};

use crate::support::World;

const TEMPLATE: &str = include_str!("../../infra/template.yaml");
/// Asked for by every function's log.
const LOG_LEVEL: &str = "LOG_LEVEL";
/// Asked for by `lambda_http`: without it, paths begin with the stage's name.
const WITHOUT_STAGE: &str = "AWS_LAMBDA_HTTP_IGNORE_STAGE_IN_PATH";

/// What answers who has no token.
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
        _ => panic!("{function} is no function"),
    }
}

/// What a variable has if no parameter is set. What only a deployment knows has some address.
fn value(template: &Value, variable: &Value) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        other => panic!("{other:?} is no text"),
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

/// Each function is given all the settings that it reads, and none that it does not; and accepts what it
/// is given unless told otherwise.
#[test]
fn each_function_is_given_what_it_asks_for() {
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

/// Whatever the API leads to asks who is calling, but for what is public.
#[tokio::test]
async fn nothing_else_answers_without_a_token() {
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

/// The provider sends what the handbook has registered, and nothing else is read.
#[test]
fn the_handbook_registers_the_events_that_are_read() {
    let handbook = include_str!("../../infra/README.md");
    let reader = include_str!("../../shared/payments/src/event.rs");
    let is_event = |word: &&str| {
        let object = word.split('.').next().unwrap_or_default();
        word.contains('.')
            && ["checkout", "payment_intent", "charge", "refund", "invoice", "customer"]
                .contains(&object)
    };
    let registered: BTreeSet<&str> = handbook.split_whitespace().filter(is_event).collect();
    let (reader, _) = reader.split_once("mod tests").unwrap_or((reader, ""));
    let read: BTreeSet<&str> = reader.split('"').filter(is_event).collect();
    assert!(read.len() > 15, "{read:?}");
    assert_eq!(registered, read);
}
