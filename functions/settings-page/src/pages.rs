//! The pages: one frame with different contents.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY,
};

use crate::assets::VERSION;
use crate::settings::Settings;

const FRAME: &str = include_str!("../pages/page.html");

struct Page {
    title: &'static str,
    /// Relative path from the page to the root, which keeps a stage's prefix.
    root: &'static str,
    content: &'static str,
    /// Whether the page loads [`Settings::extra_module`].
    is_extended: bool,
}

const INTEGRATIONS: Page = Page {
    title: "Integrations",
    root: "../",
    content: "<openrouter-integration></openrouter-integration>\n\
              <greta-credits id=\"credits\"></greta-credits>",
    is_extended: true,
};

const PLANS: Page = Page {
    title: "Plans & Pricing",
    root: "",
    content: "<openrouter-plans></openrouter-plans>",
    is_extended: false,
};

pub(crate) async fn integrations(State(settings): State<Arc<Settings>>) -> Response {
    page(&INTEGRATIONS, &settings)
}

pub(crate) async fn plans(State(settings): State<Arc<Settings>>) -> Response {
    page(&PLANS, &settings)
}

fn page(page: &Page, settings: &Settings) -> Response {
    let current = |title: &str| {
        if title == page.title { " aria-current=\"page\"" } else { "" }
    };
    let extra_module = settings.extra_module.filter(|_| page.is_extended);
    let extra_module = extra_module
        .map_or_else(String::new, |module| format!(" data-extra-module=\"{}\"", escaped(module)));
    let price = settings.price_in_credits;
    let price =
        price.map_or_else(String::new, |price| format!(" data-price-in-credits=\"{price}\""));
    // Values from settings come last, so that no placeholder in them is replaced.
    let html = FRAME
        .replace("{{at_settings}}", current(INTEGRATIONS.title))
        .replace("{{at_plans}}", current(PLANS.title))
        .replace("{{assets}}", &format!("{}assets/{}/", page.root, *VERSION))
        .replace("{{root}}", page.root)
        .replace("{{title}}", &escaped(page.title))
        .replace("{{content}}", page.content)
        .replace("{{price_in_credits}}", &price)
        .replace("{{extra_module}}", &extra_module)
        .replace("{{oidc_client_id}}", &escaped(&settings.oidc_client_id))
        .replace("{{oidc_authority}}", &escaped(authority(settings)));
    let headers = [
        (CONTENT_SECURITY_POLICY, policy(settings)),
        // Browsers ignore this header over http.
        (STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        // The page names the assets' version.
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            HeaderValue::from_static("same-origin"),
        ),
    ];
    (headers, Html(html)).into_response()
}

/// Without a trailing slash, because the path of the discovery document is appended.
fn authority(settings: &Settings) -> &str {
    settings.oidc_authority.as_str().trim_end_matches('/')
}

fn policy(settings: &Settings) -> HeaderValue {
    let authority = settings.oidc_authority.origin().ascii_serialization();
    let policy = format!(
        "default-src 'self'; connect-src 'self' {authority}; base-uri 'none'; form-action 'self'; \
         frame-ancestors 'none'; object-src 'none'; require-trusted-types-for 'script'; \
         trusted-types lit-html 'allow-duplicates'"
    );
    // Never fails, because an origin is plain ASCII. The default would only block signing in.
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'self'"))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
