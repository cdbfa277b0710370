//! The messages that begin and end a transaction in a session that a pooler gives to others afterwards.
//!
//! Each is one message of several statements, and so one round trip. The pooler gives the session to nobody else
//! before the whole message has been executed.

use super::types;
use crate::drivers::sql::{error, postgres::literal, without_logging::without_logging};
use futures_util::StreamExt;
use sqlx::{AssertSqlSafe, PgConnection, Row, postgres::PgDatabaseError, raw_sql};

/// In the server's error for a commit in another transaction than the one that was begun.
const ENDED: &str = "db-handler: another transaction than the one that was begun, in session ";

/// What PostgreSQL keeps in a session beyond a transaction, undone. `RESET ALL` leaves the role alone.
const UNDO: &str = "SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *; DISCARD TEMP; \
     SELECT pg_advisory_unlock_all()";

/// `DEALLOCATE ALL` would also remove what PgBouncer, from 1.21 on, has prepared for its clients.
const DEALLOCATE: &str = "DO $$DECLARE statement text; BEGIN \
     FOR statement IN SELECT name FROM pg_catalog.pg_prepared_statements WHERE from_sql LOOP \
     EXECUTE format('DEALLOCATE %I', statement); END LOOP; END$$";

/// What the client has told PgBouncer when it connected. PgBouncer takes what `RESET ALL` makes of it for the
/// client's wish.
const TOLD: [&str; 4] = [
    "application_name",
    "client_encoding",
    "DateStyle",
    "TimeZone",
];

/// A transaction as the server sees it.
#[derive(Debug)]
pub(super) struct Begun {
    /// The process of its session, and the microsecond in which it was begun: no setting that a handler
    /// could change.
    identity: String,
    /// The process alone.
    process: i32,
    /// The values of [`TOLD`] before it.
    told: [String; TOLD.len()],
    /// See [`types::NEWEST`].
    pub(super) newest_type: i64,
}

/// How a message that commits came out.
#[derive(Debug)]
pub(super) enum Committed {
    Yes,
    /// The error is that of the clean-up that follows.
    YesWithoutUndo(sqlx::Error),
    /// Not tried: a statement before it had failed, and the transaction is still open.
    No(sqlx::Error),
    /// Tried, and refused by the server, which has rolled back. The transaction is over.
    Refused(sqlx::Error),
    /// The session had ended before it.
    Lost(sqlx::Error),
    /// The transaction had been ended before.
    EndedBefore(sqlx::Error),
    Unknown(sqlx::Error),
}

/// How a message that rolls back came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RolledBack {
    Yes,
    /// The transaction had been ended before.
    EndedBefore,
    Unknown,
}

/// Whether what the session keeps is to be undone. RDS Proxy pins a session for the attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undo {
    Nothing,
    All { prepared: bool },
}

/// The condition that holds in one transaction alone.
const IDENTITY: &str =
    "pg_catalog.pg_backend_pid(), (extract(epoch from pg_catalog.now()) * 1000000)::int8";

/// Begins a transaction, which is called `name` for as long as it lasts.
pub(super) async fn begin(
    connection: &mut PgConnection,
    name: Option<&str>,
) -> Result<Begun, sqlx::Error> {
    let told = TOLD.map(|setting| format!("current_setting('{setting}')"));
    let told = told.join(", ");
    let newest = types::NEWEST;
    // Two transactions of the same microsecond, that of this message: in the second one, nothing has been read yet,
    // and `SET TRANSACTION` is still allowed.
    let mut sql = format!("BEGIN; SELECT {newest}, {IDENTITY}, {told}; COMMIT; BEGIN");
    if let Some(name) = name {
        sql += "; SET LOCAL application_name =";
        sql += &literal(name);
    }
    // The name is ours, and quoted.
    let begin = raw_sql(AssertSqlSafe(sql));
    let row = without_logging(begin.fetch_one(connection)).await?;
    let (process, microsecond) = (row.try_get::<i32, _>(1)?, row.try_get::<i64, _>(2)?);
    let mut told = [const { String::new() }; TOLD.len()];
    for (value, column) in told.iter_mut().zip(3..) {
        *value = row.try_get(column)?;
    }
    Ok(Begun {
        identity: format!("({IDENTITY}) = ({process}, {microsecond})"),
        process,
        told,
        newest_type: row.try_get(0)?,
    })
}

impl Begun {
    /// Commits this transaction, if it is the one that is open, and undoes what the session would keep.
    pub(super) async fn commit(&self, connection: &mut PgConnection, undo: Undo) -> Committed {
        // In an aborted transaction, the `SELECT` is refused: PostgreSQL answers a `COMMIT` there with a rollback,
        // and calls that a success.
        let sql = format!("{}; COMMIT{}", self.check(), self.undo(undo));
        let mut results = raw_sql(AssertSqlSafe(sql)).fetch_many(connection);
        let mut completed = 0;
        while let Some(result) = results.next().await {
            match result {
                Ok(result) => completed += u32::from(result.is_left()),
                Err(error) => return outcome(completed, error),
            }
        }
        Committed::Yes
    }

    /// Rolls this transaction back, and undoes what the session would keep.
    ///
    /// No statement has `failed`: then the server can be asked whether it is still this transaction that is open.
    pub(super) async fn roll_back(
        &self,
        connection: &mut PgConnection,
        failed: bool,
        undo: Undo,
    ) -> RolledBack {
        let roll_back = format!("ROLLBACK{}", self.undo(undo));
        if !failed {
            let checked = format!("{}; {roll_back}", self.check());
            match run(connection, checked).await {
                Ok(()) => return RolledBack::Yes,
                Err(error) if is_another(&error) => return RolledBack::EndedBefore,
                // It has failed unseen, by a query that was dropped.
                Err(_) => {}
            }
        }
        match run(connection, roll_back).await {
            Ok(()) => RolledBack::Yes,
            Err(_) => RolledBack::Unknown,
        }
    }

    /// Undoes what the session keeps although a commit was refused: the message of that commit ended with the
    /// error. Says whether that is done; the pooler may have given the session to somebody else.
    pub(super) async fn undo_after_refusal(
        &self,
        connection: &mut PgConnection,
        undo: Undo,
    ) -> Result<bool, sqlx::Error> {
        if undo == Undo::Nothing {
            return Ok(true);
        }
        let process = self.process;
        let here = fails_unless(&format!("pg_catalog.pg_backend_pid() = {process}"));
        match run(connection, here + &self.undo(undo)).await {
            Ok(()) => Ok(true),
            Err(error) if is_another(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The process of its session on the server.
    pub(super) fn process(&self) -> i32 {
        self.process
    }

    /// Fails in another transaction.
    fn check(&self) -> String {
        fails_unless(&self.identity)
    }

    fn undo(&self, undo: Undo) -> String {
        let Undo::All { prepared } = undo else {
            return String::new();
        };
        let told = TOLD.iter().zip(&self.told);
        let told = told.map(|(setting, value)| {
            let value = literal(value);
            format!("set_config('{setting}',{value}, false)")
        });
        let told: Vec<String> = told.collect();
        let mut sql = format!("; {UNDO}, {}", told.join(", "));
        if prepared {
            sql += "; ";
            sql += DEALLOCATE;
        }
        sql
    }
}

fn fails_unless(condition: &str) -> String {
    format!(
        "SELECT CASE WHEN {condition} THEN 1 \
         ELSE pg_catalog.concat('{ENDED}', pg_catalog.pg_backend_pid())::int END"
    )
}

/// After a commit that failed there is nothing to roll back, and the server says so in a warning.
async fn run(connection: &mut PgConnection, sql: String) -> Result<(), sqlx::Error> {
    let running = raw_sql(AssertSqlSafe(sql));
    without_logging(running.execute(connection)).await.map(drop)
}

/// What an error means after so many statements have been executed.
fn outcome(completed: u32, error: sqlx::Error) -> Committed {
    if completed >= 2 {
        Committed::YesWithoutUndo(error)
    } else if is_another(&error) {
        Committed::EndedBefore(error)
    } else if completed == 0 && was_lost_before(&error) {
        Committed::Lost(error)
    } else if error::ends_the_connection(&error) {
        Committed::Unknown(error)
    } else if completed == 0 {
        Committed::No(error)
    } else {
        Committed::Refused(error)
    }
}

/// Whether this is the failure of [`Begun::check`].
fn is_another(error: &sqlx::Error) -> bool {
    let database = error.as_database_error();
    database.is_some_and(|error| error.message().contains(ENDED))
}

fn was_lost_before(error: &sqlx::Error) -> bool {
    match error {
        // Nothing but writing fails with it.
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::BrokenPipe,
        // The server says farewell with the place in its source, PgBouncer without: that one may have sent the
        // message on before.
        sqlx::Error::Database(error) => error
            .try_downcast_ref::<PgDatabaseError>()
            .is_some_and(|error| error.code().starts_with("57P") && error.routine().is_some()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    fn broken(kind: io::ErrorKind) -> sqlx::Error {
        sqlx::Error::Io(kind.into())
    }

    #[test]
    fn lost_connection_means_what_had_been_answered_before() {
        let reset = || broken(io::ErrorKind::ConnectionReset);
        for completed in [0, 1] {
            let committed = outcome(completed, reset());
            assert!(matches!(committed, Committed::Unknown(_)), "{committed:?}");
        }
        for completed in [2, 5] {
            let committed = outcome(completed, reset());
            assert!(
                matches!(committed, Committed::YesWithoutUndo(_)),
                "{committed:?}"
            );
        }
        let unsent = outcome(0, broken(io::ErrorKind::BrokenPipe));
        assert!(matches!(unsent, Committed::Lost(_)), "{unsent:?}");
    }
}
