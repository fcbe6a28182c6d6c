//! The API: its endpoints, and the expansion of their responses.

use serde_json::{Value, json};

use super::admission::{ApiRequest, ApiResponse};
use super::error::ApiError;
use super::state::{StripeState, list};

/// The members that can be expanded to the resource they name.
const EXPANDABLE: &str = "customer default_payment_method invoice latest_charge latest_invoice \
                          payment_intent payment_method payments setup_intent subscription";

impl StripeState {
    /// The steps before the execution. Without a response the request is in progress, and
    /// [`execute`](Self::execute) must follow.
    pub fn begin(&mut self, request: &ApiRequest) -> Option<ApiResponse> {
        self.admission.admit(request, self.now)
    }

    /// Carries out a request that has begun.
    pub fn execute(&mut self, request: &ApiRequest) -> ApiResponse {
        self.expire_sessions();
        self.current_key = request.key().cloned();
        let result = self.dispatch(request);
        self.current_key = None;
        let (mut response, is_result): (ApiResponse, bool) = match result {
            Ok(value) => (ApiResponse::new(200, value.to_string()), true),
            Err(error) => {
                let is_result = error.is_result;
                (error.into(), is_result)
            }
        };
        response.lost |= std::mem::take(&mut self.response_lost);
        self.admission.finish(request, &response, is_result, self.now);
        response
    }

    fn dispatch(&mut self, request: &ApiRequest) -> Result<Value, ApiError> {
        let params = &request.params;
        // Before anything is done.
        let names = params.list("expand");
        let mut names = names.iter().flat_map(|path| path.split('.'));
        if let Some(name) = names.find(|name| !EXPANDABLE.split(' ').any(|known| known == *name)) {
            let message = format!("This property cannot be expanded ({name}).");
            return Err(ApiError::invalid("expand", &message));
        }
        let path = request.path.strip_prefix("/v1/").unwrap_or_default();
        let parts: Vec<&str> = path.split('/').collect();
        let id = match (request.method.as_str(), parts.as_slice()) {
            ("GET", ["checkout", "sessions", id]) => self.known("checkout.session", id)?,
            ("GET", [kind, id]) => self.known(kind.trim_end_matches('s'), id)?,
            ("POST", ["customers"]) => self.create_customer(params)?,
            ("POST", ["checkout", "sessions"]) => self.create_session(params)?,
            ("POST", ["checkout", "sessions", id, "expire"]) => self.expire_session(id)?,
            ("POST", ["payment_intents"]) => self.create_intent(params)?,
            ("POST", ["payment_intents", id, "confirm"]) => self.confirm_intent(id, params)?,
            ("POST", ["payment_intents", id, "cancel"]) => self.cancel_intent(id)?,
            ("POST", ["invoices", id]) => self.update_invoice(id, params)?,
            ("POST", ["invoices", id, "pay"]) => self.pay_invoice(id)?,
            ("POST", ["invoices", id, "void"]) => self.void_invoice(id)?,
            ("POST", ["refunds"]) => self.create_refund(params)?,
            ("POST", ["subscriptions", id]) => self.update_subscription(id, params)?,
            ("DELETE", ["subscriptions", id]) => self.cancel_subscription(id)?,
            (method, _) => {
                let message = format!("Unrecognized request URL ({method}: {}).", request.path);
                return Err(ApiError::request(404, None, &message));
            }
        };
        let mut shown = self.shown(&id);
        for path in params.list("expand") {
            self.expand(&mut shown, path);
        }
        Ok(shown)
    }

    /// Replaces the id at `path` by the resource that it names.
    fn expand(&self, shown: &mut Value, path: &str) {
        let (name, rest) = path.split_once('.').unwrap_or((path, ""));
        // A list that is left out unless it is asked for.
        if name == "payments" && shown["object"] == "invoice" {
            let intent = &self.get(shown["id"].as_str().unwrap_or_default())["_intent"];
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
        if let Some(resource) = field.as_str().and_then(|id| self.object(id)) {
            *field = resource;
        }
        if !rest.is_empty() {
            self.expand(field, rest);
        }
    }
}
