//! The maximum cost of a call, and its actual cost.
//!
//! The ceiling is computed before the call and the cost after it; the cost is capped at the
//! ceiling, so that a wrong list price can cost Greta money, but never the user.

pub mod prompt;

use crate::money::{Credits, CreditsPerUsd, Usd};

/// The highest prices of an input token and of an output token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenPrices {
    pub input: Usd,
    pub output: Usd,
}

/// The prices that bound a call to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelPrices {
    /// The highest price of an input token of text.
    pub text: Usd,
    /// The highest price of any input; an image has one price as a whole.
    pub input: Usd,
    pub output: Usd,
}

impl ModelPrices {
    /// The prices of a model from `listed`, which finds a price by its name: in US dollars, per
    /// token or per request. `None` if they do not bound a call: the one for prompt or completion
    /// is absent, any price is negative or unreadable, or there is a price per request.
    pub fn from_listed<'a>(listed: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let required = |name: &str| listed(name)?.parse::<Usd>().ok();
        let optional = |name: &str| listed(name).map_or(Some(Usd::ZERO), |text| text.parse().ok());
        let highest = |first, others: &[&str]| {
            others.iter().try_fold(first, |highest: Usd, name| Some(highest.max(optional(name)?)))
        };
        if !optional("request")?.is_zero() {
            return None;
        }
        // A message may request a cache for an hour.
        let cache_writes = ["input_cache_write", "input_cache_write_1h"];
        let text = highest(required("prompt")?, &cache_writes)?;
        let outputs = ["internal_reasoning", "image_output", "audio_output"];
        Some(Self {
            text,
            input: highest(text, &["image", "audio"])?,
            output: highest(required("completion")?, &outputs)?,
        })
    }

    /// The prices that bound a call that is charged by either of the two.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            text: self.text.max(other.text),
            input: self.input.max(other.input),
            output: self.output.max(other.output),
        }
    }

    /// The prices of a call; `only_text`: its prompt contains only text.
    pub fn of(&self, only_text: bool) -> TokenPrices {
        TokenPrices { input: if only_text { self.text } else { self.input }, output: self.output }
    }

    /// The most that the cheapest call can cost: a prompt without text, and one output token.
    pub fn cheapest_call(&self, rate: CreditsPerUsd) -> Option<Credits> {
        let prompt = self.text.times(prompt::TEMPLATE_TOKENS)?;
        prompt.checked_add(self.output)?.in_credits(rate)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PricedModel {
    pub id: String,
    pub prices: ModelPrices,
    /// Tokens of prompt and output together; `None` if not listed.
    pub context_length: Option<u64>,
    pub max_output_tokens: Option<u64>,
}

/// The caller's side of a ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallSize {
    /// Upper bound of the prompt's tokens, including what is added around its text.
    pub prompt_tokens: u64,
    pub only_text: bool,
    /// The lowest of the limits that the caller set.
    pub output_limit: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceiling {
    /// The limit on output tokens, sent upstream.
    pub output_limit: u64,
    /// The amount held before the call.
    pub amount: Credits,
}

/// The maximum cost of the call, with its output limited to what `available` pays for. `None` if
/// that is fewer than `min_output_tokens` (or than the caller's own limit, where it is lower).
pub fn ceiling(
    model: &PricedModel,
    size: CallSize,
    available: Credits,
    min_output_tokens: u64,
    rate: CreditsPerUsd,
) -> Option<Ceiling> {
    let prices = model.prices.of(size.only_text);
    let longest = [size.output_limit, model.max_output_tokens.or(model.context_length)];
    let least = min_output_tokens.min(size.output_limit.unwrap_or(u64::MAX));
    let prompt = prices.input.times(size.prompt_tokens)?;
    if prompt.in_credits(rate)? > available {
        return None;
    }
    let affordable = prices.output.affordable(available, prompt, rate);
    let limits = longest.into_iter().chain([affordable]).flatten();
    let output_limit = limits.min().unwrap_or(u64::MAX);
    if output_limit < least {
        return None;
    }
    let total = prices.output.times(output_limit)?.checked_add(prompt)?;
    Some(Ceiling { output_limit, amount: total.in_credits(rate)? })
}

/// The usage that a response reports. Every field may be missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: Option<u64>,
    pub completion_tokens: Option<u64>,
    /// The price that the default AI charged for the call.
    pub cost: Option<Usd>,
    /// The provider billed its own price to another account, in addition to `cost`.
    pub is_byok: bool,
    /// The provider's own price, if `is_byok`.
    pub upstream_inference_cost: Option<Usd>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tariff {
    pub prices: TokenPrices,
    pub rate: CreditsPerUsd,
}

impl Tariff {
    /// The call's cost, not yet capped at the hold. `None` if the usage does not show it.
    pub fn cost(&self, usage: &Usage) -> Option<Credits> {
        let TokenPrices { input, output } = self.prices;
        let usd = match (usage.cost, usage.upstream_inference_cost) {
            (Some(cost), Some(inference)) if usage.is_byok || cost.is_zero() => {
                cost.checked_add(inference)?
            }
            (Some(cost), _) => cost,
            (None, _) => {
                let prompt = input.times(usage.prompt_tokens?)?;
                prompt.checked_add(output.times(usage.completion_tokens?)?)?
            }
        };
        usd.in_credits(self.rate)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn rate() -> CreditsPerUsd {
        CreditsPerUsd::new(10).unwrap()
    }

    fn model(input: &str, output: &str) -> PricedModel {
        PricedModel {
            id: "m".to_owned(),
            prices: ModelPrices {
                text: input.parse().unwrap(),
                input: input.parse().unwrap(),
                output: output.parse().unwrap(),
            },
            context_length: Some(100_000),
            max_output_tokens: Some(4_000),
        }
    }

    fn text(prompt_tokens: u64, output_limit: Option<u64>) -> CallSize {
        CallSize { prompt_tokens, only_text: true, output_limit }
    }

    #[test]
    fn a_listed_price_bounds_the_call_or_is_not_used() {
        let full = HashMap::from([
            ("prompt", "0.000001"),
            ("completion", "0.000002"),
            ("request", "0"),
            ("image", "0.000003"),
            ("input_cache_write", "0.0000015"),
            ("internal_reasoning", "0.000004"),
        ]);
        // The prices with another one for `name`, or without it.
        let with = |name: &str, price: Option<&'static str>| {
            ModelPrices::from_listed(|of| if of == name { price } else { full.get(of).copied() })
        };
        let prices = ModelPrices::from_listed(|name| full.get(name).copied()).unwrap();
        assert_eq!(prices.of(true).input, "0.0000015".parse().unwrap());
        assert_eq!(prices.of(false).input, "0.000003".parse().unwrap());
        for only_text in [true, false] {
            assert_eq!(prices.of(only_text).output, "0.000004".parse().unwrap());
        }
        let prices = with("input_cache_write_1h", Some("0.000002")).unwrap();
        assert_eq!(prices.of(true).input, "0.000002".parse().unwrap());
        for not_text in ["image_output", "audio_output"] {
            let prices = with(not_text, Some("0.00003")).unwrap();
            assert_eq!(prices.of(true).output, "0.00003".parse().unwrap());
        }
        let no_price = [
            ("prompt", None),
            ("completion", None),
            ("prompt", Some("-1")),
            ("audio", Some("-1")),
            ("completion", Some("free")),
            ("request", Some("0.01")),
        ];
        for (name, price) in no_price {
            assert_eq!(with(name, price), None, "{name} {price:?}");
        }
    }

    #[test]
    fn the_output_limit_is_the_lowest_of_the_limits() {
        let model = model("0.000001", "0.000002");
        let plenty = Credits::from_micros(1_000_000_000);
        let limit = |output_limit, available| {
            let size = text(100, output_limit);
            ceiling(&model, size, available, 16, rate()).map(|c| c.output_limit)
        };
        assert_eq!(limit(Some(50), plenty), Some(50));
        assert_eq!(limit(None, plenty), Some(4_000));
        assert_eq!(limit(Some(9_000), plenty), Some(4_000));
        // 100 input tokens cost 1,000 micro-credits, an output token 20.
        assert_eq!(limit(None, Credits::from_micros(1_000 + 20 * 30)), Some(30));
        assert_eq!(limit(None, Credits::from_micros(1_000 + 20 * 15)), None);
        assert_eq!(limit(Some(3), Credits::from_micros(1_000 + 20 * 3)), Some(3));
        assert_eq!(limit(Some(3), Credits::from_micros(1_000 + 20 * 2)), None);
        assert_eq!(limit(None, Credits::from_micros(999)), None);
    }

    #[test]
    fn a_free_model_needs_no_credits() {
        let free = model("0", "0");
        let size = text(10, None);
        let ceiling = ceiling(&free, size, Credits::ZERO, 16, rate()).unwrap();
        assert_eq!((ceiling.amount, ceiling.output_limit), (Credits::ZERO, 4_000));
    }

    #[test]
    fn the_response_reports_its_cost() {
        let prices = model("0.000001", "0.000002").prices.of(true);
        let usd = |text: &str| Some(text.parse().unwrap());
        let tokens =
            Usage { prompt_tokens: Some(10), completion_tokens: Some(5), ..Usage::default() };
        let table = [
            (Usage { cost: usd("0.001"), ..tokens }, Some(10_000)),
            (Usage { cost: usd("0"), ..tokens }, Some(0)),
            (
                Usage { cost: usd("0"), upstream_inference_cost: usd("0.002"), ..tokens },
                Some(20_000),
            ),
            (
                Usage { cost: usd("0.001"), upstream_inference_cost: usd("0.002"), ..tokens },
                Some(10_000),
            ),
            (
                Usage {
                    cost: usd("0.001"),
                    is_byok: true,
                    upstream_inference_cost: usd("0.002"),
                    ..tokens
                },
                Some(30_000),
            ),
            (Usage { cost: usd("0.001"), is_byok: true, ..tokens }, Some(10_000)),
            (tokens, Some(200)),
            (Usage { completion_tokens: None, ..tokens }, None),
            (Usage::default(), None),
        ];
        for (usage, micros) in table {
            let cost = Tariff { prices, rate: rate() }.cost(&usage);
            assert_eq!(cost, micros.map(Credits::from_micros), "{usage:?}");
        }
    }

    proptest! {
        /// The hold covers any call within its limits, and is itself covered.
        #[test]
        fn the_ceiling_covers_the_call_and_is_covered(
            input in 0_u128..10_000_000_000_000,
            output in 0_u128..10_000_000_000_000,
            prompt_tokens in 0_u64..100_000,
            output_limit in prop::option::of(1_u64..10_000),
            available in 0_i64..100_000_000,
            part in 0_u64..=100,
        ) {
            let (input, output) = (Usd::from_attos(input), Usd::from_attos(output));
            let model = PricedModel {
                prices: ModelPrices { text: input, input, output },
                ..model("0", "0")
            };
            let available = Credits::from_micros(available);
            let size = CallSize { prompt_tokens, only_text: true, output_limit };
            let held = ceiling(&model, size, available, 16, rate());
            let cost = |prompt: u64, completion: u64| {
                let usage = Usage {
                    prompt_tokens: Some(prompt),
                    completion_tokens: Some(completion),
                    ..Usage::default()
                };
                Tariff { prices: model.prices.of(true), rate: rate() }.cost(&usage).unwrap()
            };
            let least = 16.min(output_limit.unwrap_or(16));
            prop_assert_eq!(held.is_some(), cost(prompt_tokens, least) <= available);
            if let Some(held) = held {
                prop_assert!(held.amount <= available);
                prop_assert!(held.output_limit >= least);
                let completion = held.output_limit * part / 100;
                prop_assert!(cost(prompt_tokens * part / 100, completion) <= held.amount);
            }
        }
    }
}
