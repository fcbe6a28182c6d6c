//! `docs/events/account-events.schema.json` and the function accept the same events.

use account_events::AccountEvent;
use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::{Value, json};

use super::{deleted, upserted};

struct Judges {
    document: Value,
    schemas: Schemas,
    events: SchemaIndex,
}

impl Judges {
    fn new() -> Self {
        let text = include_str!("../../../docs/events/account-events.schema.json");
        let document: Value = serde_json::from_str(text).unwrap();
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.enable_format_assertions();
        let place = document["$id"].as_str().unwrap();
        compiler.add_resource(place, document.clone()).unwrap();
        let events = compiler.compile(place, &mut schemas).unwrap();
        Self { document, schemas, events }
    }

    /// Whether both accept the event; they must agree.
    fn accept(&self, event: &Value) -> bool {
        let by_schema = self.schemas.validate(event, self.events).is_ok();
        let by_function = AccountEvent::parse(event).is_ok();
        assert_eq!(by_schema, by_function, "schema, function: {event}");
        by_schema
    }
}

/// The event with one value replaced.
fn with(event: &Value, at: &str, value: &Value) -> Value {
    let mut event = event.clone();
    let (place, name) = at.rsplit_once('/').unwrap();
    event.pointer_mut(place).unwrap()[name] = value.clone();
    event
}

fn both() -> [Value; 2] {
    [upserted("acme", "standard", 7), deleted("acme", 7)]
}

#[test]
fn the_examples_are_events() {
    let judges = Judges::new();
    let examples = judges.document["examples"].as_array().unwrap();
    let kinds = examples.iter().map(|example| example["detail-type"].as_str().unwrap());
    assert_eq!(kinds.collect::<Vec<_>>(), ["account.upserted", "account.deleted"]);
    for event in examples.iter().chain(&both()) {
        assert!(judges.accept(event), "{event}");
    }
}

#[test]
fn well_formed_events_are_accepted() {
    let judges = Judges::new();
    let table = [
        ("/detail/account_id", json!("A-z_09")),
        ("/detail/account_id", json!("x".repeat(64))),
        ("/detail/version", json!(0)),
        ("/detail/version", json!(7.0)),
        ("/detail/version", json!(9_007_199_254_740_991_u64)),
        ("/detail/more", json!({"plan": 1})),
        ("/time", json!("2026-11-23T10:00:00.123456Z")),
        ("/time", json!("2026-11-23T10:00:00+05:30")),
        ("/source", json!("somebody.else")),
        ("/id", json!(null)),
        ("/more", json!([])),
    ];
    for (at, value) in table {
        for event in both() {
            assert!(judges.accept(&with(&event, at, &value)), "{at} {value}");
        }
    }
}

#[test]
fn malformed_events_are_refused() {
    let judges = Judges::new();
    let table = [
        ("/detail-type", json!("account.merged")),
        ("/detail-type", json!("Account.Upserted")),
        ("/detail-type", json!(1)),
        ("/time", json!("2026-11-23")),
        ("/time", json!("2026-13-23T10:00:00Z")),
        ("/time", json!("2026-11-23T10:00:00")),
        ("/time", json!("")),
        ("/time", json!(1_795_428_000)),
        ("/time", json!(null)),
        ("/detail", json!(null)),
        ("/detail", json!([])),
        ("/detail", json!("{\"account_id\":\"acme\",\"plan\":\"standard\",\"version\":7}")),
        ("/detail/account_id", json!("")),
        ("/detail/account_id", json!("x".repeat(65))),
        ("/detail/account_id", json!("a b")),
        ("/detail/account_id", json!("acme\n")),
        ("/detail/account_id", json!("ä")),
        ("/detail/account_id", json!(7)),
        ("/detail/version", json!("7")),
        ("/detail/version", json!(-1)),
        ("/detail/version", json!(7.5)),
        ("/detail/version", json!(9_007_199_254_740_992_u64)),
        ("/detail/version", json!(1e300)),
        ("/detail/version", json!(null)),
        ("/detail/version", json!(true)),
    ];
    for (at, value) in table {
        for event in both() {
            assert!(!judges.accept(&with(&event, at, &value)), "{at} {value}");
        }
    }
    let [upserted, deleted] = both();
    for plan in [json!("free"), json!("Standard"), json!(null), json!({"standard": null})] {
        assert!(!judges.accept(&with(&upserted, "/detail/plan", &plan)), "{plan}");
        assert!(judges.accept(&with(&deleted, "/detail/plan", &plan)), "not read");
    }
    for event in [json!(null), json!([]), json!("account.upserted"), json!({})] {
        assert!(!judges.accept(&event), "{event}");
    }
}

#[test]
fn required_fields_must_be_present() {
    let judges = Judges::new();
    let [upserted, deleted] = both();
    let table = [
        (&upserted, "", "detail-type"),
        (&upserted, "", "time"),
        (&upserted, "", "detail"),
        (&upserted, "/detail", "account_id"),
        (&upserted, "/detail", "plan"),
        (&upserted, "/detail", "version"),
        (&deleted, "/detail", "account_id"),
        (&deleted, "/detail", "version"),
    ];
    for (event, place, missing) in table {
        let mut event = event.clone();
        let place = event.pointer_mut(place).unwrap();
        place.as_object_mut().unwrap().remove(missing).unwrap();
        assert!(!judges.accept(&event), "{missing}");
    }
}
