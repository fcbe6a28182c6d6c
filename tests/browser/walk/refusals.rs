//! Refusals, and how the page shows them.

use serde_json::json;

use crate::world::{KEY, World};

async fn typed(world: &World) -> String {
    let field = world.browser.find("#key").await;
    field.value().await
}

/// Each refusal has its own message; the typed key stays only if trying again helps.
#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_of_a_key_has_its_own_message() {
    let world = World::enterprise().await;
    let browser = &world.browser;
    browser.act("connect").await;

    browser.act("save").await;
    browser.says("#key-problem", "Paste your OpenRouter API key").await;
    let cases = [
        ("hello", "begins with sk-or-v1-", false),
        ("sk-or-v1-rejected-0123456789abcdef", "does not accept this key", false),
        ("sk-or-v1-management-0123456789abcdef", "management key", false),
        ("sk-or-v1-down-0123456789abcdef", "is not responding at the moment", true),
    ];
    for (key, words, stays) in cases {
        world.try_key(key).await;
        browser.says("#key-problem", words).await;
        let left = if stays { key } else { "" };
        assert_eq!(typed(&world).await, left, "{words}");
    }
    world.status("available").await;

    // Three checks so far; the eleventh within the hour is refused.
    for _ in 0..7 {
        world.try_key("sk-or-v1-rejected-0123456789abcdef").await;
        browser.wait_for(EMPTY_FIELD).await;
    }
    world.try_key(KEY).await;
    browser.says("#key-problem", "Too many attempts").await;
    assert_eq!(typed(&world).await, KEY);
    world.is_clean(&[422, 502, 429]).await;
    world.stop().await;
}

const EMPTY_FIELD: &str = "document.querySelector('openrouter-integration').shadowRoot.querySelector('#key').value === ''";

/// The add-on ended while the form was open.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_the_add_on_leads_to_plans() {
    let world = World::bought().await;
    let browser = &world.browser;
    browser.act("connect").await;
    world.account("acme", json!({"add_on": "ended"})).await;
    world.try_key(KEY).await;
    browser.says("#key-problem", "needs the OpenRouter add-on").await;
    world.status("not_enabled").await;
    browser.act("plans").await;
    browser.find("[data-action=\"select\"]").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_sees_everything_and_can_change_nothing() {
    let world = World::start().await;
    let browser = &world.browser;
    world.subscribed("acme").await;
    world.save_key("acme", KEY).await;
    world.sign_in("acme", "member").await;
    world.status("connected").await;
    world.paid_by("openrouter", "key_enabled").await;
    browser.says("#members", "only an owner can change them").await;
    browser.traffic().await;
    let actions =
        ["test", "replace", "disconnect", "enabled", "always_use_key", "cancel", "card", "buy"];
    for action in actions {
        let button = browser.find(&format!("[data-action=\"{action}\"]")).await;
        assert_eq!(button.attribute("aria-disabled").await.as_deref(), Some("true"));
        let why = button.attribute("aria-describedby").await.unwrap_or_default();
        assert!(why.contains("members"), "{action} gives a reason");
        button.click().await.unwrap();
    }
    browser.find("[data-fact=\"available\"]").await;
    let changing = browser.traffic().await.requests();
    let changing = changing.iter().filter(|(method, _)| method != "GET");
    assert_eq!(changing.count(), 0);
    world.stop().await;
}

/// Offline, the last state stays visible with its time; a failed save is kept and can be repeated
/// by hand.
#[tokio::test(flavor = "multi_thread")]
async fn offline_is_shown_and_passes() {
    let world = World::enterprise().await;
    let browser = &world.browser;
    browser.act("connect").await;
    browser.fill("#key", KEY).await;
    browser.set_offline(true).await;
    browser.act("save").await;
    browser.says("#key-problem", "You are offline").await;
    browser.says(".notes [data-code=\"unreachable\"]", "shows the state as of").await;
    assert_eq!(typed(&world).await, KEY);
    browser.set_offline(false).await;
    browser.act("save").await;
    world.status("connected").await;
    browser.gone(".notes [data-code=\"unreachable\"]").await;
    world.stop().await;
}

/// Every refusal of a purchase has a message, and the page stays usable.
#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_of_a_purchase_has_its_own_message() {
    let world = World::start().await;
    let browser = &world.browser;
    world.account("acme", json!({"plan": "standard"})).await;
    world.sign_in("acme", "owner").await;
    browser.act("subscribe").await;
    browser.find("[data-action=\"select\"]").await;
    let answer = "
        const [status, code] = arguments;
        const real = window.fetch;
        window.fetch = async (url, options) => {
            if (options?.method !== 'POST') return real(url, options);
            window.fetch = real;
            const problem = {title: 'x', status, detail: 'the words of ' + code, code};
            return new Response(JSON.stringify(problem), {status});
        };
    ";
    let cases = [
        (409, "payment_in_progress", "You are not charged twice"),
        (409, "add_on_not_needed", "no add-on is needed"),
        (402, "insufficient_credits", "nothing was charged"),
        (400, "something_new", "The words of something_new."),
        (502, "payment_provider_unavailable", "could not be opened"),
        (503, "storage_unavailable", "Something went wrong on our side"),
        (503, "identity_unavailable", "Something went wrong on our side"),
        (403, "not_owner", "Only an owner"),
        (500, "internal_error", "Something went wrong on our side"),
    ];
    for (status, code, words) in cases {
        browser.run(answer, vec![json!(status), json!(code)]).await;
        browser.act("select").await;
        browser.says(&format!("[data-code=\"{code}\"]"), words).await;
    }
    // A truncated response proves nothing: the page asks for the outcome.
    let cut = answer.replace("JSON.stringify(problem)", "'{'").replace("{status}", "{status: 200}");
    browser.run(&cut, vec![json!(200), json!("")]).await;
    browser.act("select").await;
    browser.says("[data-code=\"unreachable\"]", "is not responding").await;
    browser.act("select").await;
    browser.find("button.pay").await;
    world.stop().await;
}
