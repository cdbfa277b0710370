//! Statements of ours that do not show up in the user's log.

use std::future::Future;
use tracing::{instrument::WithSubscriber, subscriber::NoSubscriber};

/// Runs `statement` without what sqlx would log of it: nobody wrote it, and it is run after every
/// invocation.
pub(super) async fn without_logging<F: Future>(statement: F) -> F::Output {
    statement.with_subscriber(NoSubscriber::default()).await
}
