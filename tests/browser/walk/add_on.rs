//! The add-on on the page: what is due, what lapsed, what is cancelled, and the way back.

use local::provider::Delivery;
use serde_json::json;

use crate::world::{KEY, World};

#[tokio::test(flavor = "multi_thread")]
async fn an_add_on_that_lapses_is_said_and_bought_again() {
    let world = World::start().await;
    let browser = &world.browser;
    world.subscribed("acme").await;
    world.save_key("acme", KEY).await;
    world.account("acme", json!({"add_on": "past_due"})).await;
    world.sign_in("acme", "owner").await;
    world.status("attention").await;
    browser.says("[data-cause=\"past_due\"]", "payment").await;
    world.paid_by("openrouter", "key_enabled").await;

    world.account("acme", json!({"add_on": "suspended"})).await;
    browser.look_again().await;
    browser
        .says("[data-cause=\"lapsed\"]", "is not active")
        .await;
    world.paid_by("greta_credits", "add_on_inactive").await;
    browser.act("subscribe").await;
    browser.act("select").await;
    browser.press("button.pay").await;
    world.status("connected").await;
    world.paid_by("openrouter", "key_enabled").await;
    world.is_clean(&[]).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_is_paid_on_the_providers_page() {
    let world = World::start().await;
    let browser = &world.browser;
    world
        .account(
            "acme",
            json!({"plan": "standard", "credits": "50", "add_on": "past_due"}),
        )
        .await;
    world.sign_in("acme", "owner").await;
    browser.act("pay").await;
    browser.press("button.pay").await;
    browser.says(".note.success", "OpenRouter is enabled").await;
    browser.find("[data-add-on=\"active\"]").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_add_on_stays_until_its_date_and_can_be_kept() {
    let world = World::start().await;
    let browser = &world.browser;
    world.subscribed("acme").await;
    world.sign_in("acme", "owner").await;
    browser.act("cancel").await;
    browser.says("dialog[open]", "It stays until").await;
    browser.act("keep").await;
    browser.gone("dialog[open]").await;
    browser.find("[data-add-on=\"active\"]").await;

    browser.act("cancel").await;
    browser.act("confirm-cancel").await;
    browser
        .says("[data-add-on=\"cancelling\"]", "It stays until")
        .await;
    browser.says(".note.success", "It stays until").await;
    browser.act("resume").await;
    browser.find("[data-add-on=\"active\"]").await;
    world.is_clean(&[]).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_is_replaced_and_a_payment_page_is_left() {
    let world = World::start().await;
    let browser = &world.browser;
    world.subscribed("acme").await;
    world.sign_in("acme", "owner").await;
    browser.act("card").await;
    browser.press("button.pay").await;
    browser.says(".note.success", "your new card").await;

    world.account("new", json!({"plan": "standard"})).await;
    browser.press("#sign-out").await;
    browser.press("#sign-in").await;
    world.choose("new", "owner").await;
    browser.act("subscribe").await;
    browser.act("select").await;
    browser.press("main a").await;
    browser.says(".note.success", "Nothing was paid").await;
    browser.find("[data-action=\"select\"]").await;
    world.stop().await;
}

/// A payment that nobody has told of yet: the page waits, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_is_told_late_is_waited_for() {
    let world = World::start().await;
    let browser = &world.browser;
    world
        .account("acme", json!({"plan": "standard", "credits": "10"}))
        .await;
    world.sign_in("acme", "owner").await;
    browser.act("subscribe").await;
    browser.act("select").await;
    let provider = world.system.payment_provider.as_ref().unwrap();
    provider.set_delivery(Delivery::Hold);
    browser.press("button.pay").await;
    browser.find("#waiting").await;
    world.status("not_enabled").await;
    for event in provider.take_held() {
        provider.deliver(&event).await.unwrap();
    }
    browser.says(".note.success", "OpenRouter is enabled").await;
    world.status("available").await;
    browser.gone("#waiting").await;
    world.stop().await;
}

/// Another owner was faster.
#[tokio::test(flavor = "multi_thread")]
async fn an_add_on_that_was_bought_elsewhere_is_said() {
    let world = World::start().await;
    let browser = &world.browser;
    world.account("acme", json!({"plan": "standard"})).await;
    world.sign_in("acme", "owner").await;
    browser.act("subscribe").await;
    browser.find("[data-action=\"select\"]").await;
    world.account("acme", json!({"add_on": "active"})).await;
    browser.act("select").await;
    browser
        .says("[data-code=\"already_subscribed\"]", "active already")
        .await;
    browser.gone("[data-action=\"select\"]").await;
    browser.says("section", "The add-on is active").await;
    world.is_clean(&[409]).await;
    world.stop().await;
}
