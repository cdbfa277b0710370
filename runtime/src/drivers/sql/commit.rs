//! Checks before a `COMMIT`: a statement that the handler dropped must not be committed.

use super::{driver::Driver, error};
use crate::error::Error;
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
