//! The only reader of the environment.
//!
//! A method that finds a problem with a setting records it and returns a placeholder, so that a
//! settings struct is built in one expression; [`Env::finish`] then reports all problems at once.
//! Values are never shown, because any of them may be a secret.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use url::{Host, Url};

pub type SettingNames = Arc<Mutex<BTreeSet<&'static str>>>;

/// A snapshot of the environment, the names read so far, and the problems found.
#[derive(Clone)]
pub struct Env {
    variables: HashMap<String, String>,
    names: SettingNames,
    problems: BTreeMap<&'static str, String>,
}

impl Env {
    /// The environment of this process. A variable that is not UTF-8 counts as absent.
    pub fn process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self::from_pairs(std::env::vars_os().filter_map(text))
    }

    /// An environment of exactly these variables.
    pub fn from_pairs<K: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let owned = |(name, value): (K, V)| (name.into(), value.into());
        Self {
            variables: pairs.into_iter().map(owned).collect(),
            names: SettingNames::default(),
            problems: BTreeMap::new(),
        }
    }

    /// Adds these variables, replacing any of the same name.
    #[must_use]
    pub fn with(mut self, pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        self.variables.extend(pairs);
        self
    }

    /// A required setting.
    pub fn text(&mut self, name: &'static str) -> String {
        self.optional(name).unwrap_or_else(|| {
            self.problem(name, "is not set");
            String::new()
        })
    }

    pub fn text_or(&mut self, name: &'static str, default: &str) -> String {
        self.optional(name).unwrap_or_else(|| default.to_owned())
    }

    /// An optional setting that may deliberately be empty.
    pub fn present(&mut self, name: &'static str) -> Option<String> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(name);
        let value = self.variables.get(name)?;
        Some(value.trim().to_owned())
    }

    /// An optional setting; an empty value counts as absent.
    pub fn optional(&mut self, name: &'static str) -> Option<String> {
        self.present(name).filter(|value| !value.is_empty())
    }

    /// A required URL: https, or http on loopback.
    pub fn url(&mut self, name: &'static str) -> Url {
        let text = self.text(name);
        self.parse_url(name, &text)
    }

    /// A URL: https, or http on loopback.
    pub fn url_or(&mut self, name: &'static str, default: &str) -> Url {
        let text = self.text_or(name, default);
        self.parse_url(name, &text)
    }

    fn parse_url(&mut self, name: &'static str, text: &str) -> Url {
        parse_url(text).unwrap_or_else(|what| {
            self.problem(name, what);
            placeholder_url()
        })
    }

    /// A whole number within `range`.
    pub fn number_or(
        &mut self,
        name: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> u64 {
        self.parse_or(name, default, |text| {
            let number = text.parse().ok().filter(|number| range.contains(number));
            number.ok_or_else(|| {
                let (least, most) = range.into_inner();
                format!("must be a whole number from {least} to {most}")
            })
        })
    }

    /// A time span in whole milliseconds, from 1 ms to a day.
    pub fn millis_or(&mut self, name: &'static str, default: u64) -> Duration {
        Duration::from_millis(self.number_or(name, default, 1..=86_400_000))
    }

    /// A comma-separated list, trimmed, without empty entries.
    pub fn list(&mut self, name: &'static str, default: &str) -> Vec<String> {
        let text = self.text_or(name, default);
        let entries = text.split(',').map(str::trim);
        entries.filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
    }

    /// The error of `parse` says what the value must be, and never repeats it.
    pub fn parse_or<T>(
        &mut self,
        name: &'static str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        let Some(text) = self.optional(name) else {
            return default;
        };
        parse(&text).unwrap_or_else(|what| {
            self.problem(name, what);
            default
        })
    }

    /// Records a problem, unless there is one with this setting already.
    pub fn problem(&mut self, name: &'static str, what: impl Into<String>) {
        self.problems.entry(name).or_insert_with(|| what.into());
    }

    /// The names of all settings that are read, now or later, whether they are set or not.
    pub fn names(&self) -> SettingNames {
        Arc::clone(&self.names)
    }

    /// The settings, or an error that names every missing or malformed one.
    pub fn finish<T>(self, settings: T) -> Result<T, SettingsError> {
        if self.problems.is_empty() {
            return Ok(settings);
        }
        let problems = self.problems.iter().map(|(name, what)| format!("{name} {what}"));
        Err(SettingsError(problems.collect::<Vec<_>>().join("; ")))
    }
}

/// The settings that are missing or malformed, and what is wrong with each.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("settings are missing or malformed: {0}")]
pub struct SettingsError(String);

/// The message, because a `main` that returns the error prints its `Debug`.
impl fmt::Debug for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("must be a URL ({error})"))?;
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback => Ok(url),
        _ => Err("must be an https URL (http only on loopback)".to_owned()),
    }
}

#[expect(clippy::expect_used, reason = "a constant that parses")]
fn placeholder_url() -> Url {
    Url::parse("http://127.0.0.1/").expect("a valid URL")
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// `ALLOWED_ORIGINS`: the origins whose pages may call us, exactly as a browser writes them.
    pub allowed_origins: Vec<HeaderValue>,
    /// `MAX_BODY_BYTES`: the limit for [`crate::read_body`].
    pub max_body_bytes: usize,
}

impl HttpSettings {
    pub fn from_env(env: &mut Env) -> Self {
        let mut allowed_origins = Vec::new();
        for entry in env.list("ALLOWED_ORIGINS", "") {
            match parse_origin(&entry) {
                Some(origin) => allowed_origins.push(origin),
                None => env.problem(
                    "ALLOWED_ORIGINS",
                    "must be origins like https://app.example:8443, separated by commas (https, or \
                     http on loopback; lower case, no path, no default port)",
                ),
            }
        }
        let default = Self::default().max_body_bytes;
        let max_body_bytes = env.parse_or("MAX_BODY_BYTES", default, |text| {
            let number = text.parse().ok().filter(|bytes| *bytes > 0);
            number.ok_or_else(|| "must be a whole number of bytes above 0".to_owned())
        });
        Self { allowed_origins, max_body_bytes }
    }
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self { allowed_origins: Vec::new(), max_body_bytes: 4_194_304 }
    }
}

fn parse_origin(text: &str) -> Option<HeaderValue> {
    let url = parse_url(text).ok()?;
    (url.origin().ascii_serialization() == text && !text.contains('*'))
        .then(|| HeaderValue::from_str(text).ok())
        .flatten()
}

/// The token issuer to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentitySettings {
    /// `JWKS_URL`: where the issuer publishes its keys.
    pub jwks_url: Url,
    /// `JWT_ISSUER`: the `iss` of its tokens.
    pub issuer: String,
    /// `JWT_AUDIENCE`: the audience that `aud` must be or contain.
    pub audience: String,
}

impl IdentitySettings {
    pub fn from_env(env: &mut Env) -> Self {
        Self {
            jwks_url: env.url("JWKS_URL"),
            issuer: env.text("JWT_ISSUER"),
            audience: env.text("JWT_AUDIENCE"),
        }
    }
}

#[cfg(test)]
mod tests;
