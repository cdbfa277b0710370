//! The scope of an invocation that a runtime drives: with a scope, the cleanup waits until the response is
//! posted.

use super::{Cleanup, timeline::Timeline};
use crate::util::lock::lock;
use futures_util::future::join_all;
use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, Once},
};
use tokio::time::Instant;

tokio::task_local! {
    static SCOPE: Arc<InvocationScope>;
}

/// One invocation, as the runtime that drives it sees it.
#[derive(Default)]
pub(crate) struct InvocationScope {
    deferred: Mutex<Vec<Arc<Cleanup>>>,
    timeline: Option<Timeline>,
}

impl InvocationScope {
    /// Creates a scope that defers the cleanup.
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Creates a scope that also records a timeline.
    #[cfg(feature = "local")]
    pub(crate) fn observed() -> Arc<Self> {
        Arc::new(Self {
            deferred: Mutex::default(),
            timeline: Some(Timeline::default()),
        })
    }

    /// Returns the scope of the running task, if there is one.
    pub(crate) fn current() -> Option<Arc<Self>> {
        SCOPE.try_with(Arc::clone).ok()
    }

    /// Warns once that `handler`, as `module::function`, was not started by `run`.
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

    /// Runs `invocation` in this scope.
    pub(crate) async fn drive<F: Future>(self: &Arc<Self>, invocation: F) -> F::Output {
        SCOPE.scope(Arc::clone(self), invocation).await
    }

    /// Defers the cleanup of a handler.
    pub(crate) fn defer(&self, cleanup: Arc<Cleanup>) {
        self.lock().push(cleanup);
    }

    /// Returns when the first of its handlers has to end, and with it the streamed body.
    pub(crate) fn stop_at(&self) -> Option<Instant> {
        self.lock().iter().filter_map(|one| one.stop_at()).min()
    }

    /// Runs all deferred cleanups, after the response has been posted.
    pub(crate) async fn finish(&self) {
        let deferred = std::mem::take(&mut *self.lock());
        self.run(deferred).await;
    }

    /// Runs the cleanups of all handlers that have already ended, although the response has not been posted.
    pub(crate) async fn finish_ended(&self) {
        let ended: Vec<_> = self.lock().extract_if(.., |one| one.has_ended()).collect();
        self.run(ended).await;
    }

    async fn run(&self, deferred: Vec<Arc<Cleanup>>) {
        let running = deferred.iter().map(|cleanup| cleanup.run(self.timeline()));
        join_all(running).await;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Cleanup>>> {
        lock(&self.deferred)
    }
}
