//! Signing in, staying signed in, and the traces in the browser.

use serde_json::json;

use crate::world::{KEY, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_while_the_page_is_open_is_renewed_without_a_login() {
    let world = World::enterprise().await;
    let browser = &world.browser;
    browser.act("connect").await;
    browser.fill("#key", KEY).await;
    browser.pass(3_600_000).await;
    browser.act("save").await;
    browser.says("#key-problem", "sign-in has expired").await;
    let field = browser.find("#key").await;
    assert_eq!(field.value().await, KEY);
    browser.press("#key-problem [data-action=\"sign-in\"]").await;
    // No login page appears: the authority still knows the user.
    browser.gone("#key").await;
    world.status("available").await;
    assert_eq!(browser.url().await, world.page("/settings/integrations"));
    world.stop().await;
}

/// An authority that issues a refresh token, rotates it once, and accepts the second one once.
const REFRESHING: &str = "
    const realFetch = window.fetch;
    const answers = [{refresh_token: 'first'}, {refresh_token: 'second'}, {}];
    window.renewals = [];
    window.fetch = async (url, options) => {
        if (!String(url).endsWith('/oidc/token')) return realFetch(url, options);
        const form = new URLSearchParams(options.body);
        const isRenewal = form.get('grant_type') === 'refresh_token';
        if (isRenewal) renewals.push(form.get('refresh_token'));
        const answer = answers.shift();
        const tokens = isRenewal
            ? {access_token: TOKEN, token_type: 'Bearer', expires_in: 3600}
            : await (await realFetch(url, options)).json();
        return new Response(JSON.stringify(answer ? {...tokens, ...answer} : {error: 'invalid_grant'}), {
            status: answer ? 200 : 400,
            headers: {'content-type': 'application/json'},
        });
    };
";

#[tokio::test(flavor = "multi_thread")]
async fn refresh_tokens_are_rotated_until_one_is_refused() {
    let world = World::start().await;
    let browser = &world.browser;
    world.account("corp", json!({"plan": "enterprise"})).await;
    let token = world.system.token("corp", "owner");
    let script = REFRESHING.replace("TOKEN", &json!(token).to_string());
    browser.begin_with(&script).await;
    world.sign_in("corp", "owner").await;
    world.status("available").await;

    // Both elements on the page use it, and it is renewed once for both.
    browser.pass(3_600_000).await;
    browser.refocus().await;
    browser.wait_for("renewals.length > 0").await;
    world.connect(KEY).await;
    world.status("connected").await;
    let renewals = "return renewals";
    assert_eq!(browser.run(renewals, vec![]).await, json!(["first"]));

    browser.pass(3_600_000).await;
    browser.act("test").await;
    browser.says(".note.success", "accepts your key").await;
    browser.pass(3_600_000).await;
    browser.act("test").await;
    browser.says("[data-code=\"sign_in\"]", "sign-in has expired").await;
    let tried = json!(["first", "second", "second"]);
    assert_eq!(browser.run(renewals, vec![]).await, tried);
    world.stop().await;
}

/// If the authority cannot end the session, the page forgets the user.
#[tokio::test(flavor = "multi_thread")]
async fn signing_out_works_without_the_authoritys_help() {
    let world = World::start().await;
    let browser = &world.browser;
    world.account("corp", json!({"plan": "enterprise"})).await;
    let script = "
        const realFetch = window.fetch;
        window.fetch = async (url, options) => {
            const answer = await realFetch(url, options);
            if (!String(url).endsWith('/openid-configuration')) return answer;
            const {end_session_endpoint, ...others} = await answer.json();
            return new Response(JSON.stringify(others), {headers: {'content-type': 'application/json'}});
        };
    ";
    browser.begin_with(script).await;
    world.sign_in("corp", "owner").await;
    world.status("available").await;
    browser.press("#sign-out").await;
    browser.says("main", "You are signed out").await;
    let left = "return document.querySelectorAll('openrouter-integration, greta-credits').length";
    assert_eq!(browser.run(left, vec![]).await, json!(0));
    assert!(!browser.has("#sign-out").await);
    browser.press("#sign-in").await;
    world.status("available").await;
    world.is_clean(&[]).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_in_memory_only_and_signing_out_forgets_them() {
    let world = World::enterprise().await;
    let browser = &world.browser;
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

/// An unknown account gets a message, not an empty page.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_account_is_reported() {
    let world = World::start().await;
    world.sign_in("nobody", "owner").await;
    world
        .browser
        .says("[data-code=\"account_not_found\"]", "does not belong to a Greta account")
        .await;
    world.stop().await;
}

/// Proves that the other tests can detect a violation: one is recorded.
#[tokio::test(flavor = "multi_thread")]
async fn content_policy_violations_are_detected() {
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
