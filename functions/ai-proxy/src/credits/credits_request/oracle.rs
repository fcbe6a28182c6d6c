//! Real tokenisers never exceed the prompt's bound.

use std::fmt::Write as _;
use std::sync::LazyLock;

use bytes::Bytes;
use proptest::prelude::*;
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};
use serde_json::{Value, json};
use tiktoken::CoreBpe;

use super::CreditsRequest;
use crate::request::ChatRequest;

fn vocabularies(names: &[&str]) -> Vec<&'static CoreBpe> {
    let vocabulary = |name: &&str| tiktoken::get_encoding(name).unwrap();
    names.iter().map(vocabulary).collect()
}

/// Vocabularies of 50 to 200 thousand tokens.
static VOCABULARIES: LazyLock<Vec<&CoreBpe>> = LazyLock::new(|| {
    let mut all = vocabularies(&["r50k_base"]);
    all.extend(WITH_INDENTATION.iter());
    all
});

/// The vocabularies with tokens for runs of spaces: all since GPT-3's.
static WITH_INDENTATION: LazyLock<Vec<&CoreBpe>> = LazyLock::new(|| {
    vocabularies(&[
        "p50k_base",
        "cl100k_base",
        "o200k_base",
        "llama3",
        "qwen2",
        "mistral_v3",
        "deepseek_v3",
    ])
});

/// The highest token count of `text` in any vocabulary.
fn tokens(text: &str) -> usize {
    most_tokens(&VOCABULARIES, text)
}

fn most_tokens(vocabularies: &[&CoreBpe], text: &str) -> usize {
    let counts = vocabularies.iter().map(|words| words.count(text));
    counts.max().unwrap()
}

/// OpenAI's token count of a chat: three tokens and the role for each message, three for the answer.
fn chat_tokens(messages: &[(&str, &str)]) -> usize {
    let messages = messages.iter();
    let each = messages.map(|(role, content)| 3 + tokens(role) + tokens(content));
    each.sum::<usize>() + 3
}

fn bound(body: &str) -> usize {
    let request = ChatRequest::parse(Bytes::copy_from_slice(body.as_bytes())).unwrap();
    let prompt = CreditsRequest::new(&request).unwrap().prompt;
    assert!(prompt.only_text);
    usize::try_from(prompt.text + prompt.around).unwrap()
}

/// JSON as written by clients that escape everything but ASCII.
fn in_ascii(json: &str) -> String {
    let units = json.encode_utf16().map(|unit| match u8::try_from(unit) {
        Ok(byte) if byte.is_ascii() => char::from(byte).to_string(),
        _ => format!("\\u{unit:04x}"),
    });
    units.collect()
}

/// Texts of every kind, short and long.
fn texts() -> Vec<(&'static str, String)> {
    let base64 = "QWxhZGRpbjpvcGVuIHNlc2FtZQ/+xZ9kLmP1vT0s7Yb3aHc8eR2";
    let mut hex = String::new();
    for byte in 0..=255_u32 {
        write!(hex, "{:02x}", byte.wrapping_mul(197) & 255).unwrap();
    }
    let controls: String = (0..32_u8).map(char::from).collect();
    let private_use: String = ('\u{e000}'..'\u{e040}').collect();
    let rare: String = ('\u{13000}'..'\u{13040}').collect();
    let samples = [
        ("nothing", ""),
        ("a letter", "a"),
        ("English", "The quick brown fox jumps over the lazy dog, again and again."),
        ("German", "Donaudampfschifffahrtsgesellschaftskapitän, Rechtsschutzversicherung"),
        (
            "Rust",
            "fn main() -> Result<(), Box<dyn Error>> {\n    let x: Vec<_> = a.iter().map(|b| b?.c).collect();\n}\n",
        ),
        ("Python", "def f(x):\n\treturn [y ** 2 for y in range(x) if y % 3 == 0]  # \u{2026}\n"),
        ("JSON", r#"{"a":[1,2.5e-7,null,{"b":"c\"d\\"}],"e":{"f":[[],{}]}}"#),
        ("Chinese", "我能吞下玻璃而不伤身体。人工智能正在改变世界,龘靐齉齾。"),
        ("Japanese", "私はガラスを食べられます。それは私を傷つけません。ヴァイオリン㍿"),
        ("Korean", "나는 유리를 먹을 수 있어요. 그래도 아프지 않아요. 뷁뛣"),
        ("Arabic", "أنا قادر على أكل الزجاج و هذا لا يؤلمني. ﷽"),
        ("Hindi", "मैं काँच खा सकता हूँ और मुझे उससे कोई चोट नहीं पहुंचती"),
        ("Thai", "ฉันกินกระจกได้ แต่มันไม่ทำให้ฉันเจ็บ"),
        ("Amharic", "ሰማይ አይታረስ ንጉሥ አይከሰስ።"),
        ("emoji", "👩‍👩‍👧‍👦🏳️‍🌈👍🏿🇩🇪🧑🏽‍🚀 \u{1fae8}\u{1fa77}"),
        ("zalgo", "Z\u{351}\u{36b}\u{343}a\u{36d}\u{489}l\u{348}g\u{361}o\u{33c}"),
        ("base64", base64),
        ("hex", &hex),
        ("controls", &controls),
        ("private use", &private_use),
        ("hieroglyphs", &rare),
        ("spaces", "        \t\t\n\n\n   \r\n"),
        ("one letter", "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"),
        ("digits", "3.14159265358979323846264338327950288419716939937510"),
        ("special tokens", "<|endoftext|><|im_start|>system<|im_sep|>[INST]</s>"),
    ];
    let once = samples.iter().map(|(kind, text)| (*kind, (*text).to_owned()));
    let often = samples.iter().map(|(kind, text)| (*kind, text.repeat(40)));
    once.chain(often).collect()
}

#[test]
fn no_tokeniser_exceeds_the_bound_for_a_text() {
    for (kind, text) in texts() {
        let chat = [("system", text.as_str()), ("user", text.as_str())];
        let messages = chat.map(|(role, content)| json!({"role": role, "content": content}));
        let body = json!({"messages": messages}).to_string();
        let needed = chat_tokens(&chat);
        for body in [&body, &in_ascii(&body)] {
            assert!(bound(body) >= needed, "{kind}: {} < {needed}", bound(body));
        }
        let parts = json!([{"type": "text", "text": text}, {"type": "text", "text": text}]);
        let body = json!({"messages": [{"role": "user", "content": parts}]}).to_string();
        assert!(bound(&body) >= chat_tokens(&[("user", &text.repeat(2))]), "{kind}");
    }
}

/// The forms in which providers are known to write JSON: compact, with spaces (Python), in ASCII,
/// indented by two or by four, and escaped for HTML (Go, Jinja).
fn forms(json: &Value) -> Vec<String> {
    let compact = json.to_string();
    let html = ['<', '>', '&', '\'']
        .iter()
        .fold(compact.clone(), |html, c| html.replace(*c, &format!("\\u{:04x}", u32::from(*c))));
    let written = |formatter: PrettyFormatter<'_>| formatted(json, formatter);
    let spaced = written(PrettyFormatter::with_indent(b"")).replace(",\n", ", ");
    vec![
        in_ascii(&compact),
        compact,
        html,
        spaced.replace('\n', ""),
        written(PrettyFormatter::new()),
        written(PrettyFormatter::with_indent(b"    ")),
    ]
}

fn formatted(json: &Value, formatter: impl Formatter) -> String {
    let mut bytes = Vec::new();
    json.serialize(&mut Serializer::with_formatter(&mut bytes, formatter)).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// The highest token count of any form of `json` in any vocabulary.
fn rewritten(json: &Value) -> usize {
    let counts = forms(json).into_iter().map(|form| most_tokens(&WITH_INDENTATION, &form));
    counts.max().unwrap()
}

/// JSON of every kind: with all texts, with nothing but structure, and with numbers.
fn schemas() -> Vec<(String, Value)> {
    let texts = texts().into_iter();
    let mut schemas: Vec<(String, Value)> =
        texts.map(|(kind, text)| (kind.to_owned(), json!({"q": {"enum": [text, "a"]}}))).collect();
    let digits: Vec<u32> = (0..2_000).map(|number| number % 10).collect();
    let deep = |levels: usize| (0..levels).fold(json!([1, 2]), |inner, _| json!([inner, {}]));
    let wide = |levels: usize| {
        let numbers = json!(vec![7; 500]);
        (0..levels).fold(numbers, |inner, _| json!({ "a": inner }))
    };
    // JavaScript and Python write exponents out.
    let exponents = vec![10_000_000_000_000_000_000_u64; 500];
    schemas.extend([
        ("digits".to_owned(), json!({ "enum": digits })),
        ("empty objects".to_owned(), json!({ "enum": vec![json!({}); 500] })),
        ("pairs".to_owned(), json!({ "enum": vec![json!({"a": 1}); 500] })),
        ("deep".to_owned(), deep(60)),
        ("wide".to_owned(), wide(8)),
        ("truths".to_owned(), json!({ "enum": vec![json!(true); 500] })),
        ("exponents".to_owned(), json!({ "enum": exponents })),
        (
            "JSON in a string".to_owned(),
            json!({ "const": json!({ "enum": vec![0; 500] }).to_string() }),
        ),
    ]);
    schemas
}

/// Tools, formats, calls and results are JSON that a provider may rewrite for the prompt.
#[test]
fn no_tokeniser_exceeds_the_bound_for_rewritten_json() {
    for (kind, schema) in schemas() {
        let tools = json!([{"type": "function", "function": {
            "name": "look_up", "description": kind,
            "parameters": {"type": "object", "properties": schema},
        }}]);
        let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
        let call = json!({"id": "c", "type": "function",
            "function": {"name": "look_up", "arguments": schema.to_string()}});
        // As written by a template that parses the arguments first.
        let call_read = json!({"id": "c", "type": "function",
            "function": {"name": "look_up", "arguments": schema}});
        let result = json!(schema.to_string());
        let details = json!([{"type": "reasoning.text", "text": kind, "index": 0}]);
        let messages = json!([
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": null, "tool_calls": [call],
             "reasoning_details": details},
            {"role": "tool", "tool_call_id": "c", "content": result},
        ]);
        let body = json!({"messages": messages, "tools": tools, "response_format": format});
        let needed = rewritten(&tools)
            + rewritten(&format)
            + rewritten(&call).max(rewritten(&call_read))
            + rewritten(&details)
            + rewritten(&result).max(rewritten(&schema))
            + chat_tokens(&[("user", "hi"), ("assistant", ""), ("tool", "")]);
        // JavaScript's short form of the numbers written out above.
        let body = body.to_string().replace(&"0".repeat(19), "e19");
        for body in [&body, &in_ascii(&body)] {
            assert!(bound(body) >= needed, "{kind}: {} < {needed}", bound(body));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_tokeniser_exceeds_any_bound(text in any::<String>(), ascii in any::<bool>()) {
        let messages = json!([{"role": "user", "content": text}]);
        let body = json!({"messages": messages}).to_string();
        let body = if ascii { in_ascii(&body) } else { body };
        prop_assert!(bound(&body) >= chat_tokens(&[("user", &text)]));
    }
}
