//! Calls paid for in credits: costs, holds and refusals.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{World, hello};

#[tokio::test]
async fn the_charge_is_the_cost_rounded_up() {
    let world = World::start().await;
    let owner = world.owner("acme");
    let models = [
        "openai/gpt-4o-mini",
        "openai/gpt-4o",
        "sim-priced/scientific-cost",
        "sim-priced/zero-cost-byok",
        "meta-llama/llama-3.3-70b-instruct:free",
    ];
    for model in models {
        world.set("acme", json!({"credits": "100"})).await;
        let reply = owner.say_hello_to(model).await;
        assert_eq!(reply.status, 200, "{model}: {}", reply.text());
        let call = world.default_ai().calls().pop().unwrap();
        let cost = call.upstream_inference_cost.unwrap_or(call.cost);
        let cost: account::Usd = cost.parse().unwrap();
        let rate = account::CreditsPerUsd::new(10).unwrap();
        let credits = cost.in_credits(rate).unwrap().to_string();
        assert_eq!(reply.header("x-greta-credits-charged"), credits, "{model}");
        assert_eq!(reply.header("x-greta-model"), model);
        let entry = owner.ledger().await.remove(0);
        let amount = entry["amount"].as_str().unwrap();
        assert_eq!(amount.trim_start_matches('-'), credits);
        assert_eq!(entry["kind"], "call");
        assert_eq!(entry["note"], model);
        world.settled_balance("acme").await;
    }
}

#[tokio::test]
async fn only_fields_with_bounded_cost_reach_the_default_ai() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let owner = world.owner("acme");
    let mut body = hello();
    body["temperature"] = json!(0.1);
    body["service_tier"] = json!("priority");
    body["max_tokens"] = json!(4);
    let reply = owner.chat(&body).await;
    assert_eq!(reply.json()["choices"][0]["finish_reason"], "length");
    let sent = world.default_ai().calls().pop().unwrap();
    let sent: Value = serde_json::from_slice(&sent.body).unwrap();
    let members: Vec<_> = sent.as_object().unwrap().keys().collect();
    assert_eq!(members, ["max_tokens", "messages", "model", "temperature"]);
    assert_eq!((&sent["max_tokens"], &sent["model"]), (&json!(4), &json!("openai/gpt-4o-mini")));

    for (name, value) in [
        ("n", json!(2)),
        ("models", json!(["a"])),
        ("plugins", json!([])),
        ("provider", json!({})),
        ("preset", json!("x")),
        ("model", json!("openai/gpt-4o-mini:online")),
        ("model", json!("@preset/mine")),
    ] {
        let mut body = hello();
        body[name] = value;
        let reply = owner.chat(&body).await;
        assert_eq!(reply.error(), (400, "unsupported_on_credits".to_owned()), "{name}");
        assert_eq!(reply.receipt().0, "none");
    }
    for model in ["openrouter/auto", "perplexity/sonar", "no/such-model", "sim/ok"] {
        let reply = owner.say_hello_to(model).await;
        assert_eq!(reply.error(), (400, "model_not_priced".to_owned()), "{model}");
    }
    assert_eq!(world.default_ai().calls().len(), 1);
}

#[tokio::test]
async fn low_credits_shorten_the_response() {
    let world = World::start().await;
    let owner = world.owner("acme");
    world.set("acme", json!({"credits": "0.001"})).await;
    let reply = owner.say_hello().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let sent = world.default_ai().calls().pop().unwrap();
    let sent: Value = serde_json::from_slice(&sent.body).unwrap();
    let limit = sent["max_tokens"].as_u64().unwrap();
    assert!((16..170).contains(&limit), "{limit}");

    // Covers the prompt and 10 tokens: below the minimum of 16, but all that the caller wants.
    world.set("acme", json!({"credits": "0.00052"})).await;
    let refused = owner.say_hello().await;
    assert_eq!(refused.error(), (402, "insufficient_credits".to_owned()));
    let mut body = hello();
    body["max_completion_tokens"] = json!(3);
    assert_eq!(owner.chat(&body).await.status, 200);
}

/// 300 parallel calls of an account that can hold about a dozen at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_calls_never_overspend() {
    const START: i64 = 8_400;
    let world = World::start().await;
    world.set("acme", json!({"credits": "0.0084"})).await;
    let owner = world.owner("acme");
    let mut body = hello();
    body["max_tokens"] = json!(50);
    let calls_done = async {
        let replies = join_all((0..300).map(|_| owner.chat(&body))).await;
        replies.iter().map(|reply| reply.status.as_u16()).collect::<Vec<_>>()
    };
    let watch = async {
        loop {
            let balance = world.system.account("acme").await.balance;
            assert!(!balance.available().is_negative(), "{balance:?}");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let statuses = tokio::select! {
        statuses = calls_done => statuses,
        () = watch => unreachable!("it never ends"),
    };
    assert!(statuses.iter().all(|status| [200, 402, 429].contains(status)), "{statuses:?}");
    let paid = statuses.iter().filter(|status| **status == 200).count();
    assert!(paid > 5, "{paid}");
    let calls = world.default_ai().calls();
    assert_eq!(calls.len(), paid, "no call without a hold");
    let left = |calls: &[local::openrouter::RecordedCall]| {
        let charged: i64 = calls.iter().map(|call| credits_of(&call.cost)).sum();
        account::Credits::from_micros(START - charged).to_string()
    };
    assert_eq!(world.settled_balance("acme").await, left(&calls));
    assert_ne!(left(&calls), "0");

    // The remainder can be spent until it no longer covers the cheapest call: its template, and the
    // JSON around its empty text.
    let mut smallest = hello();
    smallest["messages"][0]["content"] = json!("");
    smallest["max_tokens"] = json!(1);
    let (without_text, json_around) = (390, 45);
    let mut spent = 0;
    loop {
        let next = owner.card().await["next_call"]["payer"].clone();
        let before = credits_of_balance(&world).await;
        let reply = owner.chat(&smallest).await;
        let covered = before >= without_text + json_around;
        assert_eq!(reply.status == 200, covered, "{before}: {}", reply.text());
        assert_eq!(next == "greta_credits", before >= without_text, "the card predicts it");
        if !covered {
            assert_eq!(reply.error(), (402, "insufficient_credits".to_owned()));
            break;
        }
        spent += 1;
    }
    assert!(spent > 0);
    let rest = world.settled_balance("acme").await;
    assert_eq!(rest, left(&world.default_ai().calls()));
}

/// Upstream's dollars in micro-credits.
fn credits_of(usd: &str) -> i64 {
    let usd: account::Usd = usd.parse().unwrap();
    let rate = account::CreditsPerUsd::new(10).unwrap();
    usd.in_credits(rate).unwrap().micros()
}

async fn credits_of_balance(world: &World) -> i64 {
    world.system.account("acme").await.balance.available().micros()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_calls_are_limited() {
    let world = World::with_settings(&[("MAX_CONCURRENT_HOLDS", "3")]).await;
    world.set("acme", json!({"credits": "7"})).await;
    let owner = world.owner("acme");
    let mut body = hello();
    body["model"] = json!("sim-priced/slow-head-500");
    let replies = join_all((0..8).map(|_| owner.chat(&body))).await;
    let paid = replies.iter().filter(|reply| reply.status == 200).count();
    assert_eq!(paid, 3);
    let refused = replies.iter().find(|reply| reply.status != 200).unwrap();
    assert_eq!(refused.error(), (429, "too_many_calls".to_owned()));
    assert_eq!(refused.receipt(), ("none".to_owned(), "too_many_calls".to_owned()));
    assert_ne!(refused.header("retry-after"), "");
    world.settled_balance("acme").await;
}

#[tokio::test]
async fn an_idempotency_key_is_paid_for_once() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    world.set("other", json!({"credits": "7"})).await;
    let (owner, other) = (world.owner("acme"), world.owner("other"));
    let with_key = |caller: &crate::support::Caller<'_>, model: &str, key: &str| {
        let mut body = hello();
        body["model"] = json!(model);
        world.send(caller.chat_request(&body).header("idempotency-key", key))
    };
    let model = "openai/gpt-4o-mini";
    assert_eq!(with_key(&owner, model, "k1").await.status, 200);
    let again = with_key(&owner, model, "k1").await;
    assert_eq!(again.error(), (409, "duplicate_call".to_owned()));
    assert_eq!(again.header("x-should-retry"), "false");
    assert_eq!(again.receipt(), ("none".to_owned(), "duplicate_call".to_owned()));
    assert_eq!(with_key(&other, model, "k1").await.status, 200, "another account's");
    assert_eq!(with_key(&owner, model, "k2").await.status, 200, "another key");

    // A released call may be repeated; so may a refused one.
    assert_eq!(with_key(&owner, "sim-priced/status-500", "k3").await.status, 502);
    assert_eq!(with_key(&owner, model, "k3").await.status, 200);
    assert_eq!(with_key(&owner, "no/such-model", "k4").await.status, 400);
    assert_eq!(with_key(&owner, model, "k4").await.status, 200);
    for bad in ["", &"x".repeat(256)] {
        assert_eq!(with_key(&owner, model, bad).await.error(), (400, "invalid_request".to_owned()));
    }

    // A day later the key is free again.
    world.system.clock.advance(jiff::SignedDuration::from_hours(24));
    let owner = world.owner("acme");
    assert_eq!(with_key(&owner, model, "k1").await.status, 200);

    // Calls that OpenRouter paid for are not recorded.
    world.set("acme", json!({"plan": "enterprise"})).await;
    owner.save_key(crate::support::KEY).await;
    for _ in 0..2 {
        let reply = with_key(&owner, model, "k1").await;
        assert_eq!((reply.status.as_u16(), reply.header("x-greta-payer")), (200, "openrouter"));
    }
}

#[tokio::test]
async fn an_open_call_keeps_its_idempotency_key_in_use() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let owner = world.owner("acme");
    let mut body = hello();
    body["model"] = json!("sim-priced/cut");
    body["stream"] = json!(true);
    let send = || world.send(owner.chat_request(&body).header("idempotency-key", "k"));
    assert_eq!(send().await.status, 200);
    assert_eq!(world.shown("acme").await["holds"].as_array().unwrap().len(), 1);
    assert_eq!(send().await.error(), (409, "duplicate_call".to_owned()));
}

#[tokio::test]
async fn the_ledger_is_read_in_pages_newest_first() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    world.set("other", json!({"credits": "7"})).await;
    let owner = world.owner("acme");
    for _ in 0..5 {
        assert_eq!(owner.say_hello().await.status, 200);
    }
    let whole = owner.ledger().await;
    assert_eq!(whole.len(), 6);
    let mut paged = Vec::new();
    let mut path = "/v1/credits/ledger?limit=2".to_owned();
    loop {
        let page = owner.get(&path).await.json();
        paged.extend(page["entries"].as_array().unwrap().clone());
        // New entries do not shift older pages.
        assert_eq!(owner.say_hello().await.status, 200);
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        path = format!("/v1/credits/ledger?limit=2&cursor={cursor}");
    }
    assert_eq!(paged, whole);
    let exactly = owner.ledger().await.len();
    let all = owner.get(&format!("/v1/credits/ledger?limit={exactly}")).await.json();
    assert_eq!(all["next_cursor"], Value::Null, "nothing follows the last entry");
    let times: Vec<_> = whole.iter().map(|entry| entry["at"].as_str().unwrap()).collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
    let last = whole.last().unwrap();
    assert_eq!(
        (&last["kind"], &last["amount"], &last["balance_after"]),
        (&json!("adjustment"), &json!("7"), &json!("7"))
    );
    assert_eq!(last["call_id"], Value::Null);

    let stolen = world.owner("other").get(&path).await;
    assert_eq!(stolen.error(), (400, "invalid_request".to_owned()));
    for bad in ["limit=0", "limit=101", "limit=x", "cursor=abc", "cursor="] {
        let reply = owner.get(&format!("/v1/credits/ledger?{bad}")).await;
        assert_eq!(reply.error(), (400, "invalid_request".to_owned()), "{bad}");
    }
}

#[tokio::test]
async fn credits_and_daily_totals_are_shown() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let owner = world.owner("acme");
    let mut spent = 0;
    for _ in 0..3 {
        let charged = owner.say_hello().await.header("x-greta-credits-charged").to_owned();
        spent += charged.parse::<account::Credits>().unwrap().micros();
    }
    let spent = account::Credits::from_micros(spent).to_string();
    let balance = world.settled_balance("acme").await;
    let credits = owner.get("/v1/credits").await.json();
    let expected = json!({
        "available": balance, "held": "0", "balance": balance, "owed": "0", "minimum": "1",
    });
    assert_eq!(credits, expected);
    let days = owner.get("/v1/credits/daily?days=3").await.json();
    let days = days["days"].as_array().unwrap();
    assert_eq!(days.len(), 3);
    assert_eq!((&days[2]["spent"], &days[2]["calls"]), (&json!(spent), &json!(3)));
    assert_eq!((&days[0]["spent"], &days[0]["calls"]), (&json!("0"), &json!(0)));
    let default = owner.get("/v1/credits/daily").await.json();
    assert_eq!(default["days"].as_array().unwrap().len(), 30);
    for bad in ["days=0", "days=367", "days=-1"] {
        let reply = owner.get(&format!("/v1/credits/daily?{bad}")).await;
        assert_eq!(reply.error(), (400, "invalid_request".to_owned()), "{bad}");
    }
}

/// The DynamoDB requests of each path, counted on the wire.
#[tokio::test]
async fn each_path_makes_the_documented_requests() {
    let world = World::start().await;
    world.set("acme", json!({"plan": "enterprise", "credits": "7"})).await;
    let owner = world.owner("acme");
    let mut streamed = hello();
    streamed["stream"] = json!(true);
    let dynamodb = |operations: Vec<String>| -> Vec<String> {
        let secrets = |operation: &String| operation.ends_with("SecretValue");
        operations.into_iter().filter(|operation| !secrets(operation)).collect()
    };
    let paid = ["GetItem", "TransactWriteItems", "UpdateItem", "TransactWriteItems"];
    for body in [hello(), streamed.clone()] {
        world.wire.take();
        assert_eq!(owner.chat(&body).await.status, 200);
        assert_eq!(dynamodb(world.wire.take()), paid);
    }
    owner.save_key(crate::support::KEY).await;
    for always in [false, true] {
        owner.switch(json!({"always_use_key": always})).await;
        for body in [hello(), streamed.clone()] {
            world.wire.take();
            assert_eq!(owner.chat(&body).await.status, 200);
            assert_eq!(dynamodb(world.wire.take()), ["GetItem"]);
        }
    }
    // Both secrets are cached by now.
    world.wire.take();
    owner.say_hello().await;
    assert_eq!(world.wire.take(), ["GetItem"]);
}

/// A write whose response is lost has succeeded and is not repeated.
#[tokio::test]
async fn a_lost_response_moves_credits_once() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let owner = world.owner("acme");
    // The response to the hold is lost.
    world.wire.lose_next_response_of("TransactWriteItems");
    assert_eq!(owner.say_hello().await.status, 200);
    world.settled_balance("acme").await;
    assert_eq!(owner.ledger().await.len(), 2);
    // The response to the settlement is lost.
    let mut body = hello();
    body["model"] = json!("sim-priced/slow-head-50");
    let call = owner.chat(&body);
    let lose = async {
        let sent = |calls: &[local::openrouter::RecordedCall]| calls.len() == 2;
        world.default_ai().until(sent).await;
        world.wire.lose_next_response_of("TransactWriteItems");
    };
    let (reply, ()) = tokio::join!(call, lose);
    assert_eq!(reply.status, 200);
    assert_ne!(reply.header("x-greta-credits-charged"), "");
    world.settled_balance("acme").await;
    assert_eq!(owner.ledger().await.len(), 3);
}

/// Calls and settings of one account write the same item, so DynamoDB may refuse one for a moment.
#[tokio::test]
async fn transaction_conflicts_are_retried() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "7").await;
    world.wire.conflict_with_next("UpdateItem", 3);
    let off = json!({"enabled": false});
    assert_eq!(owner.switch(off).await.status, 200);
    world.wire.conflict_with_next("TransactWriteItems", 4);
    let reply = owner.say_hello().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("x-greta-payer"), "greta_credits");
    // A hold that never gets through is refused as too many calls and moves nothing.
    let before = world.settled_balance("acme").await;
    world.wire.conflict_with_next("TransactWriteItems", 1_000);
    assert_eq!(owner.say_hello().await.error(), (429, "too_many_calls".to_owned()));
    world.wire.conflict_with_next("TransactWriteItems", 0);
    assert_eq!(world.settled_balance("acme").await, before);
}
