//! The smallest possible function, as a baseline.

use axum::body::Body;
use lambda_http::{Error, Request, Response, service_fn};

#[tokio::main]
async fn main() -> Result<(), Error> {
    lambda_http::run_with_streaming_response_concurrent(service_fn(hello)).await
}

async fn hello(_: Request) -> Result<Response<Body>, Error> {
    Ok(Response::new(Body::from("{\"message\":\"hello, world\"}")))
}
