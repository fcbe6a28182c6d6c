//! The async runtime of a function, and tasks that outlive the request that started them.

use std::future::Future;
use std::io;

use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::settings::Env;

/// Runs a function's `main`: on one thread where Lambda sends one event at a time, because waking a
/// second thread costs more than it gains, and on a thread per core where one process handles many
/// events at once (Managed Instances).
pub fn block_on<F, E>(main: F) -> Result<(), E>
where
    F: Future<Output = Result<(), E>>,
    E: From<io::Error>,
{
    let concurrency = Env::process().number_or("AWS_LAMBDA_MAX_CONCURRENCY", 1, 1..=u64::MAX);
    let mut runtime = if concurrency > 1 {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    runtime.enable_all().build()?.block_on(main)
}

/// Spawns a task in the current span, so that its log lines name the same request and call.
#[expect(clippy::disallowed_methods, reason = "this is the one place that adds the span")]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future.in_current_span())
}
