//! Credits: the balance, the ledger, and buying more.

use serde_json::json;

use crate::world::{KEY, World};

#[tokio::test(flavor = "multi_thread")]
async fn credits_are_bought_and_arrive() {
    let world = World::start().await;
    let browser = &world.browser;
    world.account("acme", json!({"plan": "standard", "credits": "0.5"})).await;
    world.account("acme", json!({"add_on": "active"})).await;
    world.save_key("acme", KEY).await;
    world.sign_in("acme", "owner").await;
    world.paid_by("none", "minimum_balance").await;
    browser.says("[data-cause=\"minimum\"]", "under the minimum").await;
    browser.says("[data-fact=\"available\"]", "0.5").await;

    browser.act("credits").await;
    browser.fill("#usd", "4.99").await;
    browser.act("buy").await;
    browser.says("#usd-problem", "from 5 to 1000").await;
    browser.fill("#usd", "12.50").await;
    browser.act("buy").await;
    browser.press("button.pay").await;
    browser.says(".note.success", "125 credits are yours").await;
    browser.says("[data-fact=\"available\"]", "125.5").await;
    world.paid_by("openrouter", "key_enabled").await;
    world.is_clean(&[]).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_is_paged_and_the_chart_is_drawn() {
    let world = World::start().await;
    let browser = &world.browser;
    world.account("acme", json!({"plan": "standard", "credits": "50"})).await;
    let call = json!({"messages": [{"role": "user", "content": "Hello"}]});
    for _ in 0..24 {
        let answer = world.call("acme", "POST", "/v1/chat/completions", call.clone()).await;
        assert!(answer["choices"].is_array(), "{answer}");
    }
    world.sign_in("acme", "owner").await;
    let rows = "document.querySelector('greta-credits').shadowRoot.querySelectorAll('tr[data-entry]').length";
    browser.wait_for(&format!("{rows} === 20")).await;
    browser.act("older").await;
    browser.wait_for(&format!("{rows} === 5")).await;
    browser.focus_is("#ledger").await;
    browser.says(".scroll", "Adjustment").await;
    browser.act("newer").await;
    browser.wait_for(&format!("{rows} === 20")).await;
    let bars = "document.querySelector('greta-credits').shadowRoot.querySelectorAll('svg.chart rect').length === 30";
    browser.wait_for(bars).await;
    browser.says("figcaption", "24 AI calls").await;
    world.is_clean(&[]).await;
    world.stop().await;
}

/// Days are UTC days, whatever the reader's time zone.
#[tokio::test(flavor = "multi_thread")]
async fn a_day_is_the_same_in_every_time_zone() {
    let world = World::start().await;
    let browser = &world.browser;
    let rich = json!({"plan": "standard", "credits": "50"});
    world.account("acme", rich).await;
    let call = json!({"messages": [{"role": "user", "content": "Hello"}]});
    world.call("acme", "POST", "/v1/chat/completions", call).await;
    world.sign_in("acme", "owner").await;
    let today = "return new Date().toLocaleDateString('en', {dateStyle: 'long', timeZone: 'UTC'})";
    // Eleven hours behind and fourteen ahead: at any time, one of them has another date.
    for zone in ["Pacific/Pago_Pago", "Pacific/Kiritimati"] {
        let zone = json!({"timezoneId": zone});
        browser.cdp("Emulation.setTimezoneOverride", zone).await;
        browser.open(&world.page("/settings/integrations")).await;
        let today = browser.run(today, vec![]).await;
        let most = format!("the most on {}", today.as_str().unwrap());
        browser.says("figcaption", &most).await;
    }
    world.stop().await;
}

/// The panel that only `cargo dev` has: the payer changes with the switch, and the receipt shows
/// it.
#[tokio::test(flavor = "multi_thread")]
async fn a_trial_call_follows_the_switches() {
    let world = World::connected().await;
    let browser = &world.browser;
    browser.press(".try button").await;
    browser.says(".try dl", "openrouter").await;
    browser.says(".try dl", "key_enabled").await;
    browser.says(".try output", "Hello").await;

    browser.act("enabled").await;
    world.status("disabled").await;
    browser.press(".try button").await;
    browser.says(".try dl", "greta_credits").await;
    browser.says(".try dl", "Credits charged").await;

    browser.act("enabled").await;
    world.status("connected").await;
    browser.fill("#try-model", "sim/status-429").await;
    browser.press(".try button").await;
    browser.says(".try dl", "fallback_rate_limited").await;
    world.is_clean(&[]).await;
    world.stop().await;
}
