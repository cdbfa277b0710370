//! The end of a transaction: a statement that the handler dropped is not committed, and an error says what is known.

use super::{driver::Driver, error};
use crate::{error::Error, util::catch_panic::message};
use futures_util::FutureExt;
use std::{panic::AssertUnwindSafe, time::Duration};
use tokio::time::timeout;

/// Waits up to `longest` until no earlier statement is on the wire. After an error the `COMMIT` must not be sent: the
/// server would run it after a statement that is still running, and commit half of the work, and sqlx might take
/// another reply for that to the `COMMIT`.
pub(super) async fn ready<DB: Driver>(
    connection: &mut DB::Connection,
    longest: Duration,
) -> Result<(), Error> {
    // sqlx may panic when it is out of sync with the protocol.
    let asking = AssertUnwindSafe(DB::before_commit(connection)).catch_unwind();
    let Ok(Ok(asked)) = timeout(longest, asking).await else {
        return Err(error::statement_dropped::<DB>());
    };
    asked.map_err(|error| match error {
        sqlx::Error::Protocol(_) => error::dropped_half_way::<DB>(error),
        error if error::ends_the_connection(&error) => error::lost_before_commit::<DB>(error),
        error if DB::is_aborted(&error) => error::not_committed::<DB>(error),
        error => error::dropped_statement_failed::<DB>(error),
    })
}

/// Commits after [`ready`].
pub(super) async fn commit<DB: Driver>(connection: &mut DB::Connection) -> Result<(), Error> {
    // A statement that was dropped while it was being prepared leaves no trace in sqlx. sqlx then takes the rest of its
    // reply for that to the `COMMIT`, and may panic.
    let committing = AssertUnwindSafe(DB::commit_on(connection)).catch_unwind();
    match committing.await {
        Ok(committed) => committed.map_err(error::not_committed::<DB>),
        Err(panic) => Err(error::commit_not_recognized::<DB>(message(&*panic))),
    }
}
