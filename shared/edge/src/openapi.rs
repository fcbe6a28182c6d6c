//! The error responses that the routes share, for the OpenAPI document.

use std::collections::BTreeMap;

use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{IntoResponses, ToSchema};

/// An error of a route that is not an AI route (RFC 9457).
#[derive(ToSchema)]
pub struct Problem {
    pub r#type: String,
    pub title: String,
    pub status: u16,
    /// What went wrong and what to do.
    pub detail: String,
    pub code: String,
    pub request_id: String,
}

/// An AI route's error, in the form that OpenAI's and OpenRouter's SDKs read.
#[derive(ToSchema)]
pub struct AiError {
    pub error: AiErrorDetail,
}

#[derive(ToSchema)]
pub struct AiErrorDetail {
    /// What went wrong and what to do.
    pub message: String,
    /// The error code.
    pub r#type: String,
    /// The HTTP status.
    pub code: u16,
    pub param: Option<String>,
    /// Details from OpenRouter about the request.
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

pub struct ReadProblems;
pub struct ChangeProblems;
pub struct AiErrors;

const READ: &[(u16, &str)] = &[
    (400, "The request is malformed"),
    (401, "The token is missing or invalid"),
    (404, "The account is not known"),
    (500, "An internal error"),
    (503, "Storage or identity is unavailable; try again"),
];
const CHANGE: &[(u16, &str)] = &[
    (402, "The add-on or credits are missing"),
    (403, "Only an owner may change this"),
    (409, "The account's state does not allow this"),
    (413, "The body is too large"),
    (415, "The body is compressed"),
    (422, "The value is not accepted"),
    (429, "Too many attempts; see Retry-After"),
    (502, "OpenRouter or Stripe is unavailable"),
];

impl IntoResponses for ReadProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses::<Problem>(READ, "application/problem+json")
    }
}

impl IntoResponses for ChangeProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses::<Problem>(&[READ, CHANGE].concat(), "application/problem+json")
    }
}

impl IntoResponses for AiErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let gateway = [(504, "OpenRouter did not respond in time")];
        responses::<AiError>(&[READ, CHANGE, &gateway].concat(), "application/json")
    }
}

fn responses<T: ToSchema>(
    statuses: &[(u16, &str)],
    content_type: &str,
) -> BTreeMap<String, RefOr<Response>> {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(T::name()))).build();
    let response = |description: &str| {
        ResponseBuilder::new()
            .description(description)
            .content(content_type, content.clone())
            .build()
    };
    let statuses = statuses.iter();
    statuses
        .map(|(status, description)| (status.to_string(), response(description).into()))
        .collect()
}
