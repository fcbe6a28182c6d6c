use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::parsed::Parsed;

/// An error that OpenRouter documents, and the fallback that it permits.
#[derive(Deserialize)]
struct Documented {
    id: String,
    call: bool,
    status: u16,
    body: Value,
    fallback: String,
}

fn documented() -> Vec<Documented> {
    serde_json::from_str(include_str!("../../tests/openrouter-errors.json")).unwrap()
}

/// The fallback cause of this error, if `GET /key` accepts the key.
fn cause(error: Option<&UpstreamError>) -> &'static str {
    let allowed = error.filter(|error| error.fallback == FallbackPermission::Allowed);
    match allowed.map(|error| error.failure) {
        Some(Failure::KeyRejected) => "key_rejected",
        Some(Failure::PaymentRequired) => "payment_required",
        Some(Failure::RateLimited) => "rate_limited",
        Some(Failure::Unavailable) => "unavailable",
        Some(other) => panic!("{other:?} never falls back"),
        None => "never",
    }
}

#[test]
fn documented_errors_fall_back_as_listed() {
    let documented = documented();
    assert!(documented.len() >= 130);
    for Documented { id, call, status, body, fallback } in documented {
        let status = StatusCode::from_u16(status).unwrap();
        let body = body.to_string();
        let error = match Parsed::of_body(body.as_bytes()) {
            Parsed::Error(error, ..) if status.is_success() => Some(error),
            _ if status.is_success() => None,
            _ => Some(UpstreamError::from_response(status, Some(body.as_bytes()))),
        };
        if call {
            assert_eq!(cause(error.as_ref()), fallback, "{id}");
        }
    }
}

fn of(status: u16, body: &Value) -> UpstreamError {
    let status = StatusCode::from_u16(status).unwrap();
    UpstreamError::from_response(status, Some(body.to_string().as_bytes()))
}

fn message(text: &str) -> Value {
    json!({"error": {"code": 403, "message": text}})
}

#[test]
fn only_exact_budget_messages_mean_payment_required() {
    for budget in [
        "Key limit exceeded (total limit). Manage it using https://openrouter.ai/settings/keys",
        "Key limit exceeded",
        "API key budget limit exceeded (daily limit)",
        "Workspace monthly budget of $500.00 exceeded. Contact your org admin.",
        "Workspace lifetime budget of $5 exceeded.",
    ] {
        assert_eq!(cause(Some(&of(403, &message(budget)))), "payment_required", "{budget}");
    }
    for other in [
        "Request blocked by content filter: Key limit exceeded",
        "The label \"Key limit exceeded\" is blocked",
        "Key limit exceededness",
        "Workspace budget of $500.00 exceeded",
        "key limit exceeded",
        " Key limit exceeded",
        "",
    ] {
        assert_eq!(cause(Some(&of(403, &message(other)))), "never", "{other}");
    }
}

#[test]
fn markers_have_precedence_in_order() {
    let with = |members: Value| json!({"error": {"message": "x", "metadata": members}});
    let table = [
        // A marker that blames the content comes first.
        (402, with(json!({"limit_source": "openrouter_credits", "patterns": ["x"]})), "never"),
        (429, with(json!({"reasons": ["violence"]})), "never"),
        (503, with(json!({"error_type": "refusal"})), "never"),
        (502, message("Request blocked: by a firewall"), "never"),
        (403, with(json!({"limit_source": "openrouter_credits", "provider_name": "x"})), "never"),
        (402, with(json!({"provider_name": "x"})), "payment_required"),
        // Then the limit, then the error's type, then the number.
        (429, with(json!({"limit_source": "openrouter_key_limit"})), "payment_required"),
        (402, with(json!({"limit_source": "openrouter_in_flight_budget"})), "rate_limited"),
        (403, with(json!({"limit_source": "openrouter_in_flight_budget"})), "never"),
        (403, with(json!({"limit_source": "something_new"})), "never"),
        (502, with(json!({"error_type": "rate_limit_exceeded"})), "rate_limited"),
        (500, with(json!({"error_type": "authentication"})), "never"),
        (500, with(json!({"error_type": "invalid_prompt"})), "never"),
        (500, with(json!({"error_type": "something_new"})), "unavailable"),
        (403, with(json!({"error_type": "rate_limit_exceeded"})), "never"),
        // These numbers are about the request, whatever the body says.
        (400, with(json!({"limit_source": "openrouter_credits"})), "never"),
        (404, with(json!({"error_type": "provider_unavailable"})), "never"),
        (422, with(json!({"error_type": "payment_required"})), "never"),
        (418, json!({}), "never"),
        (302, json!({}), "unavailable"),
        (408, json!({}), "unavailable"),
        (524, json!({}), "unavailable"),
        (600, json!({}), "never"),
    ];
    for (status, body, expected) in table {
        assert_eq!(cause(Some(&of(status, &body))), expected, "{status} {body}");
    }
}

/// Formats differ in where they put metadata.
#[test]
fn markers_count_wherever_they_are() {
    let table = [
        (502, json!({"patterns": ["x"]}), "never"),
        (429, json!({"reasons": ["x"]}), "never"),
        (402, json!({"flagged_input": "x"}), "never"),
        (403, json!({"provider_name": "x"}), "never"),
        (503, json!({"error_type": "refusal"}), "never"),
        (403, json!({"limit_source": "openrouter_key_limit"}), "payment_required"),
        (402, json!({"limit_source": "openrouter_in_flight_budget"}), "rate_limited"),
        (500, json!({"error_type": "rate_limit_exceeded"}), "rate_limited"),
    ];
    for (status, marker, expected) in table {
        let mut spread = marker.clone();
        spread["code"] = json!(status);
        let code = json!({"code": status});
        for body in [
            json!({"error": {"code": status, "metadata": marker}}),
            json!({"error": spread}),
            json!({"error": code, "metadata": marker}),
            json!({"type": "error", "error": code, "metadata": marker}),
            json!({"choices": [{"error": {"code": status, "metadata": marker}}]}),
            json!({"choices": [{"error": code}], "metadata": marker}),
            json!({"type": "response.failed", "response": {"error": code, "metadata": marker}}),
            spread,
        ] {
            assert_eq!(cause(Some(&of(status, &body))), expected, "{status} {body}");
        }
    }
}

#[test]
fn json_that_cannot_be_read_in_full_never_falls_back() {
    let long =
        format!(r#"{{"error":{{"code":502,"metadata":{{"raw":"{}"}}}}}}"#, "x".repeat(70_000));
    let deep = format!(r#"{{"error":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    for status in [401, 402, 403, 408, 429, 500, 503, 529] {
        let status = StatusCode::from_u16(status).unwrap();
        let cause_of = |body| cause(Some(&UpstreamError::from_response(status, body)));
        for unreadable in [
            None,
            Some(r#"{"error":{"code":502"#),
            Some(r#"{"error":{},"error":{"metadata":{"patterns":["x"]}}}"#),
            Some(r#"[{"error":{"metadata":{"patterns":["x"]}}}]"#),
            Some(r#"{"choices":[0]}"#),
            Some(&long),
            Some(&deep),
        ] {
            let body = unreadable.map(str::as_bytes);
            assert_eq!(cause_of(body), "never", "{status} {unreadable:?}");
        }
        // Nothing is hidden in these.
        for other in ["", "<html>Bad gateway</html>", "upstream connect error", "null"] {
            let body = Some(other.as_bytes());
            assert_eq!(cause_of(body) == "never", status == 403, "{status} {other}");
        }
    }
}

#[test]
fn a_403_without_any_marker_depends_on_the_key() {
    for body in [json!({}), json!({"error": {"message": "Forbidden"}}), json!("<html>")] {
        let error = of(403, &body);
        assert_eq!(
            (error.failure, error.fallback),
            (Failure::Refused, FallbackPermission::IfKeyRejected)
        );
    }
    let html = UpstreamError::from_response(StatusCode::FORBIDDEN, Some(b"<html>blocked</html>"));
    assert_eq!(html.fallback, FallbackPermission::IfKeyRejected);
    let marked = of(403, &json!({"error": {"metadata": {"provider_name": "OpenAI"}}}));
    assert_eq!(marked.fallback, FallbackPermission::Never);
}

#[test]
fn each_error_has_its_failure() {
    let status = |status| Failure::RequestRejected(StatusCode::from_u16(status).unwrap());
    let too_long = |status| Failure::ContextLengthExceeded(StatusCode::from_u16(status).unwrap());
    let long = "This endpoint's maximum context length is 8192 tokens. However, you requested …";
    let table = [
        (401, json!({}), Failure::KeyRejected),
        (402, json!({}), Failure::PaymentRequired),
        (403, json!({}), Failure::Refused),
        (404, json!({}), status(404)),
        (400, message(long), too_long(400)),
        (400, json!({"error": {"code": "context_length_exceeded", "message": "x"}}), too_long(400)),
        (
            413,
            json!({"error": {"metadata": {"error_type": "context_length_exceeded"}}}),
            too_long(413),
        ),
        (429, json!({}), Failure::RateLimited),
        (503, json!({}), Failure::Unavailable),
    ];
    for (status, body, failure) in table {
        assert_eq!(of(status, &body).failure, failure, "{status} {body}");
    }
}
