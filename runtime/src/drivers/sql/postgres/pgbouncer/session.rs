//! The messages that begin and end a transaction in a session that a pooler gives to other clients afterwards.
//!
//! Each is one message of several statements, and so takes one round trip. The pooler gives the session to no other
//! client before the whole message has been executed.

use super::types;
use crate::drivers::sql::{error, postgres::literal, without_logging::without_logging};
use futures_util::StreamExt;
use sqlx::{AssertSqlSafe, PgConnection, Row, postgres::PgDatabaseError, raw_sql};

/// Part of the server's error for a commit in another transaction than the one that was begun.
const ENDED: &str = "db-handler: another transaction than the one that was begun, in session ";

/// Resets what PostgreSQL keeps in a session beyond a transaction. `RESET ALL` does not reset the role.
const UNDO: &str = "SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *; DISCARD TEMP; \
     SELECT pg_advisory_unlock_all()";

/// `DEALLOCATE ALL` would also remove the statements that PgBouncer, from 1.21 on, has prepared for its clients.
const DEALLOCATE: &str = "DO $$DECLARE statement text; BEGIN \
     FOR statement IN SELECT name FROM pg_catalog.pg_prepared_statements WHERE from_sql LOOP \
     EXECUTE format('DEALLOCATE %I', statement); END LOOP; END$$";

/// The settings that the client sent to PgBouncer when it connected. PgBouncer takes their values after a `RESET ALL`
/// for values that the client has set.
const RESTORED: [&str; 4] = [
    "application_name",
    "client_encoding",
    "DateStyle",
    "TimeZone",
];

/// A transaction, as the server identifies it.
#[derive(Debug)]
pub(super) struct Begun {
    /// The process of its session, and the microsecond in which it was begun. A handler cannot change them, unlike a
    /// setting.
    identity: String,
    /// The process of its session.
    process: i32,
    /// The values of [`RESTORED`] before the transaction.
    restored: [String; RESTORED.len()],
    /// See [`types::NEWEST`].
    pub(super) newest_type: i64,
}

/// The result of a message that commits.
#[derive(Debug)]
pub(super) enum Committed {
    Yes,
    /// Committed. The error is that of the reset after it.
    YesWithoutUndo(sqlx::Error),
    /// Not tried: an earlier statement had failed, and the transaction is still open.
    No(sqlx::Error),
    /// Tried and rejected by the server, which has rolled back. The transaction has ended.
    Refused(sqlx::Error),
    /// The session had ended before the commit.
    Lost(sqlx::Error),
    /// The transaction had ended before the commit.
    EndedBefore(sqlx::Error),
    Unknown(sqlx::Error),
}

/// The result of a message that rolls back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RolledBack {
    Yes,
    /// The transaction had ended before the rollback.
    EndedBefore,
    Unknown,
}

/// Whether to reset the session. RDS Proxy would pin a session because of the reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undo {
    Nothing,
    All { prepared: bool },
}

/// Identifies a transaction.
const IDENTITY: &str =
    "pg_catalog.pg_backend_pid(), (extract(epoch from pg_catalog.now()) * 1000000)::int8";

/// Begins a transaction whose `application_name` is `name`.
pub(super) async fn begin(
    connection: &mut PgConnection,
    name: Option<&str>,
) -> Result<Begun, sqlx::Error> {
    let restored = RESTORED.map(|setting| format!("current_setting('{setting}')"));
    let restored = restored.join(", ");
    let newest = types::NEWEST;
    // Two transactions that begin in the same microsecond, that of this message. In the second one nothing has been
    // read yet, so `SET TRANSACTION` is still allowed.
    let mut sql = format!("BEGIN; SELECT {newest}, {IDENTITY}, {restored}; COMMIT; BEGIN");
    if let Some(name) = name {
        sql += "; SET LOCAL application_name =";
        sql += &literal(name);
    }
    // The name is generated and quoted here.
    let begin = raw_sql(AssertSqlSafe(sql));
    let row = without_logging(begin.fetch_one(connection)).await?;
    let (process, microsecond) = (row.try_get::<i32, _>(1)?, row.try_get::<i64, _>(2)?);
    let mut restored = [const { String::new() }; RESTORED.len()];
    for (value, column) in restored.iter_mut().zip(3..) {
        *value = row.try_get(column)?;
    }
    Ok(Begun {
        identity: format!("({IDENTITY}) = ({process}, {microsecond})"),
        process,
        restored,
        newest_type: row.try_get(0)?,
    })
}

impl Begun {
    /// Commits this transaction, if it is the one that is open, and resets the session.
    pub(super) async fn commit(&self, connection: &mut PgConnection, undo: Undo) -> Committed {
        // An aborted transaction rejects the `SELECT`. PostgreSQL replies to a `COMMIT` there with a rollback, and
        // reports success.
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

    /// Rolls back this transaction, and resets the session.
    ///
    /// If no statement has `failed`, the server can still check that this transaction is the open one.
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
                // The transaction has failed unnoticed, because of a dropped query.
                Err(_) => {}
            }
        }
        match run(connection, roll_back).await {
            Ok(()) => RolledBack::Yes,
            Err(_) => RolledBack::Unknown,
        }
    }

    /// Resets the session after a rejected commit, whose message ended with the error. Returns whether that was done:
    /// the pooler may have given the session to another client.
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

    /// The server process of its session.
    pub(super) fn process(&self) -> i32 {
        self.process
    }

    /// A statement that fails in another transaction.
    fn check(&self) -> String {
        fails_unless(&self.identity)
    }

    fn undo(&self, undo: Undo) -> String {
        let Undo::All { prepared } = undo else {
            return String::new();
        };
        let restored = RESTORED.iter().zip(&self.restored);
        let restored = restored.map(|(setting, value)| {
            let value = literal(value);
            format!("set_config('{setting}',{value}, false)")
        });
        let restored: Vec<String> = restored.collect();
        let mut sql = format!("; {UNDO}, {}", restored.join(", "));
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

/// After a failed commit there is nothing to roll back, and the server warns about that.
async fn run(connection: &mut PgConnection, sql: String) -> Result<(), sqlx::Error> {
    let running = raw_sql(AssertSqlSafe(sql));
    without_logging(running.execute(connection)).await.map(drop)
}

/// The meaning of an error after `completed` statements.
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

/// Whether `error` comes from [`Begun::check`].
fn is_another(error: &sqlx::Error) -> bool {
    let database = error.as_database_error();
    database.is_some_and(|error| error.message().contains(ENDED))
}

fn was_lost_before(error: &sqlx::Error) -> bool {
    match error {
        // Only a write fails with this error.
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::BrokenPipe,
        // The server's shutdown message names a routine in its source. PgBouncer's does not, and PgBouncer may have
        // forwarded the commit before.
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
