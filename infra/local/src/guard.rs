//! Refuses requests from other sites' web pages.
//!
//! The engines and helpers have no authentication, so no page that the developer has open may reach
//! them. A browser reveals where a request comes from: in `Host` (another name that resolves to
//! this machine), in `Origin` and in `Sec-Fetch-Site`. Programs send neither of the last two.

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Method, StatusCode};

/// Path prefixes of pages that a link or redirect from any site may open: only the user sees the
/// response to a navigation. The product's own pages may be open under another name of this
/// machine, which counts as another site.
const PAGES: [&str; 3] = ["/checkout/", "/invoice/", "/_dev/oidc/"];

/// Paths that the product's pages fetch to sign in. The pages may be on another port: `cargo lambda
/// watch` serves them separately.
const SIGN_IN: [&str; 2] = ["/.well-known/openid-configuration", "/_dev/oidc/token"];

/// Restricts `routes` to this machine's programs and to their own pages.
pub(crate) fn guarded(routes: Router) -> Router {
    routes.layer(middleware::from_fn(refuse_other_sites))
}

async fn refuse_other_sites(request: Request, next: Next) -> Response {
    if is_allowed(&request) {
        return next.run(request).await;
    }
    let refusal =
        "refused: the Host must be a loopback name, and other sites' pages may not call this\n";
    (StatusCode::NOT_FOUND, refusal).into_response()
}

fn is_allowed(request: &Request) -> bool {
    let headers = request.headers();
    let host = single_value(headers, HOST.as_str()).unwrap_or_default();
    if !is_loopback(host) {
        return false;
    }
    let origin = single_value(headers, ORIGIN.as_str());
    let origin_host = origin.map(|origin| origin.strip_prefix("http://").unwrap_or_default());
    let same_origin = origin_host.is_none_or(|of| of.eq_ignore_ascii_case(host));
    let site = single_value(headers, "sec-fetch-site");
    if same_origin && matches!(site, None | Some("same-origin" | "none")) {
        return true;
    }
    let path = request.uri().path();
    match origin_host {
        Some(host) => SIGN_IN.contains(&path) && is_loopback(host),
        None => PAGES.iter().any(|page| path.starts_with(page)) && is_navigation(request),
    }
}

/// Whether a browser is opening a top-level page, not a frame.
fn is_navigation(request: &Request) -> bool {
    let is = |name, value| single_value(request.headers(), name) == Some(value);
    request.method() == Method::GET
        && is("sec-fetch-mode", "navigate")
        && is("sec-fetch-dest", "document")
}

/// The header's value, if there is one. Empty, which no rule accepts, if there are several or the
/// value is not text.
fn single_value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    Some(first.to_str().ok().filter(|_| values.next().is_none()).unwrap_or_default())
}

/// Whether `host`, as in a `Host` header or in a URL, is a loopback name, with or without a port.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let mut names = ["localhost", "127.0.0.1", "[::1]"].into_iter();
    names.any(|name| match host.strip_prefix(name) {
        Some("") => true,
        Some(port) => port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok()),
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_pass() {
        for host in ["127.0.0.1:9000", "localhost", "LOCALHOST:1", "[::1]:9000", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "example.com",
            "localhost.example.com:80",
            "localhost:evil.example",
            "localhost:",
            "localhost:99999",
            "localhost@evil.example",
            "127.0.0.1.example.com",
            "127.9.9.9",
            "10.0.0.1",
            "[::2]",
            "0.0.0.0",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
