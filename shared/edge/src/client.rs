//! The HTTP client of a function.

use std::time::Duration;

/// What all requests of a function go out by, but for those to AWS: setting TLS up (the system's
/// certificates are read for it) takes longer than all else at a function's start, and is done once.
///
/// Nothing is redirected, and nothing sent twice: what a request costs, and what it answers, is the
/// business of who made it. There is no time-out but for connecting: what a request may take is its own.
///
/// # Errors
/// If TLS cannot be set up.
pub fn http_client(connect: Duration) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .connect_timeout(connect)
        .tcp_nodelay(true)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .build()
}
