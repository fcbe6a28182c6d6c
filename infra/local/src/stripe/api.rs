//! The API: its endpoints, and the expansion of their responses.

use http::Method;
use serde_json::{Value, json};

use super::admission::{ApiRequest, ApiResponse};
use super::error::ApiError;
use super::state::{StripeState, list};
use super::{checkout, customers, invoices, payment_intents, refunds, subscriptions};

/// The members that can be expanded to the resource they name.
const EXPANDABLE: &str = "customer default_payment_method invoice latest_charge latest_invoice \
                          payment_intent payment_method payments setup_intent subscription";

/// The steps before the execution. Without a response the request is in progress, and
/// [`execute`] must follow.
pub(super) fn begin(state: &mut StripeState, request: &ApiRequest) -> Option<ApiResponse> {
    state.admission.admit(request, state.now)
}

/// Carries out a request that has begun.
pub(super) fn execute(state: &mut StripeState, request: &ApiRequest) -> ApiResponse {
    checkout::expire_due(state);
    state.current_key = request.key().cloned();
    let result = dispatch(state, request);
    state.current_key = None;
    let (mut response, is_result): (ApiResponse, bool) = match result {
        Ok(value) => (ApiResponse::new(200, value.to_string()), true),
        Err(error) => {
            let is_result = error.is_result;
            (error.into(), is_result)
        }
    };
    response.lost |= std::mem::take(&mut state.response_lost);
    state.admission.finish(request, &response, is_result, state.now);
    response
}

fn dispatch(state: &mut StripeState, request: &ApiRequest) -> Result<Value, ApiError> {
    let params = &request.params;
    // Before anything is done.
    let names = params.list("expand");
    let mut names = names.iter().flat_map(|path| path.split('.'));
    if let Some(name) = names.find(|name| !EXPANDABLE.split(' ').any(|known| known == *name)) {
        let message = format!("This property cannot be expanded ({name}).");
        return Err(ApiError::invalid("expand", &message));
    }
    if (request.method.as_str(), request.path.as_str()) == ("GET", "/v1/refunds") {
        return refunds::list_of(state, params);
    }
    let fails =
        |(end, _): &(&str, u16)| request.method == Method::POST && request.path.ends_with(end);
    if let Some(place) = state.failures.iter().position(fails) {
        return Err(ApiError::injected(state.failures.remove(place).1));
    }
    let path = request.path.strip_prefix("/v1/").unwrap_or_default();
    let parts: Vec<&str> = path.split('/').collect();
    let id = match (request.method.as_str(), parts.as_slice()) {
        ("GET", ["checkout", "sessions", id]) => state.known("checkout.session", id)?,
        ("GET", [kind, id]) => state.known(kind.trim_end_matches('s'), id)?,
        ("POST", ["customers"]) => customers::create(state, params)?,
        ("POST", ["checkout", "sessions"]) => checkout::create(state, params)?,
        ("POST", ["checkout", "sessions", id, "expire"]) => checkout::expire(state, id)?,
        ("POST", ["payment_intents"]) => payment_intents::create(state, params)?,
        ("POST", ["payment_intents", id, "confirm"]) => {
            payment_intents::confirm(state, id, params)?
        }
        ("POST", ["payment_intents", id, "cancel"]) => payment_intents::cancel(state, id)?,
        ("POST", ["invoices", id]) => invoices::update(state, id, params)?,
        ("POST", ["invoices", id, "pay"]) => invoices::pay(state, id)?,
        ("POST", ["invoices", id, "void"]) => invoices::void(state, id)?,
        ("POST", ["refunds"]) => refunds::create(state, params)?,
        ("POST", ["subscriptions", id]) => subscriptions::update(state, id, params)?,
        ("DELETE", ["subscriptions", id]) => subscriptions::cancel(state, id)?,
        (method, _) => {
            let message = format!("Unrecognized request URL ({method}: {}).", request.path);
            return Err(ApiError::request(404, None, &message));
        }
    };
    let mut shown = state.shown(&id);
    for path in params.list("expand") {
        expand(state, &mut shown, path);
    }
    Ok(shown)
}

/// Replaces the id at `path` by the resource that it names.
fn expand(state: &StripeState, shown: &mut Value, path: &str) {
    let (name, rest) = path.split_once('.').unwrap_or((path, ""));
    // A list that is left out unless it is asked for.
    if name == "payments" && shown["object"] == "invoice" {
        let intent = &state.get(shown["id"].as_str().unwrap_or_default())["_intent"];
        shown[name] = list(json!({
            "object": "invoice_payment",
            "payment": {"type": "payment_intent", "payment_intent": intent},
            "status": if shown["status"] == "paid" { "paid" } else { "open" },
        }));
        return;
    }
    let Some(field) = shown.get_mut(name) else {
        return;
    };
    if let Some(resource) = field.as_str().and_then(|id| state.object(id)) {
        *field = resource;
    }
    if !rest.is_empty() {
        expand(state, field, rest);
    }
}
