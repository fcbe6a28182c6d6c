//! The tool's settings: the environment, overridden by a file like the one `cargo dev` writes.

use std::path::Path;

use aws_config::{Region, SdkConfig};
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use edge::Env;
use store::Tables;

use crate::cli::{Global, operator};
use crate::error::Error;

#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) tables: Tables,
    pub(crate) secrets_prefix: String,
    pub(crate) aws: Aws,
    /// The operator's name, if known.
    pub(crate) operator: Option<String>,
}

/// How to reach AWS. The SDK finds what is not given.
#[derive(Debug)]
pub(crate) struct Aws {
    region: Option<String>,
    dynamodb_url: Option<String>,
    secrets_url: Option<String>,
    credentials: Option<Credentials>,
}

pub(crate) struct Clients {
    pub(crate) dynamodb: aws_sdk_dynamodb::Client,
    pub(crate) secrets: aws_sdk_secretsmanager::Client,
    /// The endpoint or region, to be shown.
    pub(crate) place: String,
}

impl Settings {
    pub(crate) fn read(env: Env, global: &Global) -> Result<Self, Error> {
        let mut env = match &global.env_file {
            Some(path) => env.with(read_file(path)?),
            None => env,
        };
        let settings = Self {
            tables: Tables::from_settings(|name| env.text(name)),
            // No default: with a wrong prefix secrets are not found, which looks as if deleted.
            secrets_prefix: env.text("SECRETS_PREFIX"),
            aws: Aws::read(&mut env),
            operator: operator_of(&mut env, global),
        };
        env.finish(settings).map_err(Error::Settings)
    }
}

fn operator_of(env: &mut Env, global: &Global) -> Option<String> {
    if let Some(name) = &global.operator {
        return Some(name.clone());
    }
    for variable in ["GRETA_OPERATOR", "USER"] {
        if let Some(name) = env.optional(variable) {
            return operator(&name).inspect_err(|what| env.problem(variable, what.clone())).ok();
        }
    }
    None
}

/// `NAME=VALUE` lines, except empty ones and those that begin with `#`. Values are taken literally.
fn read_file(path: &Path) -> Result<Vec<(String, String)>, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| Error::EnvFile { path: path.to_owned(), source })?;
    let mut pairs = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line
            .split_once('=')
            .ok_or_else(|| Error::EnvLine { path: path.to_owned(), line: at + 1 })?;
        if name == "AWS_ACCESS_KEY_ID" {
            // A session token in the environment belongs to another key.
            pairs.insert(0, ("AWS_SESSION_TOKEN".to_owned(), String::new()));
        }
        pairs.push((name.to_owned(), value.to_owned()));
    }
    Ok(pairs)
}

impl Aws {
    fn read(env: &mut Env) -> Self {
        let everywhere = env.optional("AWS_ENDPOINT_URL");
        let mut url_of = |name| env.optional(name).or_else(|| everywhere.clone());
        let dynamodb_url = url_of("AWS_ENDPOINT_URL_DYNAMODB");
        let secrets_url = url_of("AWS_ENDPOINT_URL_SECRETS_MANAGER");
        let id = env.optional("AWS_ACCESS_KEY_ID");
        let secret = env.optional("AWS_SECRET_ACCESS_KEY");
        let token = env.optional("AWS_SESSION_TOKEN");
        let credentials = id.zip(secret);
        Self {
            region: env.optional("AWS_REGION"),
            dynamodb_url,
            secrets_url,
            credentials: credentials
                .map(|(id, secret)| Credentials::new(id, secret, token, None, "gretactl")),
        }
    }

    pub(crate) async fn connect(self) -> Clients {
        let mut loader = edge::aws_config();
        if let Some(region) = self.region {
            loader = loader.region(Region::new(region));
        }
        if let Some(credentials) = self.credentials {
            loader = loader.credentials_provider(SharedCredentialsProvider::new(credentials));
        }
        let config = loader.load().await;
        let mut dynamodb = aws_sdk_dynamodb::config::Builder::from(&config);
        let place = place(self.dynamodb_url.as_deref(), &config);
        if let Some(url) = self.dynamodb_url {
            dynamodb = dynamodb.endpoint_url(url);
        }
        let mut secrets = aws_sdk_secretsmanager::config::Builder::from(&config);
        if let Some(url) = self.secrets_url {
            secrets = secrets.endpoint_url(url);
        }
        Clients {
            dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb.build()),
            secrets: aws_sdk_secretsmanager::Client::from_conf(secrets.build()),
            place,
        }
    }
}

fn place(url: Option<&str>, config: &SdkConfig) -> String {
    match (url, config.region()) {
        (Some(url), _) => format!("at {url}"),
        (None, Some(region)) => format!("in {region}"),
        (None, None) => String::new(),
    }
}
