//! What this process keeps open, so that nothing of it is left on a server when the platform ends the
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

/// Something that is open until it is dropped.
pub(crate) trait Open: Send + Sync {
    fn name(&self) -> &'static str;

    /// Sees to it that it serves nobody any more. Whoever gets the close has to carry it out; nobody gets
    /// it while somebody else uses or closes it.
    fn retire(self: Arc<Self>) -> Option<BoxFuture<'static, ()>>;

    fn abandon(&self);
}

#[derive(Clone)]
struct Entry {
    open: Weak<dyn Open>,
    /// Its sender goes with what is open.
    gone: watch::Receiver<()>,
    runtime: Option<runtime::Id>,
}

/// Remembers `open` for as long as it lives.
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

/// Closes everything that the handlers of this process keep open, within
/// [`SHUTDOWN`](crate::config::SHUTDOWN).
///
/// [`run`](crate::run) does this when AWS Lambda ends the process (SIGTERM), and in the local mode after
/// the last event. Call it in a shutdown hook of your own, where `run` is told to have none
/// ([`Options::without_shutdown_hook`](crate::Options::without_shutdown_hook)).
///
/// What an invocation is using is closed when that ends; if it does not end in time, its connections are
/// dropped. What was opened on another tokio runtime than the current one is not touched.
///
/// An event that comes afterwards opens anew.
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
        // It cannot be sent anything: what changes is that it is gone.
        None => timeout_at(until, entry.gone.changed()).await.is_ok(),
    };
    if !ended && let Some(open) = entry.open.upgrade() {
        open.abandon();
        tracing::warn!(resource = open.name(), "did not close in time: dropped");
    }
}
