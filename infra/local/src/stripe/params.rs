//! A request's parameters: a form with nested names, as in `metadata[order]=1`.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::error::ApiError;

/// The parameters by their whole names, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Reads a query or a body.
    pub fn parse(encoded: &[u8]) -> Self {
        let mut pairs: Vec<_> = url::form_urlencoded::parse(encoded).into_owned().collect();
        pairs.sort();
        Self(pairs)
    }

    /// An empty value counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(found, _)| found == name);
        let value = found.map(|(_, value)| value.as_str());
        value.filter(|value| !value.is_empty())
    }

    pub(super) fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.get(name).ok_or_else(|| ApiError::missing(name))
    }

    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.parsed(name, "integer")
    }

    pub(super) fn boolean(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.parsed(name, "boolean")
    }

    fn parsed<T: FromStr>(&self, name: &str, kind: &str) -> Result<Option<T>, ApiError> {
        let value = self.get(name).map(str::parse).transpose();
        value.map_err(|_| ApiError::invalid(name, &format!("Invalid {kind}: {name}")))
    }

    /// `name[a]`, `name[b]`, … by the text in the brackets.
    pub(super) fn map(&self, name: &str) -> BTreeMap<String, String> {
        let inner = |full: &str| {
            let rest = full.strip_prefix(name)?.strip_prefix('[')?;
            rest.strip_suffix(']').map(str::to_owned)
        };
        let pairs = self.0.iter();
        pairs.filter_map(|(full, value)| Some((inner(full)?, value.clone()))).collect()
    }

    /// Repeated `name[]`, or `name[0]`, `name[1]`, …
    pub(super) fn list(&self, name: &str) -> Vec<&str> {
        let is_item =
            |full: &str| full.strip_prefix(name).is_some_and(|rest| rest.starts_with('['));
        let pairs = self.0.iter().filter(|(full, _)| is_item(full));
        pairs.map(|(_, value)| value.as_str()).collect()
    }

    /// Refuses unknown parameters, as Stripe does. `known` lists names, separated by spaces.
    pub(super) fn only(&self, known: &str) -> Result<(), ApiError> {
        for (full, _) in &self.0 {
            let name = full.split('[').next().unwrap_or_default();
            if name != "expand" && !known.split(' ').any(|known| known == name) {
                return Err(ApiError::unknown_param(name));
            }
        }
        Ok(())
    }
}
