//! The runtime that a function's tasks run on, and tasks that outlive the request which started them.

use std::future::Future;
use std::io;

use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::settings::Env;

/// Runs a function's `main`: on one thread where Lambda hands out one event at a time, because another
/// thread would only be woken and sent to sleep for it; on a thread for each core where one process has
/// many events (Managed Instances).
///
/// # Errors
/// If the operating system does not give what a runtime needs; and the function's own.
pub fn block_on<F, E>(main: F) -> Result<(), E>
where
    F: Future<Output = Result<(), E>>,
    E: From<io::Error>,
{
    let at_once = Env::process().number_or("AWS_LAMBDA_MAX_CONCURRENCY", 1, 1..=u64::MAX);
    let mut runtime = if at_once > 1 {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    runtime.enable_all().build()?.block_on(main)
}

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
