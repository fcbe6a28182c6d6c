//! The add-on on the page: past due, lapsed, cancelled and bought again.

use serde_json::{Value, json};

use crate::states::look;
use crate::world::{KEY, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_lapsed_add_on_is_shown_and_bought_again() {
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
    browser.refocus().await;
    browser.says("[data-cause=\"lapsed\"]", "is not active").await;
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
async fn a_past_due_period_is_paid_at_checkout() {
    let world = World::start().await;
    let browser = &world.browser;
    world.account("acme", json!({"plan": "standard", "credits": "50", "add_on": "past_due"})).await;
    world.sign_in("acme", "owner").await;
    browser.act("pay").await;
    browser.press("button.pay").await;
    browser.says(".note.success", "OpenRouter is enabled").await;
    browser.find("[data-add-on=\"active\"]").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_add_on_stays_until_its_date_and_can_be_kept() {
    let world = World::bought().await;
    let browser = &world.browser;
    browser.act("cancel").await;
    browser.says("dialog[open]", "It stays until").await;
    browser.act("keep").await;
    browser.gone("dialog[open]").await;
    browser.find("[data-add-on=\"active\"]").await;

    browser.act("cancel").await;
    browser.act("confirm-cancel").await;
    browser.says("[data-add-on=\"cancelling\"]", "It stays until").await;
    browser.says(".note.success", "It stays until").await;
    browser.act("resume").await;
    browser.find("[data-add-on=\"active\"]").await;
    world.is_clean(&[]).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_is_replaced_and_a_checkout_is_abandoned() {
    let world = World::bought().await;
    let browser = &world.browser;
    browser.act("card").await;
    browser.press("main a").await;
    browser.says(".note.success", "You left the payment page").await;
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
    browser.says(".note.success", "You left the payment page").await;
    browser.find("[data-action=\"select\"]").await;
    world.stop().await;
}

/// If the add-on is paid with credits, the pages say so before any are taken.
#[tokio::test(flavor = "multi_thread")]
async fn an_add_on_is_paid_with_credits() {
    let world = World::with(&[("ADD_ON_COLLECTION", "credits")]).await;
    let browser = &world.browser;
    let poor = json!({"plan": "standard", "credits": "49"});
    world.account("acme", poor).await;
    world.sign_in("acme", "owner").await;
    browser.says("section", "50 Greta credits a month").await;
    browser.act("subscribe").await;
    browser.says("section", "charged now").await;
    look(&world, "plans-in-credits").await;
    browser.act("select").await;
    let refusal = "[data-code=\"insufficient_credits\"]";
    browser.says(refusal, "nothing was charged").await;
    look(&world, "plans-refused").await;
    browser.act("credits").await;
    browser.focus_is("#usd").await;
    browser.says("[data-fact=\"available\"]", "49").await;

    world.account("acme", json!({"credits": "60"})).await;
    browser.open(&world.page("/plans")).await;
    browser.says("[data-action=\"select\"]", "Pay 50 Greta").await;
    browser.act("select").await;
    browser.says(".note.success", "The add-on is active").await;
    browser.open(&world.page("/settings/integrations")).await;
    browser.says("[data-add-on=\"active\"]", "50 Greta").await;
    browser.says("[data-fact=\"available\"]", "10").await;
    assert!(!browser.has("[data-action=\"card\"]").await);
    let path = "/v1/integrations/openrouter";
    let card = world.call("acme", "GET", path, Value::Null).await;
    assert_eq!(card["add_on"]["status"], "active");
    world.is_clean(&[402]).await;
    world.stop().await;
}

/// A payment whose event is late: the page waits, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_waits_for_a_late_payment_event() {
    let world = World::paid_without_events().await;
    let browser = &world.browser;
    world.status("not_enabled").await;
    world.deliver_payment_events().await;
    browser.says(".note.success", "OpenRouter is enabled").await;
    world.status("available").await;
    browser.gone("#waiting").await;
    world.stop().await;
}

/// Another owner was faster.
#[tokio::test(flavor = "multi_thread")]
async fn an_add_on_bought_elsewhere_is_shown() {
    let world = World::start().await;
    let browser = &world.browser;
    world.account("acme", json!({"plan": "standard"})).await;
    world.sign_in("acme", "owner").await;
    browser.act("subscribe").await;
    browser.find("[data-action=\"select\"]").await;
    world.account("acme", json!({"add_on": "active"})).await;
    browser.act("select").await;
    browser.says("[data-code=\"already_subscribed\"]", "already active").await;
    browser.gone("[data-action=\"select\"]").await;
    browser.says("section", "The add-on is active").await;
    world.is_clean(&[409]).await;
    world.stop().await;
}
