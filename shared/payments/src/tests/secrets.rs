//! Secrets Manager with one secret.

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::{BehaviorVersion, Builder, Credentials, Region};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use serde_json::json;

#[derive(Debug, Clone)]
struct Secret(String);

impl HttpConnector for Secret {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let body = json!({ "SecretString": self.0 }).to_string();
        let response = HttpResponse::new(200.try_into().unwrap(), SdkBody::from(body));
        HttpConnectorFuture::ready(Ok(response))
    }
}

pub(super) fn with(secret: &str) -> Client {
    let secret = Secret(secret.to_owned());
    let http = http_client_fn(move |_, _| SharedHttpConnector::new(secret.clone()));
    let config = Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(Credentials::new("id", "key", None, None, "test"))
        .region(Region::new("us-east-1"))
        .http_client(http);
    Client::from_conf(config.build())
}
