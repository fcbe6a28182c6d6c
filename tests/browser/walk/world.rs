//! A system, and a browser on its pages.

use std::collections::BTreeMap;

use local::stripe::{Delivery, StripeSimulator};
use local::system::{Options, System};
use serde_json::{Value, json};

use crate::browser::Browser;

/// A key in OpenRouter's format; its text tells the simulator how to treat it.
pub(crate) const KEY: &str = "sk-or-v1-walk-0123456789abcdef0123456789abcdef";

pub(crate) struct World {
    /// Boxed, because it is large and held by everything that waits for the browser.
    pub(crate) system: Box<System>,
    pub(crate) browser: Browser,
    http: reqwest::Client,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        let settings: BTreeMap<_, _> = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let options = Options { settings, ..Options::default() };
        Self {
            system: Box::new(System::start(options).await.unwrap()),
            browser: Browser::start().await,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    /// The settings page of an enterprise account's owner.
    pub(crate) async fn enterprise() -> Self {
        let world = Self::start().await;
        world.account("corp", json!({"plan": "enterprise"})).await;
        world.sign_in("corp", "owner").await;
        world.status("available").await;
        world
    }

    /// The settings page of an owner who has bought the add-on.
    pub(crate) async fn bought() -> Self {
        let world = Self::start().await;
        world.subscribed("acme").await;
        world.sign_in("acme", "owner").await;
        world.status("available").await;
        world
    }

    /// The settings page of an owner who has also connected a key.
    pub(crate) async fn connected() -> Self {
        let world = Self::start().await;
        world.subscribed("acme").await;
        world.save_key("acme", KEY).await;
        world.sign_in("acme", "owner").await;
        world.status("connected").await;
        world
    }

    /// The settings page of an owner who has paid for the add-on, before any event about it.
    pub(crate) async fn paid_without_events() -> Self {
        let world = Self::start().await;
        let (browser, stripe) = (&world.browser, world.stripe());
        let change = json!({"plan": "standard", "credits": "10"});
        world.account("acme", change).await;
        world.sign_in("acme", "owner").await;
        browser.act("subscribe").await;
        browser.act("select").await;
        stripe.webhooks.set_delivery(Delivery::Hold);
        browser.press("button.pay").await;
        browser.find("#waiting").await;
        world
    }

    pub(crate) fn stripe(&self) -> &StripeSimulator {
        let stripe = self.system.stripe.as_ref();
        stripe.expect("Stripe is simulated")
    }

    /// Delivers the events that Stripe kept back.
    pub(crate) async fn deliver_payment_events(&self) {
        for event in self.stripe().webhooks.take_held() {
            self.stripe().webhooks.deliver(&event).await.unwrap();
        }
    }

    /// Creates or changes an account.
    pub(crate) async fn account(&self, id: &str, change: Value) {
        let url = format!("{}/_dev/accounts/{id}", self.system.url());
        let answer = self.http.put(url).body(change.to_string()).send().await;
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }

    /// A standard account that has bought the add-on.
    pub(crate) async fn subscribed(&self, id: &str) {
        let change = json!({"plan": "standard", "credits": "50", "add_on": "active"});
        self.account(id, change).await;
    }

    /// A request by the account's owner, outside the browser.
    pub(crate) async fn call(&self, account: &str, method: &str, path: &str, body: Value) -> Value {
        let token = self.system.token(account, "owner");
        let url = format!("{}{path}", self.system.url());
        let request = self.http.request(method.parse().unwrap(), url).bearer_auth(token);
        let request = if body.is_null() {
            request
        } else {
            request.header("content-type", "application/json").body(body.to_string())
        };
        let answer = request.send().await.unwrap();
        let text = answer.text().await.unwrap();
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    }

    pub(crate) async fn save_key(&self, account: &str, key: &str) {
        let path = "/v1/integrations/openrouter/key";
        let saved = self.call(account, "PUT", path, json!({"key": key})).await;
        assert_eq!(saved["message"], "OpenRouter API key saved successfully.");
    }

    pub(crate) fn page(&self, path: &str) -> String {
        format!("{}{path}", self.system.url())
    }

    /// Opens the settings page as this user.
    pub(crate) async fn sign_in(&self, account: &str, role: &str) {
        let browser = &self.browser;
        browser.open(&self.page("/settings/integrations")).await;
        browser.press("#sign-in").await;
        self.choose(account, role).await;
    }

    /// Chooses the user on the login page.
    pub(crate) async fn choose(&self, account: &str, role: &str) {
        let browser = &self.browser;
        browser.fill("#account", account).await;
        let choose = "document.querySelector('#role').value = arguments[0]";
        browser.run(choose, vec![json!(role)]).await;
        browser.press("button.pay").await;
        browser.find("openrouter-integration").await;
    }

    /// Connects a key on the page.
    pub(crate) async fn connect(&self, key: &str) {
        self.browser.act("connect").await;
        self.try_key(key).await;
    }

    /// Types a key into the open form and clicks Save.
    pub(crate) async fn try_key(&self, key: &str) {
        self.browser.fill("#key", key).await;
        self.browser.act("save").await;
    }

    /// Waits until the page shows this payer and reason.
    pub(crate) async fn paid_by(&self, payer: &str, reason: &str) {
        let line = format!("[data-payer=\"{payer}\"][data-reason=\"{reason}\"]");
        self.browser.find(&line).await;
    }

    pub(crate) async fn status(&self, status: &str) {
        self.browser.find(&format!("[data-status=\"{status}\"]")).await;
    }

    /// Asserts that the browser reported no errors, except refusals with these statuses.
    pub(crate) async fn is_clean(&self, refusals: &[u16]) {
        let errors = self.browser.console_errors(refusals).await;
        assert_eq!(errors, Vec::<String>::new());
    }

    pub(crate) async fn stop(self) {
        drop(self.browser);
        self.system.stop().await;
    }
}
