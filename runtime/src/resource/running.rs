//! The invocation or cleanup in which a driver is called.
//!
//! Drivers run in the task of a handler or of a cleanup, and depend on neither. The lifecycle provides here
//! what they need.

use super::Symptom;
use crate::error::Error;
#[cfg(feature = "_sql")]
use std::time::Duration;
use std::{future::Future, sync::Arc};
use tokio::time::Instant;

tokio::task_local! {
    /// The invocation whose handler is being polled.
    static RUNNING: Arc<dyn Running>;
    /// When the cleanup step that is being polled has to end.
    static UNTIL: Instant;
}

/// An invocation whose handler is running.
#[cfg_attr(
    not(feature = "_sql"),
    allow(dead_code, reason = "only the SQL drivers ask for all of it")
)]
pub(crate) trait Running: Send + Sync {
    /// Returns the cause of a symptom, if one of its resources knows it.
    fn explain(&self, symptom: Symptom) -> Option<Error>;

    /// Returns this invocation's number among the users of a resource: see
    /// [`Handle::user_of`](super::Handle::user_of).
    fn user_of(&self, resource: usize) -> Option<u64>;

    /// Records whether its `COMMIT` has been sent: before that, nothing can have been committed.
    fn set_committing(&self, committing: bool);
}

/// Polls `handler` as the handler of `running`.
pub(crate) async fn in_handler<F: Future>(running: Arc<dyn Running>, handler: F) -> F::Output {
    RUNNING.scope(running, handler).await
}

/// Polls `step`, a cleanup step that has to end at `until`.
pub(crate) async fn in_cleanup<F: Future>(until: Instant, step: F) -> F::Output {
    UNTIL.scope(until, step).await
}

/// Returns the cause of a symptom, if a resource of the running handler knows it. `None` outside a handler's
/// own task.
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
    // Outside a handler's own task there is nothing to record.
    let _ = RUNNING.try_with(|running| running.set_committing(committing));
}

/// Returns how long the cleanup step that is being polled may still take. `None` outside a cleanup.
#[cfg(feature = "_sql")]
pub(crate) fn time_left() -> Option<Duration> {
    let until = UNTIL.try_with(|until| *until).ok()?;
    Some(until.saturating_duration_since(Instant::now()))
}
