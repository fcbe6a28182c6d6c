//! The switches: the promise is not dropped by accident, tabs agree, and nothing happens twice.

use serde_json::json;

use crate::browser::key;
use crate::world::{KEY, World};

#[tokio::test(flavor = "multi_thread")]
async fn switching_off_a_key_that_is_always_used_asks_first() {
    let world = World::connected().await;
    let browser = &world.browser;
    browser.act("always_use_key").await;
    world.paid_by("openrouter", "always_use_key").await;

    browser.act("enabled").await;
    browser.find("[data-code=\"always_use_key_on\"]").await;
    world.paid_by("openrouter", "always_use_key").await;
    browser.act("both").await;
    world.paid_by("greta_credits", "key_disabled").await;
    browser.focus_is("[data-action=\"enabled\"]").await;
    world.is_clean(&[409]).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tabs_agree() {
    let world = World::connected().await;
    let browser = &world.browser;
    let (first, second) = browser.new_tab(&world.page("/settings/integrations")).await;
    world.status("connected").await;

    browser.act("enabled").await;
    world.status("disabled").await;
    browser.switch_to(&first).await;
    world.status("disabled").await;

    // A tab that missed the change learns of it when it acts.
    let stop_refreshing =
        "document.querySelector('openrouter-integration').refresh = async () => {}";
    browser.run(stop_refreshing, vec![]).await;
    browser.switch_to(&second).await;
    browser.act("disconnect").await;
    browser.act("confirm-disconnect").await;
    world.status("available").await;
    browser.switch_to(&first).await;
    world.status("disabled").await;
    let resume_refreshing = "delete document.querySelector('openrouter-integration').refresh";
    browser.run(resume_refreshing, vec![]).await;
    browser.act("test").await;
    browser.says("[data-code=\"not_connected\"]", "no longer a key").await;
    world.status("available").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_double_click_on_a_slow_network_acts_once() {
    let world = World::connected().await;
    let browser = &world.browser;
    browser.traffic().await;
    let slow =
        json!({"offline": false, "latency": 600, "downloadThroughput": -1, "uploadThroughput": -1});
    browser.cdp("Network.emulateNetworkConditions", slow).await;

    let twice = "
        const button = document.querySelector('openrouter-integration').shadowRoot.querySelector('[data-action=enabled]');
        for (let i = 0; i < 5; i += 1) button.click();
    ";
    browser.run(twice, vec![]).await;
    world.status("disabled").await;
    let patches = browser.traffic().await;
    assert_eq!(patches.count("PATCH", "/v1/integrations/openrouter"), 1);

    browser.act("enabled").await;
    world.status("connected").await;
    world.stop().await;
}

/// With the keyboard alone: to the switch and over it, into the dialog and out again, back to where
/// it was.
#[tokio::test(flavor = "multi_thread")]
async fn everything_works_with_the_keyboard() {
    let world = World::bought().await;
    let browser = &world.browser;

    browser.tab_to("connect").await;
    browser.keys(key::ENTER).await;
    browser.find("#key").await;
    browser.focus_is("#key").await;
    browser.keys(&format!("{KEY}{}", key::ENTER)).await;
    world.status("connected").await;
    browser.focus_is(".note.success").await;

    browser.tab_to("always_use_key").await;
    browser.keys(" ").await;
    world.paid_by("openrouter", "always_use_key").await;
    browser.focus_is("[data-action=\"always_use_key\"]").await;

    browser.run("document.activeElement.blur()", vec![]).await;
    browser.tab_to("disconnect").await;
    browser.keys(key::ENTER).await;
    browser.find("dialog[open]").await;
    browser.focus_is("dialog[open] [data-action=\"keep\"]").await;
    browser.keys(key::ESCAPE).await;
    browser.gone("dialog[open]").await;
    browser.focus_is("[data-action=\"disconnect\"]").await;
    world.stop().await;
}
