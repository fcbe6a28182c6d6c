//! Values that satisfy a JSON schema, for tool calls and structured output.

use serde_json::{Map, Value, json};

/// Depth from which a value contains only required parts, because schemas can be recursive.
const MAX_DEPTH: usize = 6;

/// A value that satisfies `schema`; its texts repeat `text`. Patterns are ignored.
pub(super) fn example(schema: &Value, text: &str) -> Value {
    Examples { root: schema, text }.of(schema, 0)
}

struct Examples<'a> {
    root: &'a Value,
    text: &'a str,
}

impl Examples<'_> {
    fn of(&self, schema: &Value, depth: usize) -> Value {
        for fixed in ["const", "default"] {
            if let Some(value) = schema.get(fixed) {
                return value.clone();
            }
        }
        if let Some(values) = schema["enum"].as_array() {
            return values.first().cloned().unwrap_or_default();
        }
        if let Some(target) = schema["$ref"].as_str() {
            let target = target.strip_prefix('#').and_then(|place| self.root.pointer(place));
            return target.map_or(Value::Null, |target| self.of(target, depth + 1));
        }
        if let Some(parts) = schema["allOf"].as_array() {
            return self.all_of(schema, parts, depth);
        }
        for choice in ["anyOf", "oneOf"] {
            if let Some(choices) = schema[choice].as_array() {
                return self.one_of(choices, depth);
            }
        }
        match kind(schema) {
            "object" => self.object(schema, depth),
            "array" => self.array(schema, depth),
            "integer" | "number" => number(schema),
            "boolean" => json!(true),
            "null" => Value::Null,
            _ => json!(self.string(schema)),
        }
    }

    /// The members of all parts, and of the schema itself.
    fn all_of(&self, schema: &Value, parts: &[Value], depth: usize) -> Value {
        let mut own = schema.clone();
        if let Some(own) = own.as_object_mut() {
            own.remove("allOf");
        }
        let mut all = Map::new();
        for part in parts.iter().chain([&own]) {
            match self.of(part, depth) {
                Value::Object(members) => all.extend(members),
                // Not an object: return this part's value.
                value if part.get("type").is_some() || part.get("$ref").is_some() => return value,
                _ => {}
            }
        }
        Value::Object(all)
    }

    /// The first choice; from [`MAX_DEPTH`] on, `null` if that is a choice.
    fn one_of(&self, choices: &[Value], depth: usize) -> Value {
        let null = choices.iter().find(|choice| choice["type"] == "null");
        let chosen = null.filter(|_| depth >= MAX_DEPTH).or_else(|| choices.first());
        chosen.map_or(Value::Null, |chosen| self.of(chosen, depth + 1))
    }

    fn object(&self, schema: &Value, depth: usize) -> Value {
        let required: Vec<&Value> = schema["required"].as_array().into_iter().flatten().collect();
        let properties = schema["properties"].as_object();
        let members = properties.into_iter().flatten().filter(|(name, _)| {
            depth < MAX_DEPTH || required.iter().any(|required| required == name)
        });
        members.map(|(name, schema)| (name.clone(), self.of(schema, depth + 1))).collect()
    }

    fn array(&self, schema: &Value, depth: usize) -> Value {
        let fixed = schema["prefixItems"].as_array().into_iter().flatten();
        let mut items: Vec<Value> = fixed.map(|item| self.of(item, depth + 1)).collect();
        let least = schema["minItems"].as_u64().unwrap_or(u64::from(depth < MAX_DEPTH));
        let most = schema["maxItems"].as_u64().unwrap_or(u64::MAX);
        let wanted = usize::try_from(least.min(most)).unwrap_or_default();
        if let Some(item) = schema.get("items").filter(|items| items.is_object()) {
            while items.len() < wanted {
                items.push(self.of(item, depth + 1));
            }
        }
        json!(items)
    }

    fn string(&self, schema: &Value) -> String {
        let fixed = match schema["format"].as_str() {
            Some("date-time") => "2026-01-01T00:00:00Z",
            Some("date") => "2026-01-01",
            Some("time") => "00:00:00Z",
            Some("duration") => "P1D",
            Some("email") => "user@example.com",
            Some("uri" | "url") => "https://example.com/",
            Some("hostname") => "example.com",
            Some("ipv4") => "127.0.0.1",
            Some("ipv6") => "::1",
            Some("uuid") => "00000000-0000-4000-8000-000000000000",
            _ => "",
        };
        if !fixed.is_empty() {
            return fixed.to_owned();
        }
        let limit =
            |name: &str| schema[name].as_u64().and_then(|limit| usize::try_from(limit).ok());
        let text = if self.text.is_empty() { "text" } else { self.text };
        let most = limit("maxLength").unwrap_or(usize::MAX);
        let mut text: String = text.chars().take(most).collect();
        while text.chars().count() < limit("minLength").unwrap_or_default() {
            text.push('x');
        }
        text
    }
}

/// The schema's first type, or the type that its members suggest if it names none.
fn kind(schema: &Value) -> &str {
    let named = match &schema["type"] {
        Value::Array(types) => types.first().and_then(Value::as_str),
        one => one.as_str(),
    };
    named.unwrap_or_else(|| match schema {
        _ if schema.get("properties").is_some() => "object",
        _ if schema.get("items").is_some() => "array",
        _ => "string",
    })
}

/// 1, or the number nearest to it that the schema allows.
#[expect(
    clippy::float_arithmetic,
    clippy::cast_possible_truncation,
    reason = "schemas bound numbers by JSON's numbers, and tools by small ones"
)]
fn number(schema: &Value) -> Value {
    let is_whole = kind(schema) == "integer";
    let step = schema["multipleOf"].as_f64().unwrap_or(if is_whole { 1.0 } else { 0.5 });
    let bound = |name: &str| schema[name].as_f64();
    let above = bound("exclusiveMinimum").map(|least| ((least / step).floor() + 1.0) * step);
    let below = bound("exclusiveMaximum").map(|most| ((most / step).ceil() - 1.0) * step);
    let least = bound("minimum").map(|least| (least / step).ceil() * step);
    let most = bound("maximum").map(|most| (most / step).floor() * step);
    let mut number = (1.0 / step).ceil() * step;
    number = [least, above].into_iter().flatten().fold(number, f64::max);
    number = [most, below].into_iter().flatten().fold(number, f64::min);
    if number.fract() == 0.0 { json!(number as i64) } else { json!(number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schema: &Value) -> Value {
        let value = example(schema, "Hello there");
        let mut compiler = boon::Compiler::new();
        let mut schemas = boon::Schemas::new();
        compiler.add_resource("schema.json", schema.clone()).unwrap();
        let whole = compiler.compile("schema.json", &mut schemas).unwrap();
        let valid = schemas.validate(&value, whole);
        assert!(valid.is_ok(), "{value} for {schema}");
        value
    }

    #[test]
    fn examples_satisfy_their_schemas() {
        let person = json!({
            "type": "object",
            "properties": {
                "name": {"type": "string", "maxLength": 5},
                "age": {"type": "integer", "minimum": 18, "maximum": 99},
                "score": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
                "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2},
                "born": {"type": ["string", "null"], "format": "date"},
                "kind": {"const": "person"},
                "note": {"anyOf": [{"type": "string", "minLength": 20}, {"type": "null"}]},
                "at": {"type": "array", "prefixItems": [{"type": "number"}, {"type": "boolean"}]},
            },
            "required": ["name", "age", "score", "tags", "born", "kind", "note", "at"],
            "additionalProperties": false,
        });
        assert_eq!(check(&person)["name"], "Hello");
        let tree = json!({
            "$ref": "#/$defs/Node",
            "$defs": {"Node": {
                "type": "object",
                "properties": {
                    "value": {"type": "integer", "multipleOf": 5},
                    "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
                },
                "required": ["value", "next", "children"],
            }},
        });
        assert_eq!(check(&tree)["value"], 5);
        let both = json!({"allOf": [
            {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
            {"type": "object", "properties": {"b": {"type": "null"}}, "required": ["b"]},
        ]});
        assert_eq!(check(&both), json!({"a": "Hello there", "b": null}));
        assert_eq!(check(&json!({"type": "object", "properties": {}})), json!({}));
    }
}
