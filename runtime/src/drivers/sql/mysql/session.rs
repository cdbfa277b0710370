//! Identifies a session on the server, and that server among others at the same address.

use crate::{
    drivers::sql::{driver::Cancelled, without_logging::without_logging},
    util::clock::Stamp,
};
use futures_util::TryStreamExt;
use sqlx::{
    AssertSqlSafe, MySqlConnection, Row,
    mysql::{MySqlDatabaseError, MySqlRow},
    raw_sql,
};
use std::{sync::Arc, time::Duration};

/// One session.
#[derive(Debug, Clone)]
pub struct MySqlSession {
    /// `CONNECTION_ID()`, which is unique on one server until its restart. Other servers use the same numbers.
    id: u64,
    /// Empty if the server cannot be distinguished from others.
    server: Arc<str>,
    since: Stamp,
}

/// Distinguishes servers: two with the same configuration have different machines or containers (`hostname`), or else
/// different folders or ports. MySQL also has a unique id; MariaDB ignores that comment.
macro_rules! server {
    () => {
        "CONCAT_WS('|', @@hostname, @@port, @@server_id, @@datadir, @@pid_file \
         /*!50700 , @@server_uuid */)"
    };
}

/// Runs `setup_sql` on a new connection, and reads the identity of its session.
pub(super) async fn init_session(
    connection: &mut MySqlConnection,
    setup_sql: &str,
    ours_alone: bool,
) -> Result<MySqlSession, sqlx::Error> {
    let server = if ours_alone {
        concat!("; SELECT ", server!())
    } else {
        ""
    };
    // Built from the options of a URL, as sqlx itself would do it.
    let setup_sql = AssertSqlSafe(format!("{setup_sql}; SELECT CONNECTION_ID(){server}"));
    without_logging(async move {
        let mut rows = raw_sql(setup_sql).fetch(connection);
        let first = rows.try_next().await?.ok_or(sqlx::Error::RowNotFound)?;
        let mut server = String::new();
        loop {
            match rows.try_next().await {
                Ok(Some(row)) => server = row.try_get(0)?,
                // A server that only speaks MySQL's protocol may not have these variables.
                Ok(None) | Err(sqlx::Error::Database(_)) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(MySqlSession {
            id: first.try_get(0)?,
            server: server.into(),
            since: Stamp::now(),
        })
    })
    .await
}

/// Cancels the queries of those `sessions` that are on the server of `via`.
pub(super) async fn cancel(
    via: &mut MySqlConnection,
    sessions: &[MySqlSession],
) -> Result<Cancelled<MySqlSession>, sqlx::Error> {
    without_logging(async move {
        let (server, uptime) = who_is_it(via).await?;
        if server.is_empty() {
            // The same number may be another client's session.
            let mut cancelled = Cancelled::all();
            cancelled.uncertain =
                Some("the server cannot be told from others behind the same address");
            return Ok(cancelled);
        }
        let (here, elsewhere): (Vec<&MySqlSession>, Vec<&MySqlSession>) = sessions
            .iter()
            .partition(|session| *session.server == *server);
        let now = Stamp::now();
        // After a restart the ids start again: the same number belongs to another session.
        let here: Vec<String> = here
            .iter()
            .filter(|session| now.since(session.since) <= uptime)
            .map(|session| session.id.to_string())
            .collect();
        if !here.is_empty() {
            kill(via, &here.join(", ")).await?;
        }
        let mut cancelled = Cancelled::all();
        cancelled.elsewhere = elsewhere.into_iter().cloned().collect();
        Ok(cancelled)
    })
    .await
}

/// The server's identity, and an upper bound of its uptime.
async fn who_is_it(via: &mut MySqlConnection) -> Result<(String, Duration), sqlx::Error> {
    let server = raw_sql(concat!("SELECT ", server!()))
        .fetch_one(&mut *via)
        .await;
    let server = match server {
        Ok(row) => row.try_get(0)?,
        Err(sqlx::Error::Database(_)) => String::new(),
        Err(error) => return Err(error),
    };
    let row: MySqlRow = raw_sql("SHOW GLOBAL STATUS LIKE 'Uptime'")
        .fetch_one(via)
        .await?;
    let uptime: String = row.try_get(1)?;
    // Whole seconds, rounded down.
    let uptime = uptime.parse().map_or(Duration::MAX, |seconds: u64| {
        Duration::from_secs(seconds + 2)
    });
    Ok((server, uptime))
}

/// Kills the sessions with these ids, but only those of the same user.
async fn kill(via: &mut MySqlConnection, ids: &str) -> Result<(), sqlx::Error> {
    // The column is signed in MariaDB and unsigned in MySQL, and sqlx distinguishes them.
    let alive = format!(
        "SELECT CAST(ID AS UNSIGNED), COMMAND = 'Sleep' FROM information_schema.PROCESSLIST \
         WHERE ID <> CONNECTION_ID() AND USER = SUBSTRING_INDEX(USER(), '@', 1) AND ID IN ({ids})"
    );
    // Only numbers.
    let alive: Vec<MySqlRow> = raw_sql(AssertSqlSafe(alive)).fetch_all(&mut *via).await?;
    for row in alive {
        let (id, sleeps): (u64, bool) = (row.try_get(0)?, row.try_get(1)?);
        // The server may not have read the last statement yet: the session is ended before it runs.
        let what = if sleeps { "CONNECTION" } else { "QUERY" };
        let killed = raw_sql(AssertSqlSafe(format!("KILL {what} {id}")))
            .execute(&mut *via)
            .await;
        match killed {
            Err(error) if !has_gone(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Whether the session no longer exists: unknown thread id.
fn has_gone(error: &sqlx::Error) -> bool {
    let database = error.as_database_error();
    database
        .and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>())
        .is_some_and(|error| error.number() == 1094)
}
