//! The model list, and the prices in it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use account::price::{ModelPrices, PricedModel};
use account::{Credits, CreditsPerUsd, Usd};
use bytes::Bytes;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::client::{AskError, Upstream};

/// Maximum age of a fetched price list.
const MAX_AGE: Duration = Duration::from_mins(10);
/// Time before retrying a failed fetch; until then the old list is used.
const RETRY_PAUSE: Duration = Duration::from_secs(30);
/// Size limit of a list, in bytes; OpenRouter's is below 1 MB.
const MAX_LIST: usize = 16 * 1024 * 1024;
const FETCH_TIME: Duration = Duration::from_secs(5);

/// Prices of common models, used until the list can be fetched.
const SHIPPED: &str = include_str!("shipped_prices.json");

impl Upstream {
    /// The unchanged model list for the caller's query. OpenRouter's needs no key.
    pub async fn models(
        &self,
        key: Option<&SecretString>,
        query: Option<&str>,
    ) -> Result<Bytes, AskError> {
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        self.ask(&format!("/models{query}"), key, FETCH_TIME, MAX_LIST).await
    }
}

/// The models that credits can pay for, by id.
type Prices = HashMap<String, PricedModel>;

/// The default AI's prices: fetched, cached, and kept while the default AI is down. Until the first
/// fetch succeeds, they come from a table built into the program. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PriceBook {
    upstream: Upstream,
    cached: Arc<RwLock<Cached>>,
    /// Locked during a fetch.
    fetching: Arc<Mutex<()>>,
}

#[derive(Debug, Clone)]
struct Cached {
    prices: Arc<Prices>,
    /// `None` before the first fetch.
    fresh_until: Option<Instant>,
}

impl Cached {
    fn is_fresh(&self) -> bool {
        self.fresh_until.is_some_and(|until| Instant::now() < until)
    }
}

impl PriceBook {
    pub fn new(upstream: Upstream) -> Self {
        let cached = Cached {
            prices: Arc::new(prices_from_json(SHIPPED.as_bytes()).unwrap_or_default()),
            fresh_until: None,
        };
        Self { upstream, cached: Arc::new(RwLock::new(cached)), fetching: Arc::default() }
    }

    /// The model with its prices; `None` if the list has none that limit a call's cost.
    pub async fn model(&self, id: &str) -> Option<PricedModel> {
        self.prices().await.get(id).cloned()
    }

    /// The cost of the model's cheapest possible call; `None` if the list does not say.
    pub async fn cheapest_call(&self, model: &str, rate: CreditsPerUsd) -> Option<Credits> {
        self.model(model).await?.prices.cheapest_call(rate)
    }

    /// One request fetches at a time. The others wait only during the very first fetch.
    async fn prices(&self) -> Arc<Prices> {
        let cached = self.cached();
        if cached.is_fresh() {
            return cached.prices;
        }
        let _fetching = match cached.fresh_until {
            None => self.fetching.lock().await,
            Some(_) => match self.fetching.try_lock() {
                Ok(guard) => guard,
                Err(_) => return cached.prices,
            },
        };
        let cached = self.cached();
        if cached.is_fresh() {
            return cached.prices;
        }
        let fetched = self.fetch(cached.prices).await;
        let prices = Arc::clone(&fetched.prices);
        *self.cached.write().unwrap_or_else(PoisonError::into_inner) = fetched;
        prices
    }

    async fn fetch(&self, old: Arc<Prices>) -> Cached {
        let fetched = self.upstream.models(None, None).await;
        match fetched.map(|body| prices_from_json(&body)) {
            Ok(Some(prices)) => {
                return Cached {
                    prices: Arc::new(prices),
                    fresh_until: Some(Instant::now() + MAX_AGE),
                };
            }
            Ok(None) => {
                tracing::warn!("the default AI's model list has no prices; keeping the old ones");
            }
            Err(error) => {
                tracing::warn!(%error, "could not fetch the default AI's model list; keeping the old prices");
            }
        }
        Cached { prices: old, fresh_until: Some(Instant::now() + RETRY_PAUSE) }
    }

    fn cached(&self) -> Cached {
        let cached = self.cached.read().unwrap_or_else(PoisonError::into_inner);
        cached.clone()
    }
}

#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Listed {
    id: String,
    pricing: Named,
    supported_parameters: Option<Vec<String>>,
    context_length: Option<u64>,
    top_provider: Option<TopProvider>,
}

type Named = HashMap<String, Value>;

#[derive(Deserialize)]
struct TopProvider {
    max_completion_tokens: Option<u64>,
}

/// Parses a model list, without the entries that cannot be read or whose prices do not limit a
/// call's cost. `None` if no entry is left.
fn prices_from_json(body: &[u8]) -> Option<Prices> {
    let list: List<'_> = serde_json::from_slice(body).ok()?;
    let prices: Prices = list
        .data
        .into_iter()
        .filter_map(|entry| serde_json::from_str::<Listed>(entry.get()).ok())
        .filter_map(priced)
        .map(|model| (model.id.clone(), model))
        .collect();
    (!prices.is_empty()).then_some(prices)
}

fn priced(listed: Listed) -> Option<PricedModel> {
    if searches_by_itself(&listed) {
        return None;
    }
    let base = &listed.pricing;
    // Prices that replace others under a condition: a long prompt, an hour of the day. A price that
    // an override does not name stays as it is.
    // <https://openrouter.ai/docs/client-sdks/python/components/pricingoverride>
    let overrides = base.get("overrides").unwrap_or(&Value::Null);
    let overrides: Option<Vec<Named>> = Deserialize::deserialize(overrides).ok()?;
    let mut prices = bounding(&[base])?;
    for instead in overrides.iter().flatten() {
        prices = prices.max(bounding(&[instead, base])?);
    }
    let top = listed.top_provider;
    Some(PricedModel {
        id: listed.id,
        prices,
        context_length: listed.context_length,
        max_output_tokens: top.and_then(|top| top.max_completion_tokens),
    })
}

/// The prices that limit a call's cost, each from the first list that names it.
fn bounding(pricings: &[&Named]) -> Option<ModelPrices> {
    ModelPrices::from_listed(|name| match pricings.iter().find_map(|prices| prices.get(name)) {
        None | Some(Value::Null) => None,
        // Anything but a string is not a price.
        Some(value) => Some(value.as_str().unwrap_or("unreadable")),
    })
}

/// Whether the model searches the web without being asked to, at a price per search. Nothing limits
/// how often it searches. Such models are made for searching: unlike models that search on request,
/// they do not take tools.
fn searches_by_itself(listed: &Listed) -> bool {
    let parameters = listed.supported_parameters.as_deref().unwrap_or_default();
    let takes = |name: &str| parameters.iter().any(|parameter| parameter == name);
    let price = listed.pricing.get("web_search").filter(|price| !price.is_null());
    let free = |text: &str| text.parse().is_ok_and(Usd::is_zero);
    let is_free = price.is_none_or(|price| price.as_str().is_some_and(free));
    !is_free && takes("web_search_options") && !takes("tools")
}

#[cfg(test)]
mod tests {
    use account::price::TokenPrices;

    use super::*;

    #[test]
    fn a_list_is_read_entry_by_entry() {
        let body = br#"{"data":[
            {"id":"a","context_length":100,"top_provider":{"max_completion_tokens":50},
             "pricing":{"prompt":"0.000001","completion":"0.000002","request":"0"}},
            {"id":"auto","pricing":{"prompt":"-1","completion":"-1"}},
            {"id":"per-request","pricing":{"prompt":"0","completion":"0","request":"0.01"}},
            {"id":"float","pricing":{"prompt":0.1,"completion":"0"}},
            {"id":"free","pricing":{"prompt":"0","completion":"0"}},
            {"name":"no id"}, 7]}"#;
        let prices = prices_from_json(body).unwrap();
        let mut ids: Vec<&str> = prices.keys().map(String::as_str).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["a", "free"]);
        let a = &prices["a"];
        assert_eq!((a.context_length, a.max_output_tokens), (Some(100), Some(50)));
    }

    #[test]
    fn the_highest_of_the_prices_under_any_condition_counts() {
        let price = |pricing: &str| {
            let body = format!(r#"{{"data":[{{"id":"a","pricing":{pricing}}}]}}"#);
            let prices = prices_from_json(body.as_bytes())?;
            let TokenPrices { input, output } = prices["a"].prices.of(true);
            Some((input.to_string(), output.to_string()))
        };
        let told = |input: &str, output: &str| Some((input.to_owned(), output.to_owned()));
        let table = [
            ("[]", told("0.000002", "0.000012")),
            ("null", told("0.000002", "0.000012")),
            (
                r#"[{"min_prompt_tokens":200000,"prompt":"0.000004","completion":"0.000018"}]"#,
                told("0.000004", "0.000018"),
            ),
            (
                r#"[{"utc_start":"16:30","utc_end":"00:30","prompt":"0.000001"},
                    {"min_prompt_tokens":200000,"completion":"0.000018"}]"#,
                told("0.000002", "0.000018"),
            ),
            (r#"[{"min_prompt_tokens":1,"prompt":"-1"}]"#, None),
            (r#"[{"min_prompt_tokens":1,"prompt":0.1}]"#, None),
            (r#"[{"min_prompt_tokens":1,"request":"0.01"}]"#, None),
            (r#"{"min_prompt_tokens":1,"prompt":"0.000004"}"#, None),
        ];
        for (overrides, expected) in table {
            let pricing = format!(
                r#"{{"prompt":"0.000002","completion":"0.000012","overrides":{overrides}}}"#
            );
            assert_eq!(price(&pricing), expected, "{overrides}");
        }
    }

    #[test]
    fn a_model_made_for_searching_has_no_price() {
        let priced = |search: &str, parameters: &str| {
            let body = format!(
                r#"{{"data":[{{"id":"a","supported_parameters":{parameters},
                    "pricing":{{"prompt":"0","completion":"0","web_search":{search}}}}}]}}"#
            );
            prices_from_json(body.as_bytes()).is_some()
        };
        let searches = r#"["max_tokens","web_search_options"]"#;
        assert!(!priced(r#""0.005""#, searches));
        assert!(!priced("0.005", searches));
        assert!(priced(r#""0""#, searches));
        assert!(priced("null", searches));
        assert!(priced(r#""0.01""#, r#"["max_tokens","tools","web_search_options"]"#));
        assert!(priced(r#""0.01""#, r#"["max_tokens"]"#));
        assert!(priced(r#""0.01""#, "null"));
    }

    #[test]
    fn the_shipped_table_can_be_read() {
        let shipped = prices_from_json(SHIPPED.as_bytes()).unwrap();
        assert!(shipped.contains_key("openai/gpt-4o-mini"));
    }
}
