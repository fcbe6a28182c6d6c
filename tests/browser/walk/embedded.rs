//! The element on a page of another origin.

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use local::serve::{self, Server};

use crate::world::{KEY, World};

#[tokio::test(flavor = "multi_thread")]
async fn another_front_end_embeds_the_element_in_five_lines() {
    let listener = serve::listener().await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let world = World::with(&[("ALLOWED_ORIGINS", &origin)]).await;
    let browser = &world.browser;
    world.subscribed("acme").await;
    let page = format!(
        "<!doctype html><html lang=en><title>Host</title>
        <openrouter-integration></openrouter-integration>
        <script type=\"module\">
          import \"{greta}/assets/latest/openrouter-integration.js\";
          const element = document.querySelector(\"openrouter-integration\");
          element.getToken = () => \"{token}\";
          window.received = [];
          for (const name of [\"openrouter-change\", \"openrouter-subscribe\", \"openrouter-checkout\"])
            element.addEventListener(name, (event) => {{ event.preventDefault(); received.push(name); }});
        </script>",
        greta = world.system.url(),
        token = world.system.token("acme", "owner"),
    );
    let host = Router::new().route("/", get(async move || Html(page)));
    let host = Server::on(listener, host).unwrap();

    browser.open(&host.url()).await;
    world.status("available").await;
    world.connect(KEY).await;
    world.status("connected").await;
    browser.wait_for("received.includes('openrouter-change')").await;
    // The host opens the checkout in its own way.
    browser.act("card").await;
    browser.wait_for("received.includes('openrouter-checkout')").await;
    assert!(browser.url().await.starts_with(&host.url()));
    host.stop().await;
    world.stop().await;
}

/// An origin that is not listed gets nothing from the browser, and the element says so.
#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_is_not_allowed_gets_nothing() {
    let listener = serve::listener().await.unwrap();
    let world = World::start().await;
    world.subscribed("acme").await;
    let page = format!(
        "<!doctype html><html lang=en><title>Host</title>
        <openrouter-integration></openrouter-integration>
        <script type=\"module\">
          import \"{greta}/assets/latest/openrouter-integration.js\";
          document.querySelector(\"openrouter-integration\").getToken = () => \"{token}\";
        </script>",
        greta = world.system.url(),
        token = world.system.token("acme", "owner"),
    );
    let host = Router::new().route("/", get(async move || Html(page)));
    let host = Server::on(listener, host).unwrap();
    world.browser.open(&host.url()).await;
    world.browser.says("[data-code=\"unreachable\"]", "is not responding").await;
    host.stop().await;
    world.stop().await;
}
