//! The committed OpenAPI document is the one that the handlers describe, and it is served.

use crate::support::World;

const COMMITTED: &str = include_str!("../../docs/openapi.json");

#[test]
fn the_committed_document_is_what_the_handlers_describe() {
    let mut generated = local::openapi::document().to_pretty_json().unwrap();
    generated.push('\n');
    if generated != COMMITTED {
        let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/openapi.json");
        std::fs::write(path, generated).unwrap();
        panic!("docs/openapi.json is out of date; copy {path} over it");
    }
}

#[tokio::test]
async fn the_document_is_served_without_a_token() {
    let world = World::new().await;
    let url = format!("{}/openapi.json", world.url());
    let response = reqwest::get(url).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.text().await.unwrap(), COMMITTED);
}
