//! The listed models and their prices.

use std::sync::LazyLock;

use account::Usd;
use serde::Deserialize;
use serde_json::{Value, json};

use super::behaviour::{self, LISTED, UNLISTED};

/// The model for requests that name none.
pub const DEFAULT_MODEL: &str = "openai/gpt-4o-mini";

/// The creation time of all models and responses, in Unix seconds: responses never differ.
pub(super) const CREATED: i64 = 1_767_225_600;

#[derive(Debug, Deserialize)]
pub(super) struct Model {
    id: String,
    name: String,
    context_length: u64,
    max_completion_tokens: Option<u64>,
    modality: String,
    /// US dollars per token of the prompt and of the completion.
    prompt: String,
    completion: String,
    /// US dollars per request.
    request: String,
    /// US dollars per image, not per token.
    image: String,
}

struct Models {
    listed: Vec<Model>,
    /// The model behind the names that select a behaviour.
    simulated: Model,
    /// The entries of the list.
    entries: Vec<Value>,
}

static MODELS: LazyLock<Models> = LazyLock::new(|| {
    let models = serde_json::from_str(include_str!("models.json"));
    let mut listed: Vec<Model> = models.expect("models.json lists models");
    let simulated = listed.pop().expect("models.json lists models");
    let real = listed.iter().map(|model| entry(model, &model.id, &model.name));
    let behaviours = behaviour::names().map(|name| {
        let title = format!("Simulated: {name}");
        entry(&simulated, &format!("{LISTED}{name}"), &title)
    });
    let entries = real.chain(behaviours).collect();
    Models { listed, simulated, entries }
});

/// The response of `GET /models`: all models, or the page that was asked for.
pub(super) fn list(offset: usize, limit: Option<usize>) -> Value {
    let entries = &MODELS.entries;
    let start = offset.min(entries.len());
    let end = limit.map_or(entries.len(), |limit| start.saturating_add(limit).min(entries.len()));
    let next = (end < entries.len()).then(|| {
        let limit = end - start;
        format!("https://openrouter.ai/api/v1/models?offset={end}&limit={limit}")
    });
    json!({
        "data": entries[start..end],
        "total_count": entries.len(),
        "links": {"next": next},
    })
}

fn entry(model: &Model, id: &str, name: &str) -> Value {
    let (inputs, _) = model.modality.split_once("->").unwrap_or_default();
    json!({
        "id": id,
        "canonical_slug": id.trim_end_matches(":free"),
        "hugging_face_id": null,
        "name": name,
        "created": CREATED,
        "description": "A model of the simulator.",
        "context_length": model.context_length,
        "architecture": {
            "modality": model.modality,
            "input_modalities": inputs.split('+').collect::<Vec<_>>(),
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
        "supported_parameters": [
            "max_tokens", "temperature", "top_p", "stop", "seed", "tools", "tool_choice",
            "response_format", "structured_outputs", "reasoning", "include_reasoning",
        ],
        "default_parameters": null,
        "supported_voices": null,
        "knowledge_cutoff": null,
        "expiration_date": null,
        "links": {"details": format!("/api/v1/models/{id}/endpoints")},
    })
}

impl Model {
    /// The exact cost of a call of this size in US dollars.
    pub(super) fn cost(&self, prompt_tokens: u64, completion_tokens: u64) -> Usd {
        let usd = |price: &str| price.parse::<Usd>().ok();
        let cost = || {
            let prompt = usd(&self.prompt)?.times(prompt_tokens)?;
            let completion = usd(&self.completion)?.times(completion_tokens)?;
            prompt.checked_add(completion)?.checked_add(usd(&self.request)?)
        };
        cost().expect("the cost of a simulated call can be counted")
    }
}

/// The model that responds to a request for `name`: its name, and the model with its prices. `None`
/// if there is none.
pub(super) fn find(name: &str) -> Option<(String, &'static Model)> {
    if name.starts_with(UNLISTED) || name.starts_with(LISTED) {
        return Some((name.to_owned(), &MODELS.simulated));
    }
    // `:online`, `:nitro` and other variants that are not models of their own.
    let base = name.split(':').next().unwrap_or(name);
    let listed = |id: &str| MODELS.listed.iter().find(|model| model.id == id);
    let found = listed(name).or_else(|| listed(base))?;
    if found.prompt.starts_with('-') {
        // A router has no price: the model that it picks has one.
        return find(DEFAULT_MODEL);
    }
    Some((name.to_owned(), found))
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
            let (_, found) = find(model).unwrap();
            assert_eq!(found.cost(prompt, completion).to_string(), expected, "{model}");
        }
        assert!(find("nobody/nothing").is_none());
        assert_eq!(find("openrouter/auto").unwrap().0, DEFAULT_MODEL);
    }

    #[test]
    fn the_list_has_every_kind_of_price() {
        let list = list(0, None);
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
            models.iter().any(|model| model["top_provider"]["max_completion_tokens"].is_null())
        );
        assert!(models.iter().all(|model| !model["id"].as_str().unwrap().starts_with(UNLISTED)));
    }

    #[test]
    fn the_list_has_pages() {
        let all = list(0, None);
        let total = all["data"].as_array().unwrap().len();
        assert_eq!((&all["total_count"], &all["links"]["next"]), (&json!(total), &Value::Null));
        let page = list(2, Some(3));
        assert_eq!(page["data"].as_array().unwrap()[..], all["data"].as_array().unwrap()[2..5]);
        assert_eq!(page["total_count"], total);
        let next = page["links"]["next"].as_str().unwrap();
        assert!(next.ends_with("/models?offset=5&limit=3"), "{next}");
        assert_eq!(list(total + 1, Some(3))["data"], json!([]));
        assert_eq!(list(0, Some(usize::MAX))["data"], all["data"]);
    }
}
