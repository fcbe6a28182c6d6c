//! The API's paths, and the errors for requests that match no route.

use axum::Router;
use tower_http::normalize_path::NormalizePath;

use crate::error::{ApiError, Code};

/// All API paths; web pages are served elsewhere.
const PATHS: [&str; 12] = [
    "/v1/chat/completions",
    "/v1/credits",
    "/v1/credits/checkout",
    "/v1/credits/daily",
    "/v1/credits/ledger",
    "/v1/integrations/openrouter",
    "/v1/integrations/openrouter/key",
    "/v1/integrations/openrouter/key/test",
    "/v1/integrations/openrouter/subscription",
    "/v1/integrations/openrouter/subscription/payment-method",
    "/v1/models",
    "/v1/webhooks/stripe",
];

/// Also accepts the app's paths with a trailing slash.
pub(crate) fn ignore_trailing_slash(app: Router) -> NormalizePath<Router> {
    NormalizePath::trim_trailing_slash(app)
}

pub(crate) fn is_api_path(path: &str) -> bool {
    path == "/v1" || path.starts_with("/v1/")
}

pub(crate) fn not_found(path: &str) -> ApiError {
    if !is_api_path(path) {
        return ApiError::new(Code::NotFound, "no such path");
    }
    let nearest = PATHS.iter().min_by_key(|known| strsim::levenshtein(known, path));
    let nearest = nearest.copied().unwrap_or_default();
    let detail = format!("no such path; did you mean {nearest}?");
    ApiError::new(Code::NotFound, detail)
}

pub(crate) fn method_not_allowed() -> ApiError {
    ApiError::new(Code::MethodNotAllowed, "method not allowed on this path; see the Allow header")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_paths_are_those_of_the_openapi_document() {
        let document = include_str!("../../../docs/openapi.json");
        let document: Value = serde_json::from_str(document).unwrap();
        let documented = document["paths"].as_object().unwrap().keys();
        let mut documented: Vec<_> = documented.filter(|path| path.starts_with("/v1/")).collect();
        documented.sort();
        assert_eq!(documented, PATHS);
    }

    #[test]
    fn an_unknown_path_suggests_the_nearest_one() {
        for (path, nearest) in [
            ("/v1/chat/completion", "/v1/chat/completions"),
            ("/v1/v1/chat/completions", "/v1/chat/completions"),
            ("/v1/model", "/v1/models"),
            ("/v1/integrations/openrouter/keys", "/v1/integrations/openrouter/key"),
        ] {
            let error = not_found(path);
            assert!(error.detail().ends_with(&format!(" {nearest}?")), "{}", error.detail());
        }
        for path in ["/", "/v10", "/chat/completions"] {
            assert!(!is_api_path(path), "{path}");
            assert_eq!(not_found(path).detail(), "no such path");
        }
    }
}
