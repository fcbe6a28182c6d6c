//! The committed OpenAPI document is the one that the handlers describe, and it is served.

use http::Method;

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
    let world = World::start().await;
    let reply = world.send(world.request(Method::GET, "/openapi.json")).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(reply.body, COMMITTED);
}
