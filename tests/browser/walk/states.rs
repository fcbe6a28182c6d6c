//! Every state of the pages, wide and narrow, light and dark: checked by axe-core and photographed.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::world::{KEY, World};

/// `npm ci --prefix tests/browser` installs the rules.
fn rules() -> String {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/node_modules/axe-core/axe.min.js");
    std::fs::read_to_string(file).expect("axe-core is installed: npm ci --prefix tests/browser")
}

/// The problems that axe-core finds on the page.
async fn problems(world: &World) -> Vec<String> {
    let script = format!("{}; return axe.run(document)", rules());
    let report = world.browser.run(&script, vec![]).await;
    let passes = report["passes"].as_array().map_or(0, Vec::len);
    assert!(passes > 5, "axe-core checked the page: {report}");
    let violations = report["violations"].as_array().cloned().unwrap_or_default();
    let line = |violation: &Value| {
        let nodes = violation["nodes"].as_array().into_iter().flatten();
        let targets: Vec<String> =
            nodes.map(|node| format!("{} {}", node["target"], node["failureSummary"])).collect();
        format!("{}: {}", violation["id"], targets.join(" | "))
    };
    violations.iter().map(line).collect()
}

/// Proves that the other tests can fail: a problem inside an element is found.
#[tokio::test(flavor = "multi_thread")]
async fn a_problem_is_found() {
    let world = World::bought().await;
    let pale = "document.querySelector('openrouter-integration').shadowRoot.querySelector('h2').style.color = '#ddd'";
    world.browser.run(pale, vec![]).await;
    let found = problems(&world).await;
    assert!(found.iter().any(|line| line.contains("color-contrast")), "{found:?}");
    world.stop().await;
}

/// Checks a state in both widths and both colour schemes.
pub(crate) async fn look(world: &World, name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/screenshots");
    for width in [1280_u32, 390] {
        world.browser.set_width(width).await;
        for scheme in ["light", "dark"] {
            world.browser.set_scheme(scheme).await;
            let found = problems(world).await;
            assert_eq!(found, Vec::<String>::new(), "{name}, {width}, {scheme}");
            let file: PathBuf = folder.join(format!("{name}-{width}-{scheme}.png"));
            world.browser.picture(file).await;
        }
        no_sideways_scrolling(world, name).await;
    }
    world.browser.set_width(320).await;
    no_sideways_scrolling(world, name).await;
    world.browser.set_width(1280).await;
    world.browser.set_scheme("light").await;
}

async fn no_sideways_scrolling(world: &World, name: &str) {
    let wide = "return document.documentElement.scrollWidth - innerWidth";
    let over = world.browser.run(wide, vec![]).await;
    assert!(over.as_i64().unwrap() <= 0, "{name} is {over} px too wide");
}

/// The settings page of an account in this state.
async fn account_state(name: &str, change: Value, key: Option<&str>, then: Value, shows: &str) {
    let world = World::start().await;
    world.account("acme", change).await;
    if let Some(key) = key {
        world.save_key("acme", key).await;
    }
    if !then.is_null() {
        world.account("acme", then).await;
    }
    world.sign_in("acme", "owner").await;
    world.browser.find(shows).await;
    world.browser.find("[data-fact=\"available\"]").await;
    look(&world, name).await;
    world.stop().await;
}

fn standard() -> Value {
    json!({"plan": "standard", "credits": "50", "add_on": "active"})
}

#[tokio::test(flavor = "multi_thread")]
async fn not_enabled_and_plans() {
    let world = World::start().await;
    let browser = &world.browser;
    browser.open(&world.page("/settings/integrations")).await;
    browser.find("#sign-in").await;
    look(&world, "signed-out").await;
    world.account("acme", json!({"plan": "standard", "credits": "10"})).await;
    world.sign_in("acme", "owner").await;
    world.status("not_enabled").await;
    look(&world, "not-enabled").await;
    browser.act("subscribe").await;
    browser.find("[data-action=\"select\"]").await;
    look(&world, "plans").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn available_form_refusal_connected_and_questions() {
    let world = World::bought().await;
    let browser = &world.browser;
    look(&world, "available").await;
    browser.act("connect").await;
    look(&world, "key-form").await;
    world.try_key("sk-or-v1-rejected-0123456789abcdef").await;
    browser.find("#key-problem").await;
    look(&world, "key-refused").await;
    world.try_key(KEY).await;
    browser.find(".note.success").await;
    look(&world, "saved").await;
    browser.act("always_use_key").await;
    world.paid_by("openrouter", "always_use_key").await;
    look(&world, "always").await;
    browser.act("enabled").await;
    browser.find("[data-code=\"always_use_key_on\"]").await;
    look(&world, "always-on-refusal").await;
    browser.act("both").await;
    world.status("disabled").await;
    look(&world, "switched-off").await;
    browser.act("disconnect").await;
    browser.find("dialog[open]").await;
    look(&world, "disconnect-question").await;
    browser.act("keep").await;
    browser.act("cancel").await;
    browser.find("dialog[open]").await;
    look(&world, "cancel-question").await;
    browser.act("confirm-cancel").await;
    browser.find("[data-add-on=\"cancelling\"]").await;
    look(&world, "cancelled").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn enterprise() {
    let change = json!({"plan": "enterprise", "credits": "20"});
    account_state("enterprise", change, None, Value::Null, "[data-status=\"available\"]").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn past_due() {
    let then = json!({"add_on": "past_due"});
    account_state("past-due", standard(), Some(KEY), then, "[data-cause=\"past_due\"]").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lapsed() {
    let then = json!({"add_on": "suspended"});
    account_state("lapsed", standard(), Some(KEY), then, "[data-cause=\"lapsed\"]").await;
}

/// Credits may not be used, and the key may not be used either: nobody pays.
#[tokio::test(flavor = "multi_thread")]
async fn always_on_and_lapsed() {
    let world = World::start().await;
    world.account("acme", standard()).await;
    world.save_key("acme", KEY).await;
    let always = json!({"always_use_key": true});
    let path = "/v1/integrations/openrouter";
    world.call("acme", "PATCH", path, always).await;
    world.account("acme", json!({"add_on": "ended"})).await;
    let openrouter = world.system.openrouter.as_ref().unwrap();
    openrouter.set_key(KEY, local::openrouter::KeyBehaviour::Rejected);
    world.sign_in("acme", "owner").await;
    world.paid_by("none", "add_on_inactive").await;
    world.browser.find("[data-cause=\"lapsed\"]").await;
    look(&world, "nobody").await;
    world.browser.act("test").await;
    world.browser.find("[data-cause=\"rejected\"]").await;
    look(&world, "nobody-rejected").await;
    world.stop().await;
}

/// The authority does not respond.
#[tokio::test(flavor = "multi_thread")]
async fn sign_in_without_an_authority_fails_visibly() {
    let unused = local::serve::listener().await.unwrap();
    let authority = format!("http://{}", unused.local_addr().unwrap());
    drop(unused);
    let world = World::with(&[("OIDC_AUTHORITY", &authority)]).await;
    let page = world.page("/settings/integrations");
    world.browser.open(&page).await;
    world.browser.find("#again").await;
    look(&world, "no-sign-in").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_the_minimum() {
    let then = json!({"credits": "0.5"});
    account_state("minimum", standard(), Some(KEY), then, "[data-cause=\"minimum\"]").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credits() {
    let change = json!({"plan": "standard", "credits": "0"});
    account_state("no-credits", change, None, Value::Null, "[data-cause=\"insufficient\"]").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_near_its_end() {
    let key = "sk-or-v1-expiring-0123456789abcdef";
    account_state("expiring", standard(), Some(key), Value::Null, "[data-warning=\"expiry\"]")
        .await;
    let key = "sk-or-v1-limited-0123456789abcdef";
    account_state("limit", standard(), Some(key), Value::Null, "[data-warning=\"limit\"]").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_spent_member_offline() {
    let world = World::start().await;
    let browser = &world.browser;
    world.account("acme", standard()).await;
    let call = json!({"messages": [{"role": "user", "content": "Hello"}]});
    for _ in 0..3 {
        world.call("acme", "POST", "/v1/chat/completions", call.clone()).await;
    }
    world.save_key("acme", KEY).await;
    let openrouter = world.system.openrouter.as_ref().unwrap();
    openrouter.set_key(KEY, local::openrouter::KeyBehaviour::Rejected);
    world.sign_in("acme", "owner").await;
    browser.act("test").await;
    browser.find("[data-cause=\"rejected\"]").await;
    look(&world, "rejected").await;

    browser.press("#sign-out").await;
    browser.press("#sign-in").await;
    world.choose("acme", "member").await;
    browser.find("#members").await;
    browser.find("tr[data-entry]").await;
    look(&world, "member").await;

    browser.set_offline(true).await;
    browser.find("[data-code=\"unreachable\"]").await;
    look(&world, "offline").await;
    browser.set_offline(false).await;
    world.stop().await;
}

/// A payment in progress, and one that takes too long.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_and_late() {
    let world = World::paid_without_events().await;
    let browser = &world.browser;
    look(&world, "waiting").await;
    browser.pass(121_000).await;
    browser.find("[data-action=\"wait\"]").await;
    look(&world, "late").await;
    browser.act("wait").await;
    browser.find("#waiting").await;
    world.deliver_payment_events().await;
    world.status("available").await;
    look(&world, "paid").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn loading_unknown_and_expired() {
    let world = World::start().await;
    let browser = &world.browser;
    world.sign_in("nobody", "owner").await;
    browser.find("[data-code=\"account_not_found\"]").await;
    look(&world, "unknown-account").await;
    let loading = "
        for (const element of document.querySelectorAll('openrouter-integration, greta-credits')) {
            element.load = () => new Promise(() => {});
            element.failure = null;
        }
    ";
    browser.run(loading, vec![]).await;
    browser.find(".loading").await;
    look(&world, "loading").await;

    world.account("acme", standard()).await;
    browser.press("#sign-out").await;
    browser.press("#sign-in").await;
    world.choose("acme", "owner").await;
    world.status("available").await;
    browser.pass(3_600_000).await;
    browser.refocus().await;
    browser.find("[data-code=\"sign_in\"]").await;
    look(&world, "expired").await;
    world.stop().await;
}
