//! Before a `COMMIT` is sent: nothing that the handler dropped half-way is committed.

use super::{driver::Driver, error};
use crate::error::Error;
use futures_util::FutureExt;
use std::{panic::AssertUnwindSafe, time::Duration};
use tokio::time::timeout;

/// Waits for at most `longest` until nothing of an earlier statement is on its way. With an error the `COMMIT` must
/// not be sent: the server would read it behind a statement that still runs, and commit half of that, and
/// sqlx might take another reply for the one to the `COMMIT`.
pub(super) async fn ready<DB: Driver>(
    connection: &mut DB::Connection,
    longest: Duration,
) -> Result<(), Error> {
    // sqlx may panic where it has lost its place in the protocol.
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
