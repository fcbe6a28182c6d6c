//! The product document's walk, from a plan without OpenRouter to a connected key and back.

use serde_json::json;

use crate::world::{KEY, World};

/// Maximum number of bytes (modules, styles and pages) before the API's first response.
const MOST_BYTES: u64 = 80_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_standard_account_buys_connects_switches_and_disconnects() {
    let world = World::start().await;
    let browser = &world.browser;
    world.account("walker", json!({"plan": "standard", "credits": "10"})).await;

    world.sign_in("walker", "owner").await;
    world.status("not_enabled").await;
    browser.says("h3", "OpenRouter is not enabled").await;
    world.paid_by("greta_credits", "not_connected").await;
    let weight = browser.traffic().await;
    let bytes = weight.bytes(|url| url.contains("/assets/") || url.contains("/settings/"));
    assert!((10_000..MOST_BYTES).contains(&bytes), "{bytes} bytes");

    browser.act("subscribe").await;
    browser.says("h2", "Power your AI with OpenRouter – $5 Add-on").await;
    browser.act("select").await;
    browser.press("button.pay").await;
    world.status("available").await;
    browser.says(".note.success", "OpenRouter is enabled").await;

    world.connect(&format!("  {KEY} ")).await;
    browser.says(".note.success", "OpenRouter API key saved successfully.").await;
    world.status("connected").await;
    world.paid_by("openrouter", "key_enabled").await;
    browser.says("dl.facts", "sk-or-v1-wal...def").await;
    browser.says("dl.facts", "user_walker_owner").await;
    assert!(!browser.has("#key").await);

    browser.act("always_use_key").await;
    world.paid_by("openrouter", "always_use_key").await;
    browser.act("always_use_key").await;
    world.paid_by("openrouter", "key_enabled").await;
    browser.act("enabled").await;
    world.paid_by("greta_credits", "key_disabled").await;
    world.status("disabled").await;
    browser.act("test").await;
    browser.says(".note.success", "accepts your key").await;

    browser.act("disconnect").await;
    browser.says("dialog[open]", "your credits").await;
    let link = browser.find("dialog[open] a").await;
    let link = link.attribute("href").await.unwrap();
    let sha256 = local::openrouter::key_sha256(KEY);
    assert_eq!(link, format!("https://openrouter.ai/keys/{sha256}"));
    browser.act("confirm-disconnect").await;
    world.status("available").await;
    world.paid_by("greta_credits", "not_connected").await;

    world.connect(KEY).await;
    world.paid_by("openrouter", "key_enabled").await;
    world.is_clean(&[]).await;
    only_our_own_hosts(&world).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enterprise_account_connects_at_once_and_replaces_its_key() {
    let world = World::enterprise().await;
    let browser = &world.browser;
    browser.says("section", "included in your plan").await;
    world.connect(KEY).await;
    world.status("connected").await;

    browser.act("replace").await;
    let other = "sk-or-v1-other-123456789abcdef0";
    world.try_key(other).await;
    browser.says("dl.facts", "sk-or-v1-oth...ef0").await;

    browser.open(&world.page("/plans")).await;
    browser.says("section", "Your plan includes OpenRouter").await;
    assert!(!browser.has("[data-action=\"select\"]").await);
    world.is_clean(&[]).await;
    only_our_own_hosts(&world).await;
    world.stop().await;
}

/// The key is in the request that saves it, and nowhere else that a page leaves traces.
#[tokio::test(flavor = "multi_thread")]
async fn a_typed_key_leaves_no_trace() {
    let world = World::enterprise().await;
    let browser = &world.browser;
    world.connect(KEY).await;
    world.status("connected").await;

    let everywhere = "
        const text = [];
        const look = (root) => {
            for (const element of root.querySelectorAll('*')) {
                text.push(element.outerHTML, element.value);
                if (element.shadowRoot) look(element.shadowRoot);
            }
        };
        look(document);
        for (const store of [localStorage, sessionStorage]) text.push(JSON.stringify({...store}));
        text.push(document.cookie, location.href, JSON.stringify(history.state));
        const names = await caches.keys();
        for (const name of names) {
            const cache = await caches.open(name);
            for (const request of await cache.keys()) text.push(await (await cache.match(request)).text());
        }
        text.push(JSON.stringify(await indexedDB.databases()));
        return text.join('\\n');
    ";
    let everywhere = format!("return (async () => {{ {everywhere} }})()");
    let text = browser.run(&everywhere, vec![]).await.to_string();
    assert!(text.contains("sk-or-v1-wal...def"), "the label is found");
    assert!(!text.contains("0123456789abcdef"));

    let mut looked_at = Vec::new();
    for (id, url) in browser.all_traffic().await.answered() {
        assert!(!url.contains(KEY));
        if let Some(body) = browser.body_of(&id).await {
            assert!(!body.contains(KEY), "{url}");
            looked_at.push(url);
        }
    }
    let saved = looked_at.iter().filter(|url| url.ends_with("/openrouter/key"));
    assert_eq!(saved.count(), 1, "{looked_at:?}");
    world.stop().await;
}

/// Nothing is loaded from, or sent to, any other host.
async fn only_our_own_hosts(world: &World) {
    let requests = world.browser.all_traffic().await.requests();
    assert!(requests.len() > 5, "requests were recorded");
    let own = world.system.url();
    let stripe = world.stripe().base_url();
    let stripe = stripe.trim_end_matches("/v1").to_owned();
    for (_, url) in requests {
        // The checkout is at Stripe, to which the page navigates.
        let known = url.starts_with(&own) || url.starts_with(&stripe) || url.starts_with("data:");
        assert!(known, "unexpected request to {url}");
    }
}
