//! The tool's settings: the environment, overridden by a file like the one `cargo dev` writes.

use std::path::Path;

use aws_config::Region;
use aws_sdk_dynamodb::config::Credentials;
use edge::Env;
use keyvault::Vault;
use store::{Store, Tables};

use crate::cli::{Global, operator};
use crate::error::Error;

pub(crate) struct Settings {
    pub(crate) store: Store,
    pub(crate) vault: Vault,
    /// The operator's name, if known.
    pub(crate) operator: Option<String>,
    /// The deployment, shown when a confirmation is asked for.
    pub(crate) place: String,
}

impl Settings {
    /// Reads the settings; the SDK looks for AWS settings that are missing here.
    pub(crate) async fn read(env: Env, global: &Global) -> Result<Self, Error> {
        let mut env = match &global.env_file {
            Some(path) => env.with(read_file(path)?),
            None => env,
        };
        let tables = Tables::from_settings(|name| env.text(name));
        // No default: with a wrong prefix, secrets are not found and so seem deleted.
        let secrets_prefix = env.text("SECRETS_PREFIX");
        let operator = operator_of(&mut env, global);
        let region = env.optional("AWS_REGION");
        let everywhere = env.optional("AWS_ENDPOINT_URL");
        let mut url_of = |name| env.optional(name).or_else(|| everywhere.clone());
        let dynamodb_url = url_of("AWS_ENDPOINT_URL_DYNAMODB");
        let secrets_url = url_of("AWS_ENDPOINT_URL_SECRETS_MANAGER");
        let key = env.optional("AWS_ACCESS_KEY_ID").zip(env.optional("AWS_SECRET_ACCESS_KEY"));
        let token = env.optional("AWS_SESSION_TOKEN");
        env.finish(()).map_err(Error::Settings)?;

        let mut aws = edge::aws_config();
        if let Some(region) = region {
            aws = aws.region(Region::new(region));
        }
        if let Some((id, secret)) = key {
            aws = aws.credentials_provider(Credentials::new(id, secret, token, None, "gretactl"));
        }
        let aws = aws.load().await;
        let place = match (&dynamodb_url, aws.region()) {
            (Some(url), _) => format!("{} at {url}", tables.accounts),
            (None, Some(region)) => format!("{} in {region}", tables.accounts),
            (None, None) => tables.accounts.clone(),
        };
        let mut dynamodb = aws_sdk_dynamodb::config::Builder::from(&aws);
        if let Some(url) = dynamodb_url {
            dynamodb = dynamodb.endpoint_url(url);
        }
        let mut secrets = aws_sdk_secretsmanager::config::Builder::from(&aws);
        if let Some(url) = secrets_url {
            secrets = secrets.endpoint_url(url);
        }
        let dynamodb = aws_sdk_dynamodb::Client::from_conf(dynamodb.build());
        let secrets = aws_sdk_secretsmanager::Client::from_conf(secrets.build());
        Ok(Self {
            store: Store::new(dynamodb, tables),
            vault: Vault::new(secrets, secrets_prefix),
            operator,
            place,
        })
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
        let Some((name, value)) = line.split_once('=') else {
            let (line, path) = (at + 1, path.display());
            return Err(Error::usage(format!("line {line} of {path} is not NAME=VALUE")));
        };
        if name == "AWS_ACCESS_KEY_ID" {
            // A session token in the environment belongs to another key.
            pairs.insert(0, ("AWS_SESSION_TOKEN".to_owned(), String::new()));
        }
        pairs.push((name.to_owned(), value.to_owned()));
    }
    Ok(pairs)
}
