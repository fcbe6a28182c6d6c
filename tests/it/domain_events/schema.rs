//! The events sent match `docs/events/domain-events.schema.json`.

use std::collections::BTreeSet;

use boon::{Compiler, SchemaIndex, Schemas};
use http::Method;
use local::openrouter::KeyBehaviour;
use local::stripe::Card;
use serde_json::{Value, json};

use super::{NOW, bought};
use crate::support::KEY;

struct Judge {
    document: Value,
    schemas: Schemas,
    events: SchemaIndex,
}

impl Judge {
    fn new() -> Self {
        let text = include_str!("../../../docs/events/domain-events.schema.json");
        let document: Value = serde_json::from_str(text).unwrap();
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.enable_format_assertions();
        let place = document["$id"].as_str().unwrap();
        compiler.add_resource(place, document.clone()).unwrap();
        let events = compiler.compile(place, &mut schemas).unwrap();
        Self { document, schemas, events }
    }

    fn accepts(&self, event: &Value) -> bool {
        self.schemas.validate(event, self.events).is_ok()
    }

    /// The kinds of events in the schema.
    fn kinds(&self) -> BTreeSet<&str> {
        let kinds = &self.document["properties"]["detail-type"]["enum"];
        let kinds = kinds.as_array().unwrap().iter();
        kinds.map(|kind| kind.as_str().unwrap()).collect()
    }

    /// The members that the schema gives this kind's detail.
    fn members(&self, kind: &Value) -> BTreeSet<&str> {
        let of_kind = |def: &&Value| def["properties"]["detail-type"]["const"] == *kind;
        let defs = self.document["$defs"].as_object().unwrap();
        let own = defs.values().find(of_kind).unwrap();
        [own, &self.document]
            .into_iter()
            .flat_map(|def| names(&def["properties"]["detail"]["properties"]))
            .collect()
    }
}

fn names(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn the_schema_has_an_example_of_each_kind() {
    let judge = Judge::new();
    let examples = judge.document["examples"].as_array().unwrap();
    let kinds = examples.iter().map(|example| example["detail-type"].as_str().unwrap());
    assert_eq!(kinds.collect::<BTreeSet<_>>(), judge.kinds());
    for example in examples {
        assert!(judge.accepts(example), "{example}");
        let kind = &example["detail-type"];
        assert_eq!(names(&example["detail"]), judge.members(kind), "{kind}");
        // Each member is required.
        for name in names(&example["detail"]) {
            let mut event = example.clone();
            event["detail"].as_object_mut().unwrap().remove(name);
            assert!(!judge.accepts(&event), "{kind} without {name}");
        }
    }
}

/// The events sent have exactly the schema's members.
#[tokio::test]
async fn sent_events_match_the_schema() {
    let world = bought().await;
    world.set_card(Card::DeclinesSoftly);
    world.tick_at_next_period().await;
    for _ in 0..8 {
        world.tick_later(super::DAY).await;
    }
    world.buy(Card::Succeeds).await;
    let owner = world.owner("acme");
    assert_eq!(owner.save_key(KEY).await.status, 200);
    world.openrouter().set_key(KEY, KeyBehaviour::Rejected);
    owner.say_hello().await;
    world.set("acme", json!({"credits": "0.5"})).await;
    world.subscription(Method::DELETE).await;
    world.tick_at_next_period().await;
    world.tick_in(NOW).await;

    let judge = Judge::new();
    let events = world.system.domain_events();
    let kinds = events.iter().map(|event| event["detail-type"].as_str().unwrap());
    assert_eq!(kinds.collect::<BTreeSet<_>>(), judge.kinds());
    for event in &events {
        assert!(judge.accepts(event), "{event}");
        let members = judge.members(&event["detail-type"]);
        assert_eq!(names(&event["detail"]), members, "{event}");
        assert!(!event.to_string().contains("sk-or"), "{event}");
    }
}
