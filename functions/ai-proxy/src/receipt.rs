//! The receipt: who paid, why, and how much, as headers of every AI answer.

use account::{CallId, Credits};
use http::{HeaderMap, HeaderName, HeaderValue};
use routing::Payer;

const X_GRETA_PAYER: HeaderName = HeaderName::from_static("x-greta-payer");
const X_GRETA_ROUTE_REASON: HeaderName = HeaderName::from_static("x-greta-route-reason");
const X_GRETA_CALL_ID: HeaderName = HeaderName::from_static("x-greta-call-id");
const X_GRETA_MODEL: HeaderName = HeaderName::from_static("x-greta-model");
const X_GRETA_CREDITS_CHARGED: HeaderName = HeaderName::from_static("x-greta-credits-charged");

/// Who pays for one call, as far as it is decided.
#[derive(Debug, Clone)]
pub(crate) struct Receipt {
    pub(crate) call: CallId,
    pub(crate) payer: Payer,
    /// `None` until routing has decided: a refusal's own code is then the reason.
    pub(crate) reason: Option<&'static str>,
    /// The model that credits pay for.
    pub(crate) model: Option<String>,
    /// What credits paid, where it is known before the head.
    pub(crate) charged: Option<Credits>,
}

impl Receipt {
    pub(crate) fn new(call: CallId) -> Self {
        Self {
            call,
            payer: Payer::None,
            reason: None,
            model: None,
            charged: None,
        }
    }

    pub(crate) fn routed(&mut self, payer: Payer, reason: &'static str) {
        self.payer = payer;
        self.reason = Some(reason);
    }

    /// Nobody pays: the call was refused, by the rule that `reason` names.
    pub(crate) fn refused(&mut self, reason: &'static str) {
        self.routed(Payer::None, reason);
        self.model = None;
    }

    pub(crate) fn write_to(&self, headers: &mut HeaderMap) {
        let reason = self.reason.unwrap_or_default();
        headers.insert(X_GRETA_PAYER, HeaderValue::from_static(self.payer.as_str()));
        headers.insert(X_GRETA_ROUTE_REASON, HeaderValue::from_static(reason));
        let texts = [
            (X_GRETA_CALL_ID, Some(self.call.as_str().to_owned())),
            (X_GRETA_MODEL, self.model.clone()),
            (
                X_GRETA_CREDITS_CHARGED,
                self.charged.map(|charged| charged.to_string()),
            ),
        ];
        for (name, text) in texts {
            if let Some(Ok(value)) = text.map(HeaderValue::try_from) {
                headers.insert(name, value);
            }
        }
    }
}
