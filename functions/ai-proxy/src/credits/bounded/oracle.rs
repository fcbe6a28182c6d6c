//! Real tokenisers against the prompt's bound.

use std::fmt::Write as _;
use std::sync::LazyLock;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use tiktoken_rs::CoreBPE;

use super::Bounded;
use crate::request::ChatRequest;

/// OpenAI's vocabularies, old and new: 50, 100 and 200 thousand tokens.
static VOCABULARIES: LazyLock<[CoreBPE; 4]> = LazyLock::new(|| {
    [
        tiktoken_rs::r50k_base().unwrap(),
        tiktoken_rs::p50k_base().unwrap(),
        tiktoken_rs::cl100k_base().unwrap(),
        tiktoken_rs::o200k_base().unwrap(),
    ]
});

/// The most tokens that any of the vocabularies makes of `text`.
fn tokens(text: &str) -> usize {
    let counts = VOCABULARIES
        .iter()
        .map(|words| words.encode_ordinary(text).len());
    counts.max().unwrap()
}

/// How OpenAI counts a chat: three tokens and the role around each message, three for the answer.
fn chat_tokens(messages: &[(&str, &str)]) -> usize {
    let messages = messages.iter();
    let each = messages.map(|(role, content)| 3 + tokens(role) + tokens(content));
    each.sum::<usize>() + 3
}

fn bound(body: &str) -> usize {
    let request = ChatRequest::parse(Bytes::copy_from_slice(body.as_bytes())).unwrap();
    let prompt = Bounded::of(&request).unwrap().prompt;
    assert!(prompt.only_text);
    assert!(prompt.text_tokens <= prompt.tokens);
    usize::try_from(prompt.tokens).unwrap()
}

/// JSON as clients write it that know nothing but ASCII.
fn in_ascii(json: &str) -> String {
    let units = json.encode_utf16().map(|unit| match u8::try_from(unit) {
        Ok(byte) if byte.is_ascii() => char::from(byte).to_string(),
        _ => format!("\\u{unit:04x}"),
    });
    units.collect()
}

/// A text of each kind, long and short.
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
        (
            "English",
            "The quick brown fox jumps over the lazy dog, again and again.",
        ),
        (
            "German",
            "Donaudampfschifffahrtsgesellschaftskapitän, Rechtsschutzversicherung",
        ),
        (
            "Rust",
            "fn main() -> Result<(), Box<dyn Error>> {\n    let x: Vec<_> = a.iter().map(|b| b?.c).collect();\n}\n",
        ),
        (
            "Python",
            "def f(x):\n\treturn [y ** 2 for y in range(x) if y % 3 == 0]  # \u{2026}\n",
        ),
        (
            "JSON",
            r#"{"a":[1,2.5e-7,null,{"b":"c\"d\\"}],"e":{"f":[[],{}]}}"#,
        ),
        (
            "Chinese",
            "我能吞下玻璃而不伤身体。人工智能正在改变世界,龘靐齉齾。",
        ),
        (
            "Japanese",
            "私はガラスを食べられます。それは私を傷つけません。ヴァイオリン㍿",
        ),
        (
            "Korean",
            "나는 유리를 먹을 수 있어요. 그래도 아프지 않아요. 뷁뛣",
        ),
        ("Arabic", "أنا قادر على أكل الزجاج و هذا لا يؤلمني. ﷽"),
        ("Hindi", "मैं काँच खा सकता हूँ और मुझे उससे कोई चोट नहीं पहुंचती"),
        ("Thai", "ฉันกินกระจกได้ แต่มันไม่ทำให้ฉันเจ็บ"),
        ("Amharic", "ሰማይ አይታረስ ንጉሥ አይከሰስ።"),
        ("emoji", "👩‍👩‍👧‍👦🏳️‍🌈👍🏿🇩🇪🧑🏽‍🚀 \u{1fae8}\u{1fa77}"),
        (
            "zalgo",
            "Z\u{351}\u{36b}\u{343}a\u{36d}\u{489}l\u{348}g\u{361}o\u{33c}",
        ),
        ("base64", base64),
        ("hex", &hex),
        ("controls", &controls),
        ("private use", &private_use),
        ("hieroglyphs", &rare),
        ("spaces", "        \t\t\n\n\n   \r\n"),
        ("one letter", "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"),
        (
            "digits",
            "3.14159265358979323846264338327950288419716939937510",
        ),
        (
            "special tokens",
            "<|endoftext|><|im_start|>system<|im_sep|>[INST]</s>",
        ),
    ];
    let once = samples
        .iter()
        .map(|(kind, text)| (*kind, (*text).to_owned()));
    let often = samples.iter().map(|(kind, text)| (*kind, text.repeat(40)));
    once.chain(often).collect()
}

#[test]
fn no_tokeniser_makes_more_of_a_text() {
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
        assert!(
            bound(&body) >= chat_tokens(&[("user", &text.repeat(2))]),
            "{kind}"
        );
    }
}

/// Tools are JSON that the provider writes into the prompt: as it stands, spaced out, or in ASCII.
#[test]
fn no_tokeniser_makes_more_of_tools() {
    for (kind, text) in texts() {
        let tools = json!([{"type": "function", "function": {
            "name": "look_up", "description": text,
            "parameters": {"type": "object", "properties": {"q": {"enum": [text, "a"]}}},
        }}]);
        let format =
            json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"const": text}}});
        let call = json!({"id": "c", "type": "function",
            "function": {"name": "look_up", "arguments": json!({"q": text}).to_string()}});
        let messages = json!([
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": text},
        ]);
        let body = json!({"messages": messages, "tools": tools, "response_format": format});
        let written = |json: &Value| {
            let forms = [
                json.to_string(),
                in_ascii(&json.to_string()),
                serde_json::to_string_pretty(json).unwrap(),
            ];
            forms.iter().map(|form| tokens(form)).max().unwrap()
        };
        let needed = written(&tools)
            + written(&format)
            + written(&call)
            + chat_tokens(&[("user", "hi"), ("assistant", ""), ("tool", &text)]);
        let body = body.to_string();
        for body in [&body, &in_ascii(&body)] {
            assert!(bound(body) >= needed, "{kind}: {} < {needed}", bound(body));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn nor_of_any_text(text in any::<String>(), ascii in any::<bool>()) {
        let messages = json!([{"role": "user", "content": text}]);
        let body = json!({"messages": messages}).to_string();
        let body = if ascii { in_ascii(&body) } else { body };
        prop_assert!(bound(&body) >= chat_tokens(&[("user", &text)]));
    }
}
