//! The pages' assets.
//!
//! All of them are served below one version, a hash of all their bytes: modules that import one
//! another then always have the same version, and browsers cache them forever.

use std::sync::LazyLock;

use aws_lc_rs::digest::{Context, SHA256};
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use edge::{ApiError, Code};
use http::HeaderMap;
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue,
};

/// An alias of the current version, for pages that embed the elements.
pub const LATEST: &str = "latest";

struct Asset {
    name: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

macro_rules! assets {
    ($($name:literal: $content_type:literal),+ $(,)?) => {
        &[$(Asset {
            name: $name,
            content_type: $content_type,
            bytes: include_bytes!(concat!("../assets/", $name)),
        }),+]
    };
}

const ASSETS: &[Asset] = assets! {
    "LICENSES.txt": "text/plain; charset=utf-8",
    "client.js": "text/javascript; charset=utf-8",
    "element.js": "text/javascript; charset=utf-8",
    "facts.js": "text/javascript; charset=utf-8",
    "greta-credits.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "lit.js": "text/javascript; charset=utf-8",
    "oidc.js": "text/javascript; charset=utf-8",
    "openrouter-integration.js": "text/javascript; charset=utf-8",
    "openrouter-plans.js": "text/javascript; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "session.js": "text/javascript; charset=utf-8",
    "style.js": "text/javascript; charset=utf-8",
    "words.js": "text/javascript; charset=utf-8",
};

/// The current version.
pub(crate) static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Context::new(&SHA256);
    for asset in ASSETS {
        hash.update(asset.name.as_bytes());
        // The length separates the files, so that no two lists of files have the same hash.
        hash.update(&asset.bytes.len().to_be_bytes());
        hash.update(asset.bytes);
    }
    let mut version = hex::encode(hash.finish());
    version.truncate(16);
    version
});

/// Serves a file of the current version, and redirects other versions to it. A redirected module's
/// imports follow it, so a page that was loaded during a deployment gets files that fit together.
pub(crate) async fn serve(Path((version, name)): Path<(String, String)>) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return ApiError::new(Code::NotFound, "there is no such file").into_response();
    };
    let mut headers = HeaderMap::new();
    // Any site may embed the elements; their API calls need a token and an allowed origin.
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("cross-origin"),
    );
    if version == *VERSION {
        let forever = "public, max-age=31536000, immutable";
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(forever));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
        return (headers, asset.bytes).into_response();
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let current = Redirect::temporary(&format!("../{}/{}", *VERSION, asset.name));
    (headers, current).into_response()
}
