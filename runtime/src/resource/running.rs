//! What a driver may ask about the invocation that it is called in.
//!
//! Drivers are called in the task of a handler or of a cleanup, and know neither: the lifecycle leaves here what
//! they need.

use super::Symptom;
use crate::error::Error;
#[cfg(feature = "_sql")]
use std::time::Duration;
use std::{future::Future, sync::Arc};
use tokio::time::Instant;

tokio::task_local! {
    /// The invocation whose handler is being polled right now.
    static RUNNING: Arc<dyn Running>;
    /// When the step of the cleanup that is being polled has to be over.
    static UNTIL: Instant;
}

/// An invocation whose handler runs.
#[cfg_attr(
    not(feature = "_sql"),
    allow(dead_code, reason = "only the SQL drivers ask for all of it")
)]
pub(crate) trait Running: Send + Sync {
    /// What its resources know about a symptom.
    fn explain(&self, symptom: Symptom) -> Option<Error>;

    /// As which of its users it uses a resource: see [`Handle::user_of`](super::Handle::user_of).
    fn user_of(&self, resource: usize) -> Option<u64>;

    /// Notes whether its `COMMIT` is on its way to the server: until then it is known that nothing was committed.
    fn set_committing(&self, committing: bool);
}

/// Polls `handler` as that of `running`.
pub(crate) async fn in_handler<F: Future>(running: Arc<dyn Running>, handler: F) -> F::Output {
    RUNNING.scope(running, handler).await
}

/// Polls `step`, a step of a cleanup, which has to be over at `until`.
pub(crate) async fn in_cleanup<F: Future>(until: Instant, step: F) -> F::Output {
    UNTIL.scope(until, step).await
}

/// What the resources of the running handler know about a symptom. `None` outside a handler's own task.
#[cfg(any(feature = "_sql", feature = "mongodb"))]
pub(crate) fn explain(symptom: Symptom) -> Option<Error> {
    RUNNING
        .try_with(|running| running.explain(symptom))
        .ok()
        .flatten()
}

/// See [`Running::user_of`]. `None` outside a handler's own task.
#[cfg(feature = "_sql")]
pub(crate) fn user_of(resource: usize) -> Option<u64> {
    RUNNING
        .try_with(|running| running.user_of(resource))
        .ok()
        .flatten()
}

/// See [`Running::set_committing`].
#[cfg(feature = "_sql")]
pub(crate) fn set_committing(committing: bool) {
    // Outside a handler's own task nobody asks.
    let _ = RUNNING.try_with(|running| running.set_committing(committing));
}

/// How long the step of the cleanup that is being polled may still take; `None` outside of one.
#[cfg(feature = "_sql")]
pub(crate) fn time_left() -> Option<Duration> {
    let until = UNTIL.try_with(|until| *until).ok()?;
    Some(until.saturating_duration_since(Instant::now()))
}
