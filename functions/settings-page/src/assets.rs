//! The files that the pages are made of.
//!
//! All of them live below one version, a hash over all their bytes: modules that import one another are
//! then always of one version, and a browser keeps them for good.

use std::sync::LazyLock;

use aws_lc_rs::digest::{Context, SHA256};
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use edge::{ApiError, Code};
use http::HeaderMap;
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue,
};

/// A version that stands for the current one, for whoever embeds the elements.
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
        // Length first, so that no two lists of files look the same.
        hash.update(&asset.bytes.len().to_be_bytes());
        hash.update(asset.bytes);
    }
    let hash = hash.finish();
    let hex = hash
        .as_ref()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"));
    hex.collect()
});

/// A file of the current version. Of another one, it is asked for again under this one's address, and so
/// is what it imports: a page that was loaded during a deployment still gets files that fit together.
pub(crate) async fn serve(Path((version, name)): Path<(String, String)>) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return ApiError::new(Code::NotFound, "there is no such file").into_response();
    };
    let mut headers = HeaderMap::new();
    // Anybody may embed the elements; what they ask for needs a token, and an origin that is allowed.
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("cross-origin"),
    );
    if version == *VERSION {
        let for_good = "public, max-age=31536000, immutable";
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(for_good));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
        return (headers, asset.bytes).into_response();
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let current = Redirect::temporary(&format!("../{}/{}", *VERSION, asset.name));
    (headers, current).into_response()
}
