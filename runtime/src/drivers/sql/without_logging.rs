//! Runs the crate's own statements without log output of sqlx.

use std::future::Future;
use tracing::{instrument::WithSubscriber, subscriber::NoSubscriber};

/// Runs `statement` without sqlx's logging: it is not the user's, and it runs after every invocation.
pub(super) async fn without_logging<F: Future>(statement: F) -> F::Output {
    statement.with_subscriber(NoSubscriber::default()).await
}
