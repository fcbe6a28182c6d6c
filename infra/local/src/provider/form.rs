//! Requests' parameters: a form with nested names, as in `metadata[order]=1`.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::refusal::Refusal;

/// The parameters by their whole names, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Form(Vec<(String, String)>);

impl Form {
    /// Reads a query or a body.
    pub fn parse(encoded: &[u8]) -> Self {
        let mut pairs: Vec<_> = url::form_urlencoded::parse(encoded).into_owned().collect();
        pairs.sort();
        Self(pairs)
    }

    /// From names and values as they are.
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut pairs: Vec<_> = pairs.iter().map(owned).collect();
        pairs.sort();
        Self(pairs)
    }

    /// An empty value is an absent one.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(found, _)| found == name);
        let value = found.map(|(_, value)| value.as_str());
        value.filter(|value| !value.is_empty())
    }

    pub(super) fn owned(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    pub(super) fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name).ok_or_else(|| Refusal::missing(name))
    }

    pub(super) fn whole(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let value = self.get(name).map(str::parse);
        let value = value.transpose();
        value.map_err(|_| Refusal::invalid(name, &format!("Invalid integer: {name}")))
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Refusal> {
        let value = self.get(name).map(str::parse);
        let value = value.transpose();
        value.map_err(|_| Refusal::invalid(name, &format!("Invalid boolean: {name}")))
    }

    /// `name[a]`, `name[b]`, … by what is in the brackets.
    pub(super) fn map(&self, name: &str) -> BTreeMap<String, String> {
        let inner = |full: &str| {
            let rest = full.strip_prefix(name)?.strip_prefix('[')?;
            rest.strip_suffix(']').map(str::to_owned)
        };
        let pairs = self.0.iter();
        pairs
            .filter_map(|(full, value)| Some((inner(full)?, value.clone())))
            .collect()
    }

    /// `name[]` again and again, or `name[0]`, `name[1]`, …
    pub(super) fn list(&self, name: &str) -> Vec<&str> {
        let of_list = |full: &str| {
            full.strip_prefix(name)
                .is_some_and(|at| at.starts_with('['))
        };
        let pairs = self.0.iter().filter(|(full, _)| of_list(full));
        pairs.map(|(_, value)| value.as_str()).collect()
    }

    /// The provider refuses what it does not know, and so does this. `known` are names with spaces
    /// between them.
    pub(super) fn only(&self, known: &str) -> Result<(), Refusal> {
        for (full, _) in &self.0 {
            let name = full.split('[').next().unwrap_or_default();
            if name != "expand" && !known.split(' ').any(|known| known == name) {
                return Err(Refusal::unknown_parameter(name));
            }
        }
        Ok(())
    }

    pub(super) fn fingerprint(&self, path: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        (path, self).hash(&mut hasher);
        hasher.finish()
    }
}
