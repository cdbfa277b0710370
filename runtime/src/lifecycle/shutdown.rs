//! Tracks all open resources of this process, so that none is left on a server when the platform ends the
//! process.

use crate::{config::SHUTDOWN, util::lock::lock};
use futures_util::future::{BoxFuture, join_all};
use std::sync::{Arc, Mutex, Weak};
use tokio::{
    runtime,
    sync::watch,
    time::{Instant, timeout_at},
};

static OPEN: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// A resource that is open until it is dropped.
pub(crate) trait Open: Send + Sync {
    fn name(&self) -> &'static str;

    /// Retires the resource. The caller that receives the close future must run it. `None` while the resource
    /// is in use or is being closed.
    fn retire(self: Arc<Self>) -> Option<BoxFuture<'static, ()>>;

    fn stop(&self);
}

#[derive(Clone)]
struct Entry {
    open: Weak<dyn Open>,
    /// The sender is dropped with the resource.
    gone: watch::Receiver<()>,
    runtime: Option<runtime::Id>,
}

/// Tracks `open` for as long as it lives.
pub(crate) fn remember(
    open: Weak<dyn Open>,
    gone: watch::Receiver<()>,
    runtime: Option<runtime::Id>,
) {
    let mut all = lock(&OPEN);
    all.retain(|entry| entry.open.strong_count() > 0);
    all.push(Entry {
        open,
        gone,
        runtime,
    });
}

/// Closes all open resources of this process's handlers, within [`SHUTDOWN`](crate::config::SHUTDOWN).
///
/// [`run`](crate::run) does this when AWS Lambda ends the process (SIGTERM), and in the local mode after the
/// last event. Call it in a shutdown hook of your own, if `run` installs none
/// ([`Options::without_shutdown_hook`](crate::Options::without_shutdown_hook)).
///
/// A resource that an invocation is using is closed when the invocation ends. If that takes too long, its
/// connections are dropped. Resources that were opened on another tokio runtime are not closed.
///
/// A later event opens its resources again.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// db_handler::shutdown().await;
/// # }
/// ```
pub async fn shutdown() {
    let until = Instant::now() + SHUTDOWN;
    let here = runtime::Handle::try_current()
        .ok()
        .map(|handle| handle.id());
    let mut all = lock(&OPEN).clone();
    all.retain(|entry| entry.runtime == here);
    join_all(all.into_iter().map(|entry| end(entry, until))).await;
}

async fn end(mut entry: Entry, until: Instant) {
    let Some(open) = entry.open.upgrade() else {
        return;
    };
    let ended = match open.retire() {
        Some(closing) => timeout_at(until, closing).await.is_ok(),
        // Nothing is ever sent; the channel closes when the resource is dropped.
        None => timeout_at(until, entry.gone.changed()).await.is_ok(),
    };
    if !ended && let Some(open) = entry.open.upgrade() {
        open.stop();
        tracing::warn!(resource = open.name(), "did not close in time: dropped");
    }
}
