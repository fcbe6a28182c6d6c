//! Keeps web pages of other sites out of this program.
//!
//! Its engines and helpers take anyone's word, so a page that the developer happens to have open
//! must reach none of them. A browser says where a request comes from: in `Host` (a page of another
//! name that resolves to this machine), in `Origin`, and in `Sec-Fetch-Site`. Programs send neither
//! of the last two.

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Method, StatusCode};

/// The beginnings of the paths of pages, which a link or a redirect of any site may open: a
/// navigation shows its response to nobody but the user. The product's own pages may be open under
/// another name of this machine, which counts as another site.
const PAGES: [&str; 3] = ["/checkout/", "/invoice/", "/_dev/oidc/"];

/// The paths that the product's pages fetch in order to sign in. They may come from another port:
/// `cargo lambda watch` serves the pages on its own.
const SIGN_IN: [&str; 2] = ["/.well-known/openid-configuration", "/_dev/oidc/token"];

/// `routes`, for this machine's programs and for their own pages only.
pub(crate) fn guarded(routes: Router) -> Router {
    routes.layer(middleware::from_fn(keep_others_out))
}

async fn keep_others_out(request: Request, next: Next) -> Response {
    if is_ours(&request) {
        return next.run(request).await;
    }
    let refusal = "this responds only to requests whose Host is a loopback name and that no other site's page \
                   sent\n";
    (StatusCode::NOT_FOUND, refusal).into_response()
}

fn is_ours(request: &Request) -> bool {
    let headers = request.headers();
    let host = only(headers, HOST.as_str()).unwrap_or_default();
    if !is_loopback(host) {
        return false;
    }
    let origin = only(headers, ORIGIN.as_str());
    let origin_host = origin.map(|origin| origin.strip_prefix("http://").unwrap_or_default());
    let same_origin = origin_host.is_none_or(|of| of.eq_ignore_ascii_case(host));
    let site = only(headers, "sec-fetch-site");
    if same_origin && matches!(site, None | Some("same-origin" | "none")) {
        return true;
    }
    let path = request.uri().path();
    match origin_host {
        Some(host) => SIGN_IN.contains(&path) && is_loopback(host),
        None => PAGES.iter().any(|page| path.starts_with(page)) && is_navigation(request),
    }
}

/// Whether a browser opens a page in a window of its own, rather than in a frame.
fn is_navigation(request: &Request) -> bool {
    let is = |name, value| only(request.headers(), name) == Some(value);
    request.method() == Method::GET
        && is("sec-fetch-mode", "navigate")
        && is("sec-fetch-dest", "document")
}

/// The header's value, if any; empty, which no rule allows, if there are several or it is no text.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
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
