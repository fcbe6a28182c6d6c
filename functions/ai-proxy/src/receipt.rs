//! The receipt of a call: who paid, why and how much, as headers of every AI response.

use account::{CallId, Credits};
use axum::response::{IntoResponse, Response};
use edge::ApiError;
use http::{HeaderMap, HeaderName, HeaderValue};
use routing::Payer;
use tracing::Span;

const X_GRETA_PAYER: HeaderName = HeaderName::from_static("x-greta-payer");
const X_GRETA_ROUTE_REASON: HeaderName = HeaderName::from_static("x-greta-route-reason");
const X_GRETA_CALL_ID: HeaderName = HeaderName::from_static("x-greta-call-id");
const X_GRETA_MODEL: HeaderName = HeaderName::from_static("x-greta-model");
const X_GRETA_IGNORED: HeaderName = HeaderName::from_static("x-greta-ignored");
const X_GRETA_CREDITS_CHARGED: HeaderName = HeaderName::from_static("x-greta-credits-charged");

#[derive(Debug, Clone)]
pub(crate) struct Receipt {
    pub(crate) call: CallId,
    payer: Payer,
    /// `None` until the call is routed.
    reason: Option<&'static str>,
    /// The model that credits pay for.
    pub(crate) model: Option<String>,
    /// The request's fields that were left out on credits.
    pub(crate) ignored: Option<String>,
    /// The credits charged, if known before the response head.
    pub(crate) charged: Option<Credits>,
}

impl Receipt {
    /// A receipt for a new call. The call's id is in every log line from here on.
    pub(crate) fn for_new_call() -> Result<Self, ApiError> {
        let call = CallId::new(edge::new_id("call")).map_err(|error| ApiError::internal(&error))?;
        Span::current().record("call_id", call.as_str());
        Ok(Self {
            call,
            payer: Payer::None,
            reason: None,
            model: None,
            ignored: None,
            charged: None,
        })
    }

    pub(crate) fn routed(&mut self, payer: Payer, reason: &'static str) {
        self.payer = payer;
        self.reason = Some(reason);
    }

    /// Records that the call is refused, for this `reason`.
    pub(crate) fn refused(&mut self, reason: &'static str) {
        self.routed(Payer::None, reason);
    }

    /// Records that nobody pays, because the call did not take place.
    pub(crate) fn not_charged(&mut self) {
        self.payer = Payer::None;
    }

    /// Turns `result` into a response with the receipt. For an error before routing, the error code
    /// is the route reason.
    pub(crate) fn attach_to(mut self, result: Result<Response, ApiError>) -> Response {
        let mut response = result.unwrap_or_else(|error| {
            self.reason.get_or_insert(error.code().as_str());
            error.into_response()
        });
        self.write_to(response.headers_mut());
        let span = Span::current();
        span.record("payer", self.payer.as_str());
        span.record("reason", self.reason);
        // Identifies the call in the upstream's own activity list.
        let generation = response.headers().get("x-generation-id");
        span.record("generation_id", generation.and_then(|id| id.to_str().ok()));
        response
    }

    fn write_to(&self, headers: &mut HeaderMap) {
        let reason = self.reason.unwrap_or_default();
        headers.insert(X_GRETA_PAYER, HeaderValue::from_static(self.payer.as_str()));
        headers.insert(X_GRETA_ROUTE_REASON, HeaderValue::from_static(reason));
        let charged = self.charged.map(|charged| charged.to_string());
        let texts = [
            (X_GRETA_CALL_ID, Some(self.call.as_str())),
            (X_GRETA_MODEL, self.model.as_deref()),
            (X_GRETA_IGNORED, self.ignored.as_deref()),
            (X_GRETA_CREDITS_CHARGED, charged.as_deref()),
        ];
        for (name, text) in texts {
            if let Some(Ok(value)) = text.map(HeaderValue::from_str) {
                headers.insert(name, value);
            }
        }
    }
}
