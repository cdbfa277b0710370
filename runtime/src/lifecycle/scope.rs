//! Whoever drives the invocations: with a host, the *finally* waits until the answer is posted.

use super::{Finally, timeline::Timeline};
use crate::util::lock::lock;
use futures_util::future::join_all;
use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, Once},
};
use tokio::time::Instant;

tokio::task_local! {
    static HOST: Arc<Host>;
}

/// One invocation, as its platform sees it.
#[derive(Default)]
pub(crate) struct Host {
    deferred: Mutex<Vec<Arc<Finally>>>,
    timeline: Option<Timeline>,
}

impl Host {
    /// A host that only wants the *finally* later.
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A host that also wants to know what happened.
    #[cfg(feature = "local")]
    pub(crate) fn observed() -> Arc<Self> {
        Arc::new(Self {
            deferred: Mutex::default(),
            timeline: Some(Timeline::default()),
        })
    }

    /// The host of the running task, if there is one.
    pub(crate) fn current() -> Option<Arc<Self>> {
        HOST.try_with(Arc::clone).ok()
    }

    /// Says, once, which line is missing where nobody drives the invocations of `handler`, as `module::function`.
    pub(crate) fn advise(handler: &str) {
        static SAID: Once = Once::new();
        SAID.call_once(|| {
            let function = handler.rsplit("::").next().unwrap_or(handler);
            tracing::warn!(
                handler,
                "not started by `db_handler::run`: the cleanup delays the response, and a streamed body finds its resources closed; write `db_handler::run({function}).await` in `main`"
            );
        });
    }

    pub(crate) fn timeline(&self) -> Option<&Timeline> {
        self.timeline.as_ref()
    }

    /// Runs `invocation` with this host.
    pub(crate) async fn drive<F: Future>(self: &Arc<Self>, invocation: F) -> F::Output {
        HOST.scope(Arc::clone(self), invocation).await
    }

    /// Takes over the *finally* of a handler.
    pub(crate) fn defer(&self, finally: Arc<Finally>) {
        self.lock().push(finally);
    }

    /// When the first of its handlers, and what comes from it, has to end.
    pub(crate) fn stop_at(&self) -> Option<Instant> {
        self.lock().iter().filter_map(|one| one.stop_at()).min()
    }

    /// Runs every *finally* that was deferred, once the answer is out.
    pub(crate) async fn finish(&self) {
        let deferred = std::mem::take(&mut *self.lock());
        self.run(deferred).await;
    }

    /// Runs the *finally* of every handler that has ended already, although the answer is not out.
    pub(crate) async fn finish_ended(&self) {
        let ended: Vec<_> = self.lock().extract_if(.., |one| one.has_ended()).collect();
        self.run(ended).await;
    }

    async fn run(&self, deferred: Vec<Arc<Finally>>) {
        let running = deferred.iter().map(|finally| finally.run(self.timeline()));
        join_all(running).await;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Finally>>> {
        lock(&self.deferred)
    }
}
