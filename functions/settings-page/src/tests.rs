use axum::Router;
use axum::body::Body;
use axum::response::Response;
use edge::{Env, HttpSettings};
use http::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_ENCODING,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
};
use http::{HeaderName, Request, StatusCode};
use http_body_util::BodyExt;
use tower::ServiceExt;

use crate::{LATEST, Settings};

fn settings() -> Settings {
    Settings {
        http: HttpSettings::default(),
        public_base_url: "https://greta.example/prod".parse().unwrap(),
        oidc_authority: "https://id.example/realm?a=\"b\"&c".parse().unwrap(),
        oidc_client_id: "pages\"><script>".to_owned(),
        price_in_credits: None,
        extra_module: None,
    }
}

fn app() -> Router {
    crate::router(settings())
}

async fn get(path: &str) -> Response {
    let request = Request::get(path).header(ACCEPT_ENCODING, "gzip");
    let request = request.body(Body::empty()).unwrap();
    app().oneshot(request).await.unwrap()
}

/// The body, uncompressed.
async fn text(path: &str) -> String {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = app().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

fn header(response: &Response, name: HeaderName) -> &str {
    let value = response.headers().get(name);
    value.map_or("", |value| value.to_str().unwrap())
}

/// The addresses in the page's attributes.
fn addresses(html: &str) -> Vec<String> {
    let parts = html.split(['"', '\'']);
    let is_address = |part: &&str| part.contains("assets/");
    parts.filter(is_address).map(str::to_owned).collect()
}

#[tokio::test]
async fn pages_forbid_loading_from_and_sending_to_other_origins() {
    for path in ["/settings/integrations", "/plans"] {
        let page = get(path).await;
        assert_eq!(page.status(), StatusCode::OK);
        assert_eq!(header(&page, CONTENT_TYPE), "text/html; charset=utf-8");
        assert_eq!(header(&page, REFERRER_POLICY), "no-referrer");
        assert_eq!(header(&page, CACHE_CONTROL), "no-cache");
        assert_eq!(header(&page, STRICT_TRANSPORT_SECURITY), "max-age=31536000");
        let policy = header(&page, CONTENT_SECURITY_POLICY);
        for rule in [
            "default-src 'self'",
            "connect-src 'self' https://id.example;",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(rule), "{rule} in {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        let html = text(path).await;
        assert!(!html.contains("{{"), "{html}");
        assert!(!html.contains("<script>"), "{html}");
        assert!(!html.contains("data-price"), "{html}");
    }
}

#[tokio::test]
async fn settings_are_escaped_in_attributes() {
    let html = text("/plans").await;
    assert!(html.contains("data-oidc-client-id=\"pages&quot;&gt;&lt;script&gt;\""));
    assert!(html.contains("data-oidc-authority=\"https://id.example/realm?a=%22b%22&amp;c\""));
    assert!(!html.contains("data-extra-module"));
}

#[tokio::test]
async fn only_the_settings_page_has_the_extra_module() {
    let settings = Settings { extra_module: Some("/x.js"), ..settings() };
    for (path, is_there) in [("/settings/integrations", true), ("/plans", false)] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let page = crate::router(settings.clone()).oneshot(request).await;
        let body = page.unwrap().into_body().collect().await.unwrap();
        let html = String::from_utf8(body.to_bytes().to_vec()).unwrap();
        assert_eq!(html.contains("data-extra-module=\"/x.js\""), is_there);
    }
}

/// A stage's prefix in front of all paths breaks nothing, because every address is relative.
#[tokio::test]
async fn addresses_are_relative_and_exist() {
    for path in ["/settings/integrations", "/plans"] {
        let html = text(path).await;
        let addresses = addresses(&html);
        assert_eq!(addresses.len(), 3, "{html}");
        for address in addresses {
            let base = url::Url::parse("https://greta.example/prod").unwrap();
            let page = base.join(&format!("/prod{path}")).unwrap();
            let file = page.join(&address).unwrap();
            let file = file.path().strip_prefix("/prod").unwrap().to_owned();
            assert_eq!(get(&file).await.status(), StatusCode::OK, "{file}");
        }
        assert!(!html.contains("href=\"/"), "{html}");
        assert!(!html.contains("src=\"/"), "{html}");
    }
}

#[tokio::test]
async fn the_root_redirects_to_the_settings_page() {
    let response = get("/").await;
    assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
    let there = "https://greta.example/prod/settings/integrations";
    assert_eq!(header(&response, LOCATION), there);
}

#[tokio::test]
async fn only_the_current_version_is_cached_forever() {
    let html = text("/plans").await;
    let script = addresses(&html).into_iter().find(|at| at.ends_with("/page.js"));
    let current = format!("/{}", script.unwrap());
    let file = get(&current).await;
    assert_eq!(header(&file, CACHE_CONTROL), "public, max-age=31536000, immutable");
    assert_eq!(header(&file, CONTENT_TYPE), "text/javascript; charset=utf-8");
    assert_eq!(header(&file, CONTENT_ENCODING), "gzip");
    assert_eq!(header(&file, ACCESS_CONTROL_ALLOW_ORIGIN), "*");

    for version in [LATEST, "0000000000000000"] {
        let old = format!("/assets/{version}/page.js");
        let moved = get(&old).await;
        assert_eq!(moved.status(), StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(header(&moved, CACHE_CONTROL), "no-cache");
        assert_eq!(header(&moved, ACCESS_CONTROL_ALLOW_ORIGIN), "*");
        let base = url::Url::parse("https://greta.example").unwrap();
        let there = base.join(&old).unwrap().join(header(&moved, LOCATION));
        assert_eq!(there.unwrap().path(), current);
    }
    for path in ["/assets/latest/none.js", "/assets/page.js", "/assets/latest/../lib.rs"] {
        assert_eq!(get(path).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
}

/// Each module imports only files that are served from the same folder.
#[tokio::test]
async fn modules_import_existing_files() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/assets");
    let mut seen = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        let path = format!("/assets/{LATEST}/{file}");
        let moved = get(&path).await;
        assert_eq!(moved.status(), StatusCode::TEMPORARY_REDIRECT, "{file} is not served");
        if file.rsplit('.').next() != Some("js") {
            continue;
        }
        let source = std::fs::read_to_string(format!("{folder}/{file}")).unwrap();
        for line in source.lines().filter(|line| line.starts_with("import ")) {
            let from = line.split('"').nth(1).unwrap();
            let name = from.strip_prefix("./").unwrap_or_else(|| panic!("{file}: {from}"));
            assert!(std::path::Path::new(folder).join(name).exists(), "{file}: {from}");
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen} imports");
}

/// The pages have a price in credits only if the add-on is paid for in credits.
#[test]
fn the_price_in_credits_depends_on_the_collection() {
    for (collection, expected) in [("card", None), ("provider", None), ("credits", Some("60"))] {
        let settings = Settings::from_env(Env::from_pairs([
            ("PUBLIC_BASE_URL", "https://greta.example"),
            ("OIDC_AUTHORITY", "https://id.example"),
            ("OIDC_CLIENT_ID", "pages"),
            ("ADD_ON_COLLECTION", collection),
            ("CREDITS_PER_USD", "12"),
        ]));
        let price = settings.unwrap().price_in_credits;
        let price = price.map(|price| price.to_string());
        assert_eq!(price.as_deref(), expected, "{collection}");
    }
}

#[test]
fn missing_settings_are_all_named() {
    let error = Settings::from_env(Env::from_pairs([("OIDC_AUTHORITY", "http://id.example")]));
    let error = error.unwrap_err().to_string();
    for name in ["PUBLIC_BASE_URL", "OIDC_AUTHORITY", "OIDC_CLIENT_ID"] {
        assert!(error.contains(name), "{error}");
    }
}
