//! `ai-proxy`'s surroundings: tables, secrets, a token issuer, accounts. This is `cargo dev` in its
//! own process, with the bench's upstream in place of both AIs.

use std::collections::BTreeMap;
use std::path::Path;

use aws_sdk_dynamodb::config::{Credentials, Region};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::process::Process;
use crate::{Error, serve, upstream};

/// An account that pays with its own key.
pub(crate) const BYOK: &str = "bench-byok";
/// An account without a key.
pub(crate) const CREDITS: &str = "bench-credits";

pub(crate) struct System {
    pub(crate) process: Process,
    port: u16,
    /// The functions' settings.
    pub(crate) settings: Vec<(String, String)>,
}

impl System {
    pub(crate) async fn start(program: &Path, upstream_port: u16) -> Result<Self, Error> {
        let port = serve::free_port()?;
        let env_file = std::env::temp_dir().join(format!("bench-{port}.env"));
        let base = format!("http://127.0.0.1:{upstream_port}");
        let settings = [
            ("OPENROUTER_BASE_URL", base.as_str()),
            ("DEFAULT_AI_BASE_URL", &base),
            ("DEFAULT_AI_MODEL", upstream::MODEL),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let file = env_file.to_string_lossy().into_owned();
        let arguments = ["--port", &port.to_string(), "--env-file", &file];
        let process = Process::start(program, &arguments, &settings)?;
        serve::until_listening(port).await?;
        let mut system = Self { process, port, settings: Vec::new() };
        // The port opens before the set-up is done; the file is written afterwards.
        let written = loop {
            match std::fs::read_to_string(&env_file) {
                Ok(text) if text.ends_with('\n') => break text,
                _ => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        };
        std::fs::remove_file(&env_file)?;
        let lines = written.lines().filter_map(|line| line.split_once('='));
        let all: BTreeMap<String, String> =
            lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        system.settings = all.into_iter().collect();
        system.create_accounts().await?;
        Ok(system)
    }

    async fn create_accounts(&self) -> Result<(), Error> {
        let byok = json!({"plan": "enterprise"});
        self.request_json(Method::PUT, &format!("/_dev/accounts/{BYOK}"), "", &byok).await?;
        self.account_with_credits(CREDITS).await?;
        let key = json!({"key": "sk-or-v1-bench-0123456789abcdef"});
        let token = self.token(BYOK).await?;
        let path = "/v1/integrations/openrouter/key";
        self.request_json(Method::PUT, path, &token, &key).await?;
        Ok(())
    }

    /// Creates an account without a key.
    pub(crate) async fn account_with_credits(&self, id: &str) -> Result<(), Error> {
        let credits = json!({"plan": "standard", "credits": "1000000"});
        let path = format!("/_dev/accounts/{id}");
        self.request_json(Method::PUT, &path, "", &credits).await?;
        Ok(())
    }

    /// The `Authorization` header of an owner of the account.
    pub(crate) async fn token(&self, account: &str) -> Result<String, Error> {
        let owner = json!({"account_id": account, "role": "owner"});
        let answer = self.request_json(Method::POST, "/_dev/token", "", &owner).await?;
        let token = answer["token"].as_str().ok_or("no token was issued")?;
        Ok(format!("Bearer {token}"))
    }

    /// The AWS configuration for the tables, or for the secrets.
    pub(crate) async fn aws(&self, endpoint: &str) -> Result<aws_config::SdkConfig, Error> {
        let credentials = Credentials::new("bench", "bench", None, None, "bench");
        let loader = edge::aws_config()
            .region(Region::new("eu-central-1"))
            .credentials_provider(credentials)
            .endpoint_url(self.setting(endpoint)?);
        Ok(loader.load().await)
    }

    pub(crate) fn setting(&self, name: &str) -> Result<&str, Error> {
        let found = self.settings.iter().find(|(other, _)| other == name);
        let (_, value) = found.ok_or_else(|| format!("the system has no setting {name}"))?;
        Ok(value)
    }

    async fn request_json(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: &Value,
    ) -> Result<Value, Error> {
        let client: Client<HttpConnector, Full<Bytes>> =
            Client::builder(TokioExecutor::new()).build_http();
        let host = format!("127.0.0.1:{}", self.port);
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{host}{path}"))
            .header(HOST, &host)
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, token)
            .body(Full::from(body.to_string()))?;
        let response = client.request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if status != StatusCode::OK {
            let body = String::from_utf8_lossy(&body);
            return Err(format!("{path} responded {status}: {body}").into());
        }
        Ok(serde_json::from_slice(&body)?)
    }
}
