//! Every row of the routing table, through the public interface: the next call does what the card
//! predicts.

use serde_json::{Value, json};

use crate::support::{Caller, KEY, World, hello};

/// The steps that bring an account into a row of the table, and the row's outcome.
struct Row {
    number: u8,
    account: Value,
    switches: Option<Value>,
    /// Steps after the key is connected and switched.
    then: Option<Value>,
    /// OpenRouter rejects the key, and a call has detected it.
    rejected: bool,
    status: u16,
    payer: &'static str,
    reason: &'static str,
}

impl Default for Row {
    fn default() -> Self {
        Self {
            number: 0,
            account: json!({"plan": "enterprise"}),
            switches: None,
            then: None,
            rejected: false,
            status: 200,
            payer: "openrouter",
            reason: "",
        }
    }
}

#[expect(clippy::too_many_lines, reason = "one table")]
fn rows() -> Vec<Row> {
    let standard = || json!({"plan": "standard", "credits": "5", "add_on": "active"});
    let always = || Some(json!({"always_use_key": true}));
    let off = || Some(json!({"enabled": false}));
    vec![
        Row {
            number: 1,
            account: standard(),
            switches: always(),
            then: Some(json!({"add_on": "suspended"})),
            status: 402,
            payer: "none",
            reason: "add_on_inactive",
            ..Row::default()
        },
        Row {
            number: 1,
            account: standard(),
            switches: always(),
            then: Some(json!({"add_on": "ended"})),
            rejected: true,
            status: 402,
            payer: "none",
            reason: "add_on_inactive",
        },
        Row {
            number: 2,
            account: standard(),
            switches: always(),
            then: Some(json!({"credits": "0.999999"})),
            status: 402,
            payer: "none",
            reason: "minimum_balance",
            ..Row::default()
        },
        Row {
            number: 3,
            account: standard(),
            switches: always(),
            reason: "always_use_key",
            ..Row::default()
        },
        Row { number: 3, switches: always(), reason: "always_use_key", ..Row::default() },
        Row {
            number: 3,
            account: standard(),
            switches: always(),
            then: Some(json!({"add_on": "past_due", "credits": "1"})),
            reason: "always_use_key",
            ..Row::default()
        },
        Row {
            number: 3,
            switches: always(),
            rejected: true,
            status: 403,
            reason: "always_use_key",
            ..Row::default()
        },
        Row {
            number: 4,
            account: standard(),
            then: Some(json!({"credits": "0"})),
            status: 402,
            payer: "none",
            reason: "minimum_balance",
            ..Row::default()
        },
        Row { number: 5, account: standard(), reason: "key_enabled", ..Row::default() },
        Row { number: 5, reason: "key_enabled", ..Row::default() },
        Row {
            number: 5,
            account: standard(),
            then: Some(json!({"add_on": "cancelling"})),
            reason: "key_enabled",
            ..Row::default()
        },
        Row {
            number: 6,
            account: standard(),
            then: Some(json!({"add_on": "suspended"})),
            payer: "greta_credits",
            reason: "add_on_inactive",
            ..Row::default()
        },
        Row {
            number: 6,
            account: standard(),
            then: Some(json!({"add_on": "none", "credits": "0"})),
            status: 402,
            payer: "none",
            reason: "insufficient_credits",
            ..Row::default()
        },
        Row {
            number: 7,
            account: standard(),
            rejected: true,
            payer: "greta_credits",
            reason: "key_rejected",
            ..Row::default()
        },
        Row {
            number: 7,
            account: standard(),
            rejected: true,
            then: Some(json!({"add_on": "ended"})),
            payer: "greta_credits",
            reason: "key_rejected",
            ..Row::default()
        },
        Row {
            number: 8,
            account: standard(),
            switches: off(),
            payer: "greta_credits",
            reason: "key_disabled",
            ..Row::default()
        },
        Row {
            number: 8,
            switches: off(),
            status: 402,
            payer: "none",
            reason: "insufficient_credits",
            ..Row::default()
        },
        Row {
            number: 8,
            account: standard(),
            rejected: true,
            switches: off(),
            then: Some(json!({"add_on": "none"})),
            payer: "greta_credits",
            reason: "key_disabled",
            ..Row::default()
        },
    ]
}

async fn bring_into(world: &World, id: &str, row: &Row) {
    world.set(id, row.account.clone()).await;
    let owner = world.owner(id);
    let key = format!("{KEY}-{id}");
    assert_eq!(owner.save_key(&key).await.status, 200);
    if row.rejected {
        world.openrouter().set_key(&key, local::openrouter::KeyBehaviour::Rejected);
        let tested = owner.test_key().await.json();
        assert_eq!(tested["integration"]["key"]["state"], "rejected");
    }
    if let Some(switches) = &row.switches {
        assert_eq!(owner.switch(switches.clone()).await.status, 200);
    }
    if let Some(then) = &row.then {
        world.set(id, then.clone()).await;
    }
}

async fn predicted(owner: &Caller<'_>) -> (String, String) {
    let card = owner.card().await;
    let text = |name: &str| card["next_call"][name].as_str().unwrap().to_owned();
    (text("payer"), text("reason"))
}

#[tokio::test]
async fn every_row_does_what_the_card_predicts() {
    let world = World::start().await;
    for (index, row) in rows().into_iter().enumerate() {
        let id = format!("row-{}-{index}", row.number);
        bring_into(&world, &id, &row).await;
        let owner = world.owner(&id);
        let expected = (row.payer.to_owned(), row.reason.to_owned());
        assert_eq!(predicted(&owner).await, expected, "{id}");
        let mut streamed = hello();
        streamed["stream"] = json!(true);
        for body in [hello(), streamed] {
            let reply = owner.chat(&body).await;
            assert_eq!(reply.status, row.status, "{id}: {}", reply.text());
            assert_eq!(reply.receipt(), expected, "{id}");
        }
    }
}

#[tokio::test]
async fn row_9_is_an_account_without_a_key() {
    let world = World::start().await;
    for plan in ["enterprise", "standard"] {
        world.set(plan, json!({"plan": plan, "credits": "1"})).await;
        let owner = world.owner(plan);
        let expected = ("greta_credits".to_owned(), "not_connected".to_owned());
        assert_eq!(predicted(&owner).await, expected);
        let reply = owner.say_hello().await;
        assert_eq!((reply.status.as_u16(), reply.receipt()), (200, expected));
        assert_ne!(reply.header("x-greta-credits-charged"), "");

        world.set(plan, json!({"credits": "0"})).await;
        let nobody = ("none".to_owned(), "insufficient_credits".to_owned());
        assert_eq!(predicted(&owner).await, nobody);
        let reply = owner.say_hello().await;
        assert_eq!(reply.error(), (402, "insufficient_credits".to_owned()));
        assert_eq!(reply.receipt(), nobody);
    }
}

/// Route first, money second.
#[tokio::test]
async fn a_working_enterprise_key_needs_no_credits() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("poor", "0").await;
    let reply = owner.say_hello().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("x-greta-payer"), "openrouter");
}

/// The cheapest call is a prompt without text, whose template has up to 256 tokens, and one output
/// token.
#[tokio::test]
async fn the_card_predicts_no_payer_exactly_below_the_cheapest_call() {
    let world = World::start().await;
    let owner = world.owner("edge");
    // gpt-4o-mini: 0.00000015 and 0.0000006 USD a token, 10 credits a dollar.
    for (credits, payer) in [("0.000389", "none"), ("0.00039", "greta_credits")] {
        world.set("edge", json!({"credits": credits})).await;
        assert_eq!(predicted(&owner).await.0, payer, "{credits}");
    }
}
