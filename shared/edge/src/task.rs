//! Tasks that outlive the request which started them.

use std::future::Future;

use tokio::task::JoinHandle;
use tracing::Instrument;

/// Starts a task that keeps the current span, so that its log lines name the same request and call.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that adds the span"
)]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future.in_current_span())
}
