//! The models that the simulator lists, and what they cost.

use account::Usd;
use serde_json::{Value, json};

use super::behaviour;

/// The model that answers where a request names none.
pub const DEFAULT_MODEL: &str = "openai/gpt-4o-mini";

/// The family of models that misbehave and are not in the list: `sim/<what>`.
pub(super) const UNLISTED: &str = "sim/";
/// The same in the list, with a price: `sim-priced/<what>`.
pub(super) const LISTED: &str = "sim-priced/";

/// A model of the list.
struct Model {
    id: &'static str,
    name: &'static str,
    context_length: u64,
    max_completion_tokens: Option<u64>,
    /// US dollars per token of the prompt and of the answer, as the list writes them.
    prompt: &'static str,
    completion: &'static str,
    /// US dollars per request.
    request: &'static str,
    /// US dollars per image, not per token.
    image: &'static str,
    modality: &'static str,
}

const TEXT: &str = "text->text";
const TEXT_AND_IMAGE: &str = "text+image->text";

/// What a model costs that is called but not listed, and those that are listed to misbehave.
const SIMULATED: Model = Model {
    id: "sim/ok",
    name: "Simulated",
    context_length: 128_000,
    max_completion_tokens: Some(65_536),
    prompt: "0.00000015",
    completion: "0.0000006",
    request: "0",
    image: "0",
    modality: TEXT,
};

const MODELS: [Model; 12] = [
    Model {
        id: DEFAULT_MODEL,
        name: "OpenAI: GPT-4o-mini",
        context_length: 128_000,
        max_completion_tokens: Some(16_384),
        prompt: "0.00000015",
        completion: "0.0000006",
        request: "0",
        image: "0",
        modality: TEXT_AND_IMAGE,
    },
    Model {
        id: "openai/gpt-4o",
        name: "OpenAI: GPT-4o",
        context_length: 128_000,
        max_completion_tokens: Some(16_384),
        prompt: "0.0000025",
        completion: "0.00001",
        request: "0",
        image: "0.003613",
        modality: TEXT_AND_IMAGE,
    },
    Model {
        id: "openai/gpt-4.1-nano",
        name: "OpenAI: GPT-4.1 Nano",
        context_length: 1_047_576,
        max_completion_tokens: Some(32_768),
        prompt: "0.0000001",
        completion: "0.0000004",
        request: "0",
        image: "0",
        modality: TEXT_AND_IMAGE,
    },
    Model {
        id: "anthropic/claude-sonnet-4",
        name: "Anthropic: Claude Sonnet 4",
        context_length: 1_000_000,
        max_completion_tokens: Some(64_000),
        prompt: "0.000003",
        completion: "0.000015",
        request: "0",
        image: "0.0048",
        modality: TEXT_AND_IMAGE,
    },
    Model {
        id: "anthropic/claude-3.5-haiku",
        name: "Anthropic: Claude 3.5 Haiku",
        context_length: 200_000,
        max_completion_tokens: Some(8_192),
        prompt: "0.0000008",
        completion: "0.000004",
        request: "0",
        image: "0",
        modality: TEXT_AND_IMAGE,
    },
    Model {
        id: "google/gemini-2.5-flash",
        name: "Google: Gemini 2.5 Flash",
        context_length: 1_048_576,
        max_completion_tokens: Some(65_535),
        prompt: "0.0000003",
        completion: "0.0000025",
        request: "0",
        image: "0.001238",
        modality: TEXT_AND_IMAGE,
    },
    Model {
        id: "mistralai/mistral-small-3.2-24b-instruct",
        name: "Mistral: Mistral Small 3.2 24B",
        context_length: 131_072,
        // No limit of its own on the answer.
        max_completion_tokens: None,
        prompt: "0.00000006",
        completion: "0.00000018",
        request: "0",
        image: "0",
        modality: TEXT_AND_IMAGE,
    },
    Model {
        id: "deepseek/deepseek-chat-v3-0324",
        name: "DeepSeek: DeepSeek V3 0324",
        context_length: 163_840,
        max_completion_tokens: Some(163_840),
        prompt: "0.0000002",
        completion: "0.00000077",
        request: "0",
        image: "0",
        modality: TEXT,
    },
    Model {
        id: "meta-llama/llama-3.3-70b-instruct",
        name: "Meta: Llama 3.3 70B Instruct",
        context_length: 131_072,
        max_completion_tokens: Some(16_384),
        prompt: "0.00000013",
        completion: "0.00000039",
        request: "0",
        image: "0",
        modality: TEXT,
    },
    Model {
        id: "meta-llama/llama-3.3-70b-instruct:free",
        name: "Meta: Llama 3.3 70B Instruct (free)",
        context_length: 65_536,
        max_completion_tokens: None,
        prompt: "0",
        completion: "0",
        request: "0",
        image: "0",
        modality: TEXT,
    },
    Model {
        id: "perplexity/sonar",
        name: "Perplexity: Sonar",
        context_length: 127_072,
        max_completion_tokens: None,
        prompt: "0.000001",
        completion: "0.000001",
        request: "0.005",
        image: "0",
        modality: TEXT_AND_IMAGE,
    },
    Model {
        id: "openrouter/auto",
        name: "Auto Router",
        context_length: 2_000_000,
        max_completion_tokens: None,
        prompt: "-1",
        completion: "-1",
        request: "0",
        image: "0",
        modality: TEXT,
    },
];

/// The ids of all models in the list.
pub fn listed() -> Vec<String> {
    let real = MODELS.iter().map(|model| model.id.to_owned());
    real.chain(behaviour::names().map(|name| format!("{LISTED}{name}")))
        .collect()
}

/// The list, as `GET /models` gives it.
pub(super) fn list() -> Value {
    let real = MODELS
        .iter()
        .map(|model| entry(model, model.id, model.name));
    let simulated = behaviour::names().map(|name| {
        let title = format!("Simulated: {name}");
        entry(&SIMULATED, &format!("{LISTED}{name}"), &title)
    });
    json!({"data": real.chain(simulated).collect::<Vec<_>>()})
}

fn entry(model: &Model, id: &str, name: &str) -> Value {
    let inputs: Vec<_> = match model.modality {
        TEXT => vec!["text"],
        _ => vec!["text", "image"],
    };
    json!({
        "id": id,
        "canonical_slug": id.trim_end_matches(":free"),
        "hugging_face_id": null,
        "name": name,
        "created": super::CREATED,
        "description": "A model of the simulator.",
        "context_length": model.context_length,
        "architecture": {
            "modality": model.modality,
            "input_modalities": inputs,
            "output_modalities": ["text"],
            "tokenizer": "Other",
            "instruct_type": null,
        },
        "pricing": {
            "prompt": model.prompt,
            "completion": model.completion,
            "request": model.request,
            "image": model.image,
            "web_search": "0",
            "internal_reasoning": "0",
        },
        "top_provider": {
            "context_length": model.context_length,
            "max_completion_tokens": model.max_completion_tokens,
            "is_moderated": false,
        },
        "per_request_limits": null,
        "supported_parameters": ["max_tokens", "temperature", "top_p", "stop", "seed", "tools", "tool_choice", "response_format"],
    })
}

/// What calls of one model cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prices {
    prompt: Usd,
    completion: Usd,
    request: Usd,
}

impl Prices {
    /// US dollars for a call of this size, exactly.
    pub(super) fn cost(self, prompt_tokens: u64, completion_tokens: u64) -> Usd {
        let prompt = self.prompt.times(prompt_tokens);
        let completion = self.completion.times(completion_tokens);
        prompt
            .zip(completion)
            .and_then(|(prompt, completion)| {
                prompt.checked_add(completion)?.checked_add(self.request)
            })
            .expect("a simulated call costs less than all the money there is")
    }
}

/// The model that answers when `asked` is called for, and its prices. `None`: there is no such
/// model.
pub(super) fn find(asked: &str) -> Option<(String, Prices)> {
    if asked.starts_with(UNLISTED) || asked.starts_with(LISTED) {
        return Some((asked.to_owned(), prices(&SIMULATED)));
    }
    // `:online`, `:nitro` and other variants that are not models of their own.
    let base = asked.split(':').next().unwrap_or(asked);
    let listed = |id: &str| MODELS.iter().find(|model| model.id == id);
    let model = listed(asked).or_else(|| listed(base))?;
    if model.prompt.starts_with('-') {
        // A router: it has no price of its own, the model that it picks has.
        return find(DEFAULT_MODEL);
    }
    Some((asked.to_owned(), prices(model)))
}

fn prices(model: &Model) -> Prices {
    let usd = |text: &str| text.parse().expect("the table's prices are decimals");
    Prices {
        prompt: usd(model.prompt),
        completion: usd(model.completion),
        request: usd(model.request),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_exact() {
        let table = [
            (DEFAULT_MODEL, 11, 12, "0.00000885"),
            ("openai/gpt-4o-mini:online", 11, 12, "0.00000885"),
            ("meta-llama/llama-3.3-70b-instruct:free", 1000, 1000, "0"),
            ("perplexity/sonar", 1, 2, "0.005003"),
            ("openrouter/auto", 11, 12, "0.00000885"),
            ("sim/cut", 11, 12, "0.00000885"),
        ];
        for (model, prompt, completion, expected) in table {
            let (_, prices) = find(model).unwrap();
            assert_eq!(
                prices.cost(prompt, completion).to_string(),
                expected,
                "{model}"
            );
        }
        assert!(find("nobody/nothing").is_none());
        assert_eq!(find("openrouter/auto").unwrap().0, DEFAULT_MODEL);
    }

    #[test]
    fn the_list_holds_every_kind_of_price() {
        let list = list();
        let models = list["data"].as_array().unwrap();
        let pricing = |id: &str| {
            let found = models.iter().find(|model| model["id"] == id).unwrap();
            found["pricing"].clone()
        };
        assert_eq!(pricing(DEFAULT_MODEL)["prompt"], "0.00000015");
        assert_eq!(pricing("openrouter/auto")["completion"], "-1");
        assert_eq!(pricing("perplexity/sonar")["request"], "0.005");
        assert_eq!(pricing("sim-priced/cut")["completion"], "0.0000006");
        assert!(
            models
                .iter()
                .any(|model| model["top_provider"]["max_completion_tokens"].is_null())
        );
        assert!(
            models
                .iter()
                .all(|model| !model["id"].as_str().unwrap().starts_with(UNLISTED))
        );
        assert_eq!(models.len(), listed().len());
    }
}
