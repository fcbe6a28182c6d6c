//! Signing in, staying signed in, and what is left of it in the browser.

use serde_json::json;

use crate::world::{KEY, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_while_the_page_is_open_is_renewed_without_a_login() {
    let world = World::start().await;
    let browser = &world.browser;
    world.account("corp", json!({"plan": "enterprise"})).await;
    world.sign_in("corp", "owner").await;
    world.status("available").await;
    browser.act("connect").await;
    browser.fill("#key", KEY).await;
    browser.pass(3_600_000).await;
    browser.act("save").await;
    browser.says("#key-problem", "sign-in has expired").await;
    let field = browser.find("#key").await;
    assert_eq!(field.value().await, KEY);
    browser
        .press("#key-problem [data-action=\"sign-in\"]")
        .await;
    // No login page in between: the authority still knows the user.
    browser.gone("#key").await;
    world.status("available").await;
    assert_eq!(browser.url().await, world.page("/settings/integrations"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_in_memory_only_and_signing_out_forgets_them() {
    let world = World::start().await;
    let browser = &world.browser;
    world.account("corp", json!({"plan": "enterprise"})).await;
    world.sign_in("corp", "owner").await;
    world.status("available").await;
    let stored = "return JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])";
    let stored = browser.run(stored, vec![]).await.to_string();
    assert!(!stored.contains("eyJ"), "{stored}");
    assert!(!stored.contains("code="), "{stored}");

    browser.open(&world.page("/plans")).await;
    browser.says("section", "includes OpenRouter").await;
    browser.press("#sign-out").await;
    browser.find("#sign-in").await;
    assert!(!browser.has("openrouter-plans").await);
    world.is_clean(&[]).await;
    world.stop().await;
}

/// An account that is not there is said, not left blank.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_account_is_said() {
    let world = World::start().await;
    world.sign_in("nobody", "owner").await;
    world
        .browser
        .says("[data-code=\"account_not_found\"]", "no Greta account")
        .await;
    world.stop().await;
}

/// What is written here is what the other tests rely on: a script that the policy forbids is on record.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_policy_forbids_is_seen() {
    let world = World::start().await;
    let browser = &world.browser;
    browser.open(&world.page("/settings/integrations")).await;
    browser.find("#sign-in").await;
    world.is_clean(&[]).await;
    let forbidden = "
        const script = document.createElement('img');
        script.src = 'https://elsewhere.example/x.png';
        document.body.append(script);
    ";
    browser.run(forbidden, vec![]).await;
    let errors = browser
        .until("a violation", async || {
            let errors = browser.console_errors(&[]).await;
            (!errors.is_empty()).then_some(errors)
        })
        .await;
    assert!(errors[0].contains("Content Security Policy"), "{errors:?}");
    world.stop().await;
}
