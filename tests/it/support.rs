//! The system under test, and a client for it.

use std::time::Duration;

use account::price::{Tariff, TokenPrices};
use account::{CallId, Credits, CreditsPerUsd, Usd};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use local::openrouter::OpenRouterSimulator;
use local::system::{Options, System};
use serde_json::{Value, json};
use store::{NewHold, PostError, PostRefused, Posted};

use crate::wire::Wire;

/// A key that the simulator accepts.
pub(crate) const KEY: &str = "sk-or-v1-usable-0123456789abcdef";
/// Another accepted key.
pub(crate) const OTHER_KEY: &str = "sk-or-v1-another-0123456789abcdef";

/// A hold for a call of a model that costs nothing.
pub(crate) fn new_hold(call: &CallId, amount: Credits, at: Timestamp) -> NewHold<'_> {
    NewHold {
        call,
        amount,
        at,
        model: "some/model",
        tariff: Tariff {
            prices: TokenPrices { input: Usd::ZERO, output: Usd::ZERO },
            rate: CreditsPerUsd::MIN,
        },
        idempotency: None,
        max_holds: 64,
    }
}

/// A system for one test, and the wire between its functions and AWS.
pub(crate) struct World {
    pub(crate) system: System,
    pub(crate) wire: Wire,
    http: reqwest::Client,
}

/// A response with its body.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The header's text; empty if it is absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The error's code, in either error shape.
    pub(crate) fn code(&self) -> String {
        let body = self.json();
        let code = body.pointer("/error/type").or(body.get("code"));
        code.and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// Status and error code.
    pub(crate) fn error(&self) -> (u16, String) {
        (self.status.as_u16(), self.code())
    }

    /// Payer and route reason.
    pub(crate) fn receipt(&self) -> (String, String) {
        (self.header("x-greta-payer").to_owned(), self.header("x-greta-route-reason").to_owned())
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with_settings(&[]).await
    }

    pub(crate) async fn with_settings(settings: &[(&str, &str)]) -> Self {
        let wire = Wire::default();
        // Tests do not wait for the rate limit.
        let settings = [("STRIPE_REQUESTS_PER_SECOND", "10000")]
            .iter()
            .chain(settings)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let options = Options {
            settings: settings.collect(),
            aws_http: Some(Box::new({
                let wire = wire.clone();
                move |function| SharedHttpClient::new(wire.clone().used_by(function))
            })),
            ..Options::default()
        };
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_mins(1));
        Self { system: System::start(options).await.unwrap(), wire, http: http.build().unwrap() }
    }

    pub(crate) fn openrouter(&self) -> &OpenRouterSimulator {
        self.system.openrouter.as_ref().unwrap()
    }

    pub(crate) fn default_ai(&self) -> &OpenRouterSimulator {
        self.system.default_ai.as_ref().unwrap()
    }

    pub(crate) fn engines(&self) -> &local::engines::Engines {
        &self.system.engines
    }

    /// A function's setup, with `changed` settings. Its requests to AWS go over `wire`.
    pub(crate) fn setup(&self, wire: Wire, changed: &[(&str, &str)]) -> edge::Setup {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let aws = self.system.aws_config().into_builder();
        edge::Setup {
            env: edge::Env::from_pairs(self.system.settings.clone())
                .with(changed.iter().map(owned)),
            clock: self.system.clock.clone(),
            aws: aws.http_client(SharedHttpClient::new(wire)).build(),
        }
    }

    /// `monthly-charge` over the functions' wire, with `changed` settings.
    pub(crate) fn monthly_charge(&self, changed: &[(&str, &str)]) -> monthly_charge::Deps {
        monthly_charge::Deps::new(self.setup(self.wire.clone(), changed)).unwrap()
    }

    /// A store whose requests go over the functions' wire, with its faults.
    pub(crate) fn store_over_the_wire(&self) -> store::Store {
        let dynamodb = aws_sdk_dynamodb::Client::new(&self.setup(self.wire.clone(), &[]).aws);
        store::Store::new(dynamodb, self.system.tables.clone())
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.system.url())
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, self.url(path))
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Reply { status, headers, body: response.bytes().await.unwrap() }
    }

    /// Creates or changes an account through the `_dev` helper.
    pub(crate) async fn set(&self, id: &str, change: Value) {
        let request =
            self.request(Method::PUT, &format!("/_dev/accounts/{id}")).body(change.to_string());
        let reply = self.send(request).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    }

    /// The account as the `_dev` helper shows it.
    pub(crate) async fn shown(&self, id: &str) -> Value {
        let request = self.request(Method::GET, &format!("/_dev/accounts/{id}"));
        self.send(request).await.json()
    }

    /// Asserts that the books add up and no hold is open; returns the balance.
    pub(crate) async fn settled_balance(&self, id: &str) -> String {
        let shown = self.shown(id).await;
        assert_eq!(shown["reconciliation"], json!({"ok": true, "problems": []}));
        assert_eq!(shown["holds"], json!([]));
        assert_eq!(shown["account"]["credits"]["held"], "0");
        shown["account"]["credits"]["balance"].as_str().unwrap().to_owned()
    }

    /// Runs a tick whose time is `time` from now.
    pub(crate) async fn tick_in(&self, time: SignedDuration) -> Value {
        let time = self.system.clock.now() + time;
        let request = self.request(Method::POST, "/_dev/tick");
        let body = json!({"time": time}).to_string();
        self.send(request.body(body)).await.json()
    }

    /// Acts as the owner of account `id`.
    pub(crate) fn owner(&self, id: &str) -> Caller<'_> {
        self.caller(id, "owner")
    }

    pub(crate) fn caller(&self, id: &str, role: &str) -> Caller<'_> {
        Caller { world: self, token: self.system.token(id, role) }
    }

    /// An enterprise account with its key connected.
    pub(crate) async fn enterprise_with_key(&self, id: &str, credits: &str) -> Caller<'_> {
        self.set(id, json!({"plan": "enterprise", "credits": credits})).await;
        let owner = self.owner(id);
        let saved = owner.save_key(KEY).await;
        assert_eq!(saved.status, StatusCode::OK, "{}", saved.text());
        owner
    }
}

/// A caller with a token.
pub(crate) struct Caller<'a> {
    world: &'a World,
    pub(crate) token: String,
}

impl Caller<'_> {
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.world.request(method, path).bearer_auth(&self.token)
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.world.send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: &Value) -> Reply {
        let request = self.request(method, path).body(body.to_string());
        self.world.send(request).await
    }

    pub(crate) async fn save_key(&self, key: &str) -> Reply {
        let path = "/v1/integrations/openrouter/key";
        self.call(Method::PUT, path, &json!({"key": key})).await
    }

    pub(crate) async fn disconnect(&self) -> Reply {
        let request = self.request(Method::DELETE, "/v1/integrations/openrouter/key");
        self.world.send(request).await
    }

    pub(crate) async fn test_key(&self) -> Reply {
        let request = self.request(Method::POST, "/v1/integrations/openrouter/key/test");
        self.world.send(request).await
    }

    pub(crate) async fn switch(&self, switches: Value) -> Reply {
        let path = "/v1/integrations/openrouter";
        self.call(Method::PATCH, path, &switches).await
    }

    pub(crate) async fn card(&self) -> Value {
        self.get("/v1/integrations/openrouter").await.json()
    }

    pub(crate) fn chat_request(&self, body: &Value) -> reqwest::RequestBuilder {
        self.request(Method::POST, "/v1/chat/completions")
            .header("content-type", "application/json")
            .body(body.to_string())
    }

    pub(crate) async fn chat(&self, body: &Value) -> Reply {
        self.world.send(self.chat_request(body)).await
    }

    /// A plain call with the default model.
    pub(crate) async fn say_hello(&self) -> Reply {
        self.chat(&hello()).await
    }

    /// A plain call of `model`.
    pub(crate) async fn say_hello_to(&self, model: &str) -> Reply {
        let mut body = hello();
        body["model"] = json!(model);
        self.chat(&body).await
    }

    pub(crate) async fn ledger(&self) -> Vec<Value> {
        let ledger = self.get("/v1/credits/ledger").await.json();
        ledger["entries"].as_array().unwrap().clone()
    }
}

/// The store's answer to a posting. Panics if the store failed.
pub(crate) fn refused(posted: Result<Posted, PostError>) -> Result<Posted, PostRefused> {
    posted.map_err(|error| match error {
        PostError::Refused(refused) => refused,
        PostError::Store(error) => panic!("{error}"),
    })
}

pub(crate) fn hello() -> Value {
    json!({"messages": [{"role": "user", "content": "Hello there, how are you?"}]})
}
