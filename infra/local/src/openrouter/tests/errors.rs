//! The documented errors: as a status, inside a 200, and mid-stream.

use std::collections::BTreeMap;

use super::*;

fn documented() -> BTreeMap<String, Value> {
    let all: Vec<Value> = serde_json::from_str(include_str!(
        "../../../../../shared/upstream/tests/openrouter-errors.json"
    ))
    .unwrap();
    let by_id = |error: Value| (error["id"].as_str().unwrap().to_owned(), error);
    all.into_iter().map(by_id).collect()
}

#[tokio::test]
async fn every_documented_error_is_served_as_it_is_documented() {
    let rig = Rig::start().await;
    let documented = documented();
    let mut served = 0;
    for error in super::documented::of_calls() {
        let (id, fact) = (&error.id, &documented[&error.id]);
        let response = rig.call(&format!("sim/error/{id}"), false).send().await.unwrap();
        assert_eq!(response.status().as_u16(), error.status, "{id}");
        let retry_after = response.headers().get("retry-after").cloned();
        let body = json_of(&response.text().await.unwrap());
        if error.status == 200 {
            assert_eq!(rig.last().cost, "0", "{id}");
        } else {
            assert_eq!(retry_after.is_some(), fact["headers"]["Retry-After"].is_string(), "{id}");
            assert_eq!(rig.last().outcome, CallOutcome::Refused(error.status), "{id}");
        }
        assert_eq!(body["error"], fact["body"]["error"], "{id}");
        served += 1;
    }
    assert!(served > 100, "{served}");
}

#[tokio::test]
async fn an_error_can_come_after_a_200() {
    let rig = Rig::start().await;
    let documented = documented();
    for id in ["oas-502", "obs-429-free-per-day", "doc-midstream-chat-429", "doc-dlp-403"] {
        let error = &documented[id]["body"]["error"];
        for place in ["first", "mid"] {
            let model = format!("sim-priced/{place}/{id}");
            let body = json_of(&rig.whole(&model, false).await);
            assert_eq!(body["error"], *error, "{model}");
            assert!(body.get("choices").is_none(), "{model}");
            assert_eq!(body["id"], rig.last().generation_id, "{model}");

            let text = rig.whole(&model, true).await;
            let events: Vec<Value> = data(&text).into_iter().map(json_of).collect();
            let last = events.last().unwrap();
            assert_eq!(last["error"], *error, "{model}");
            assert_eq!(last["choices"][0]["finish_reason"], "error", "{model}");
            assert_eq!(last["id"], rig.last().generation_id, "{model}");
            assert_eq!(events.len(), if place == "first" { 1 } else { 3 }, "{model}");
            let is_free = rig.last().cost == "0";
            assert_eq!(is_free, place == "first", "{model}");
        }
    }
}

#[tokio::test]
async fn responses_without_content_are_served_too() {
    let rig = Rig::start().await;
    for (id, reason) in [
        ("doc-zero-completion-blank", Value::Null),
        ("new-200-refusal-success-chat", json!("content_filter")),
    ] {
        let model = format!("sim/error/{id}");
        let body = json_of(&rig.whole(&model, false).await);
        assert_eq!(body["choices"][0]["finish_reason"], reason, "{id}");
        let text = rig.whole(&model, true).await;
        let event = json_of(data(&text)[0]);
        assert_eq!(event["choices"][0]["finish_reason"], reason, "{id}");
        assert_eq!(event["choices"][0]["delta"], body["choices"][0]["message"], "{id}");
    }
}
