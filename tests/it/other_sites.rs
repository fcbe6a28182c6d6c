//! Another site's page cannot reach `cargo dev`: neither its helpers nor its engines and
//! simulators.

use http::header::{CONTENT_TYPE, HOST, LOCATION, ORIGIN};
use http::{HeaderMap, Method};
use serde_json::json;

use crate::support::{KEY, World};

const FORM: &str = "application/x-www-form-urlencoded";

/// A request that a listener accepts from a program on this machine.
struct Probe {
    method: Method,
    url: String,
    headers: Vec<(&'static str, &'static str)>,
    body: String,
    expected: u16,
}

fn get(url: String) -> Probe {
    Probe { method: Method::GET, url, headers: Vec::new(), body: String::new(), expected: 200 }
}

fn post(url: String, content_type: &'static str, body: impl ToString) -> Probe {
    let headers = vec![("content-type", content_type)];
    Probe { method: Method::POST, url, headers, body: body.to_string(), expected: 200 }
}

/// A request of an AWS SDK.
fn aws(url: &str, target: &'static str, body: impl ToString) -> Probe {
    let mut probe = post(url.to_owned(), "application/x-amz-json-1.0", body);
    probe.headers.push(("x-amz-target", target));
    let signature = "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/b/aws4_request, \
                     SignedHeaders=host, Signature=0";
    probe.headers.extend([("authorization", signature), ("x-amz-date", "20260101T000000Z")]);
    probe
}

fn probes(world: &World, checkout: &str) -> Vec<Probe> {
    let system = &world.system;
    let setting = |name: &str| system.settings[name].as_str();
    let openrouter = world.openrouter().base_url();
    let event = json!({"Entries": [{"DetailType": "a", "Source": "b", "Detail": "{}"}]});
    let message = json!({"QueueUrl": setting("CHARGE_QUEUE_URL"), "MessageBody": "a"});
    let mut call = post(format!("{openrouter}/chat/completions"), "text/plain", "{}");
    call.headers.push(("authorization", "Bearer none"));
    call.expected = 401;
    let mut charges = get(format!("{}/v1/charges/none", setting("STRIPE_API_BASE_URL")));
    charges.expected = 401;
    vec![
        post(world.url("/_dev/token"), FORM, json!({"account_id": "acme", "role": "owner"})),
        post(world.url("/_dev/tick"), "text/plain", json!({"time": system.clock.now()})),
        get(world.url("/_dev/accounts/acme")),
        get(world.url("/_dev/try-a-call.js")),
        get(world.url("/.well-known/openid-configuration")),
        aws(&world.engines().dynamodb_url, "DynamoDB_20120810.ListTables", "{}"),
        aws(&world.engines().secrets_url, "secretsmanager.ListSecrets", "{}"),
        aws(&system.queue.endpoint(), "AmazonSQS.SendMessage", message),
        aws(&system.bus.url(), "AWSEvents.PutEvents", event),
        get(format!("{openrouter}/models")),
        get(format!("{}/models", world.default_ai().base_url())),
        call,
        get(checkout.to_owned()),
        charges,
        get(setting("JWKS_URL").to_owned()),
    ]
}

/// The response's status and headers.
async fn send(world: &World, probe: &Probe, headers: &[(&str, &str)]) -> (u16, HeaderMap) {
    // A client of its own, because the world's client works only with the gateway.
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let client = client.no_proxy().build().unwrap();
    let mut request = client.request(probe.method.clone(), &probe.url);
    for (name, value) in probe.headers.iter().chain(headers) {
        request = request.header(*name, *value);
    }
    let reply = world.send(request.body(probe.body.clone())).await;
    (reply.status.as_u16(), reply.headers)
}

/// A world, and the URL of an open payment page.
async fn with_a_checkout() -> (World, String) {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let path = "/v1/integrations/openrouter/subscription";
    let bought = world.owner("acme").call(Method::POST, path, &json!({})).await.json();
    let checkout = bought["checkout_url"].as_str().unwrap().to_owned();
    (world, checkout)
}

#[tokio::test]
async fn every_listener_refuses_pages_of_other_sites() {
    let (world, checkout) = with_a_checkout().await;
    for probe in probes(&world, &checkout) {
        let url: url::Url = probe.url.parse().unwrap();
        let port = url.port().unwrap();
        let own = format!("http://127.0.0.1:{port}");
        let by_name = format!("localhost:{port}");
        let origin_by_name = format!("http://localhost:{port}");
        let ours: [&[(&str, &str)]; 5] = [
            &[],
            &[("sec-fetch-site", "none")],
            &[("origin", &own), ("sec-fetch-site", "same-origin")],
            &[("host", &by_name)],
            &[("host", &by_name), ("origin", &origin_by_name)],
        ];
        for headers in ours {
            let (status, _) = send(&world, &probe, headers).await;
            assert_eq!(status, probe.expected, "{} with {headers:?}", probe.url);
        }
        let rebound = format!("evil.example:{port}");
        let rebound_origin = format!("http://evil.example:{port}");
        let look_alike = format!("127.0.0.1.evil.example:{port}");
        let https = format!("https://127.0.0.1:{port}");
        let theirs: [&[(&str, &str)]; 11] = [
            &[("origin", "https://evil.example")],
            &[("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")],
            &[("origin", "null")],
            &[("origin", "http://127.0.0.1.evil.example")],
            &[("origin", &https)],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            // Frames, images and scripts send no `Origin`.
            &[
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "navigate"),
                ("sec-fetch-dest", "iframe"),
            ],
            &[("host", &rebound)],
            &[("host", &rebound), ("origin", &rebound_origin), ("sec-fetch-site", "same-origin")],
            &[("host", &look_alike)],
        ];
        for headers in theirs {
            let (status, found) = send(&world, &probe, headers).await;
            assert_eq!(status, 404, "{} with {headers:?}", probe.url);
            assert!(!found.contains_key("access-control-allow-origin"), "{}", probe.url);
        }
        let preflight = Probe { method: Method::OPTIONS, body: String::new(), ..probe };
        let (status, found) = send(
            &world,
            &preflight,
            &[
                ("origin", "https://evil.example"),
                ("access-control-request-method", "POST"),
                ("access-control-request-headers", "authorization,x-amz-target"),
            ],
        )
        .await;
        assert_eq!(status, 404, "{}", preflight.url);
        let allows = |name: &http::HeaderName| name.as_str().starts_with("access-control-allow");
        assert!(!found.keys().any(allows), "{} {found:?}", preflight.url);
    }
    let balance = world.settled_balance("acme").await;
    assert_eq!(balance, "0", "nothing was changed");
}

/// A user pays and signs in: the browser comes from the product's pages, which may be open under
/// another name of this machine.
#[tokio::test]
async fn the_pages_of_the_simulators_work_in_a_browser() {
    let (world, checkout) = with_a_checkout().await;
    let by_link = [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
    ];
    assert_eq!(send(&world, &get(checkout.clone()), &by_link).await.0, 200);
    let query = "client_id=greta-pages&response_type=code&redirect_uri=http://localhost:9001/\
                 &code_challenge=c&code_challenge_method=S256";
    let sign_in = world.url(&format!("/_dev/oidc/authorize?{query}"));
    assert_eq!(send(&world, &get(sign_in.clone()), &by_link).await.0, 200);
    // Helpers are not pages.
    let account = get(world.url("/_dev/accounts/acme"));
    assert_eq!(send(&world, &account, &by_link).await.0, 404);

    // The forms on these pages.
    let user = post(sign_in, FORM, "account_id=acme&role=owner");
    let pay = post(format!("{checkout}/pay"), FORM, "card=succeeds");
    for form in [&user, &pay] {
        let from = [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")];
        assert_eq!(send(&world, form, &from).await.0, 404, "{}", form.url);
        let url: url::Url = form.url.parse().unwrap();
        let own = url.origin().ascii_serialization();
        let from = [("origin", own.as_str()), ("sec-fetch-site", "same-origin")];
        let (status, headers) = send(&world, form, &from).await;
        assert_eq!(status, 303, "{}", form.url);
        assert!(headers.contains_key(LOCATION));
    }

    // `cargo lambda watch` serves the pages on another port.
    let discovery = get(world.url("/.well-known/openid-configuration"));
    let token = post(world.url("/_dev/oidc/token"), FORM, "");
    for (probe, expected) in [(discovery, 200), (token, 422)] {
        let watched = [("origin", "http://127.0.0.1:9001"), ("sec-fetch-site", "same-site")];
        assert_eq!(send(&world, &probe, &watched).await.0, expected, "{}", probe.url);
        let other = [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")];
        assert_eq!(send(&world, &probe, &other).await.0, 404, "{}", probe.url);
    }
}

#[tokio::test]
async fn the_products_routes_stay_open_to_allowed_origins() {
    let origin = "https://app.example";
    let world = World::with_settings(&[("ALLOWED_ORIGINS", origin)]).await;
    world.set("acme", json!({"plan": "enterprise"})).await;
    let owner = world.owner("acme");
    assert_eq!(owner.save_key(KEY).await.status, 200);
    let preflight = world.request(Method::OPTIONS, "/v1/credits").header(ORIGIN, origin);
    let preflight = preflight.header("access-control-request-method", "GET");
    let preflight = world.send(preflight).await;
    assert_eq!(preflight.header("access-control-allow-origin"), origin);
    let request = owner.request(Method::GET, "/v1/credits").header(ORIGIN, origin);
    let request = request.header(HOST, "greta.test").header("sec-fetch-site", "cross-site");
    assert_eq!(world.send(request).await.status, 200);
    // The helpers refuse every other origin, listed or not.
    let tick = world.request(Method::POST, "/_dev/tick").header(ORIGIN, origin);
    let tick = tick.header(CONTENT_TYPE, "text/plain").body("{}");
    assert_eq!(world.send(tick).await.status, 404);
}
