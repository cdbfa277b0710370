//! Classifies sqlx's errors, few of which sqlx itself tells apart.

use super::{driver::Driver, tls};
use crate::{
    credentials::Secret,
    error::{Error, ErrorKind, Stage},
    resource::running,
    resource::{AcquireContext, Symptom},
};
use sqlx::error::DatabaseError;
use std::{fmt::Display, io};

/// The warning when open connections are replaced.
pub(super) const OUTDATED: &str = "the server has become read-only, or what its sessions have prepared has changed: the \
     connections are replaced before the next invocation";

/// The symptom in `error`, if sqlx hides its cause.
pub(crate) fn symptom(error: &sqlx::Error) -> Option<Symptom> {
    match error {
        sqlx::Error::PoolTimedOut => Some(Symptom::TimedOut),
        sqlx::Error::PoolClosed => Some(Symptom::Closed),
        sqlx::Error::Io(_) => Some(Symptom::Disconnected),
        _ => outdates_the_connection(error).then_some(Symptom::Outdated),
    }
}

/// Wraps the crate's own error for sqlx's traits.
pub(super) fn wrapped(error: Error) -> sqlx::Error {
    sqlx::Error::Io(io::Error::other(error))
}

/// The error that [`wrapped`] put into `error`.
pub(crate) fn ours(error: &sqlx::Error) -> Option<&Error> {
    match error {
        sqlx::Error::Io(io) => io.get_ref()?.downcast_ref(),
        _ => None,
    }
}

/// Whether the connection cannot be used after `error`, because the next reply would be out of sync.
pub(super) fn ends_the_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(database) => {
            database_kind(&**database) == Some(ErrorKind::ConnectionLost)
        }
        _ => false,
    }
}

/// Whether every further use of the connection would fail in the same way: see [`Symptom::Outdated`].
pub(super) fn outdates_the_connection(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|database| {
        database_kind(database) == Some(ErrorKind::ReadOnly) || is_outdated(database)
    })
}

/// Converts an error of a statement in a handler.
impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if let Some(ours) = ours(&error) {
            return ours.clone();
        }
        if let Some(cause) = symptom(&error).and_then(running::explain) {
            return cause.caused_by(error);
        }
        let kind = kind(&error);
        let stage = match kind {
            ErrorKind::PoolExhausted
            | ErrorKind::Authentication
            | ErrorKind::NoSuchDatabase
            | ErrorKind::TooManyConnections
            | ErrorKind::ServerUnavailable
            | ErrorKind::ConnectionRefused
            | ErrorKind::ServerUnreachable
            | ErrorKind::Tls => Stage::Acquire,
            _ => Stage::Handler,
        };
        if matches!(error, sqlx::Error::PoolClosed) {
            return leaked_clone().caused_by(error);
        }
        let message = match kind {
            ErrorKind::ReadOnly => format!(
                "{error}: has the server become a reader in a failover? Its connections are replaced before the next invocation"
            ),
            _ if outdates_the_connection(&error) => format!(
                "{error}: a table or a type has changed since a connection prepared for it; the connections are replaced before the next invocation"
            ),
            ErrorKind::PoolExhausted => format!(
                "{error}: timed out waiting for a pooled connection: all were in use, or connecting failed (the exact cause is known only to queries awaited in the handler itself)"
            ),
            _ if tls::is_declined(&error) => format!("{error}; {}", tls::AFTER_DECLINED),
            _ => error.to_string(),
        };
        Self::new(kind, message).at(stage).caused_by(error)
    }
}

/// The kind of `error` in a handler.
pub(crate) fn kind(error: &sqlx::Error) -> ErrorKind {
    match error {
        sqlx::Error::Database(database) => database_kind(&**database).unwrap_or(ErrorKind::Query),
        sqlx::Error::Io(io) => ours(error).map_or_else(|| io_kind(io), Error::kind),
        sqlx::Error::WorkerCrashed => ErrorKind::ConnectionLost,
        sqlx::Error::PoolClosed => ErrorKind::UsedAfterInvocation,
        sqlx::Error::Tls(_) => ErrorKind::Tls,
        sqlx::Error::PoolTimedOut => ErrorKind::PoolExhausted,
        _ => ErrorKind::Query,
    }
}

/// The kind of the error's code, for any database.
fn database_kind(error: &dyn DatabaseError) -> Option<ErrorKind> {
    #[cfg(feature = "postgres")]
    if is::<sqlx::postgres::PgDatabaseError>(error) {
        return sqlx::Postgres::kind(error);
    }
    #[cfg(feature = "mysql")]
    if is::<sqlx::mysql::MySqlDatabaseError>(error) {
        return sqlx::MySql::kind(error);
    }
    #[cfg(feature = "sqlite")]
    if is::<sqlx::sqlite::SqliteError>(error) {
        return sqlx::Sqlite::kind(error);
    }
    let _ = error;
    None
}

/// Where a connection's host and database were set.
#[derive(Debug, Clone, Copy)]
pub(super) enum SaidBy<'a> {
    Url,
    /// In the secret if it has them, otherwise in the URL.
    Secret(&'a Secret),
    /// In one of the two.
    Either,
}

impl SaidBy<'_> {
    /// Where to look for a value, given whether a secret `has` it.
    fn place(self, variable: &str, has: fn(&Secret) -> bool) -> String {
        match self {
            Self::Secret(secret) if has(secret) => "what `credentials` provides".to_owned(),
            Self::Url | Self::Secret(_) => variable.to_owned(),
            Self::Either => format!("{variable}, or in what `credentials` provides"),
        }
    }

    fn is_token(self) -> bool {
        matches!(self, Self::Secret(secret) if secret.is_token)
    }
}

/// Like [`Driver::is_outdated`], for any database.
fn is_outdated(error: &dyn DatabaseError) -> bool {
    #[cfg(feature = "postgres")]
    if is::<sqlx::postgres::PgDatabaseError>(error) {
        return sqlx::Postgres::is_outdated(error);
    }
    #[cfg(feature = "mysql")]
    if is::<sqlx::mysql::MySqlDatabaseError>(error) {
        return sqlx::MySql::is_outdated(error);
    }
    let _ = error;
    false
}

fn is<E: DatabaseError>(error: &dyn DatabaseError) -> bool {
    error.try_downcast_ref::<E>().is_some()
}

/// The error of a connection to `target` that could not be opened.
pub(super) fn connecting<DB: Driver>(
    acquire: &AcquireContext,
    target: &str,
    error: sqlx::Error,
) -> Error {
    let said_by = match acquire.settings().credentials {
        Some(_) => SaidBy::Either,
        None => SaidBy::Url,
    };
    connecting_as::<DB>(acquire, said_by, target, error)
}

/// Like [`connecting`], if the source of the values is known.
pub(super) fn connecting_as<DB: Driver>(
    acquire: &AcquireContext,
    said_by: SaidBy<'_>,
    target: &str,
    error: sqlx::Error,
) -> Error {
    let kind = match &error {
        sqlx::Error::Database(database) => DB::kind(&**database),
        sqlx::Error::Io(io) => Some(io_kind(io)),
        sqlx::Error::Tls(_) => Some(ErrorKind::Tls),
        sqlx::Error::Configuration(_) => Some(ErrorKind::InvalidUrl),
        _ => None,
    }
    .unwrap_or(ErrorKind::ServerUnavailable);
    let variable = acquire.settings().env.unwrap_or("the URL's variable");
    let advice = match kind {
        ErrorKind::ConnectionRefused => "is the server running and listening there?".to_owned(),
        ErrorKind::ServerUnreachable => {
            let place = said_by.place(variable, |secret| secret.host.is_some());
            format!("is the host in {place} right, and reachable from here?")
        }
        ErrorKind::TooManyConnections => format!(
            "lower `pool(max)` (currently {}) or the function's concurrency, or raise the server's limit",
            acquire.settings().max
        ),
        ErrorKind::Authentication if acquire.settings().credentials.is_some() => {
            "check the user, and what `credentials` provides".to_owned()
        }
        ErrorKind::Authentication => format!("check user and password in {variable}"),
        ErrorKind::NoSuchDatabase => {
            let place = said_by.place(variable, |secret| secret.database.is_some());
            format!("check the database's name in {place}")
        }
        ErrorKind::Tls if tls::is_declined(&error) => {
            tls::after_declined::<DB::Options>(variable, said_by.is_token())
        }
        ErrorKind::Tls => "check `sslmode` and the server's certificate".to_owned(),
        // An unknown cause has no advice.
        _ => String::new(),
    };
    let what = match kind {
        ErrorKind::ConnectionRefused => "refused the connection",
        ErrorKind::ServerUnreachable => "cannot be reached",
        ErrorKind::TooManyConnections => "is at its connection limit",
        ErrorKind::Authentication => "rejected the credentials",
        ErrorKind::NoSuchDatabase => "has no such database",
        ErrorKind::Tls => "failed the TLS handshake",
        ErrorKind::ConnectionLost => "ended the connection",
        _ => "did not open a connection",
    };
    let name = DB::NAME;
    let advice = match advice.as_str() {
        "" => advice,
        _ => format!("; {advice}"),
    };
    let message = format!("{name} at {target} {what}: {error}{advice}");
    acquire.failed(kind, message).caused_by(error)
}

/// The error of a connection that was not opened in time.
pub(super) fn connect_timed_out<DB: Driver>(acquire: &AcquireContext, target: &str) -> Error {
    acquire
        .timeout_error(&format!("connecting to {} at {target}", DB::NAME))
        .at(Stage::Acquire)
        .in_handler(acquire.handler())
}

/// The error of an acquire that found every connection in use.
pub(super) fn all_in_use(acquire: &AcquireContext) -> Error {
    let max = acquire.settings().max;
    let within = acquire.timeout().as_millis();
    acquire.failed(
        ErrorKind::PoolExhausted,
        format!(
            "no connection became free within {within} ms ({max} of {max} in use): raise `pool(max)` or `pool(acquire_ms)`, or hold connections for less time"
        ),
    )
}

/// The error of a leaked clone.
pub(super) fn leaked(acquire: &AcquireContext) -> Error {
    leaked_clone().in_handler(acquire.handler())
}

fn leaked_clone() -> Error {
    Error::new(
        ErrorKind::UsedAfterInvocation,
        "resource used after its invocation ended: a clone was moved into a task that outlives the handler; spawn it with `Background::spawn`",
    )
    .at(Stage::Cleanup)
}

/// The error of a failed commit after the handler returned `Ok`.
pub(super) fn not_committed<DB: Driver>(error: sqlx::Error) -> Error {
    let is_clear = matches!(
        error,
        sqlx::Error::Database(_) | sqlx::Error::Io(_) | sqlx::Error::Tls(_)
    );
    if !is_clear {
        return commit_not_recognized::<DB>(&error).caused_by(error);
    }
    let (kind, what) = if ends_the_connection(&error) {
        let what = format!(
            "connection to {} lost during COMMIT: {error}. The transaction may or may not have been committed: check before retrying",
            DB::NAME
        );
        (ErrorKind::CommitUnknown, what)
    } else if DB::had_ended(&error) {
        let what = format!(
            "{} did not commit: the transaction had ended before. The server rolled it back (a deadlock whose error the handler passed over), or a statement of the handler's ended it (`COMMIT`, `CREATE TABLE` and the like). What came after that was not part of it, and may have been written: {error}",
            DB::NAME
        );
        (ErrorKind::CommitFailed, what)
    } else {
        let what = format!(
            "{} rejected COMMIT: {error}. The transaction was rolled back",
            DB::NAME
        );
        (ErrorKind::CommitFailed, what)
    };
    Error::new(kind, what).caused_by(error)
}

/// The error of a `COMMIT` that was sent, and whose reply was not recognized.
pub(super) fn commit_not_recognized<DB: Driver>(why: impl Display) -> Error {
    Error::new(
        ErrorKind::CommitUnknown,
        format!(
            "{} sent an unexpected reply to COMMIT: {why} (a dropped statement is one cause). The transaction may or may not have been committed: check before retrying",
            DB::NAME
        ),
    )
}

/// The error of a connection that was lost before its `COMMIT` was sent.
pub(super) fn lost_before_commit<DB: Driver>(error: sqlx::Error) -> Error {
    Error::new(
        ErrorKind::CommitFailed,
        format!(
            "{} did not commit: the connection was lost before COMMIT was sent: {error}; the transaction is rolled back",
            DB::NAME
        ),
    )
    .caused_by(error)
}

/// The error of a dropped statement that has failed.
pub(super) fn dropped_statement_failed<DB: Driver>(error: sqlx::Error) -> Error {
    Error::new(
        ErrorKind::CommitFailed,
        format!(
            "{} did not commit: a statement that the handler dropped before it was done (a timeout, a stream read half-way) has failed: {error}; the transaction is rolled back",
            DB::NAME
        ),
    )
    .caused_by(error)
}

/// The error of a dropped statement that still runs, although its handler returned `Ok`.
pub(super) fn statement_dropped<DB: Driver>() -> Error {
    Error::new(
        ErrorKind::CommitFailed,
        format!(
            "{} did not commit: a statement that the handler dropped before it was done (a timeout, a `select!`) was still running; the transaction is rolled back: await each statement, or return an error",
            DB::NAME
        ),
    )
}

/// The error of a connection on which sqlx is out of sync with the replies, because the handler dropped a statement.
pub(super) fn dropped_half_way<DB: Driver>(error: sqlx::Error) -> Error {
    Error::new(
        ErrorKind::CommitFailed,
        format!(
            "{} did not commit: the handler dropped a `COPY` or a statement half-way: {error}; the transaction is rolled back: read or finish each `COPY`, await each statement, or return an error",
            DB::NAME
        ),
    )
    .caused_by(error)
}

fn io_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        // A missing Unix socket means that no server listens.
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => ErrorKind::ConnectionRefused,
        // rustls reports an invalid certificate with this kind.
        io::ErrorKind::InvalidData => ErrorKind::Tls,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => ErrorKind::ConnectionLost,
        _ => ErrorKind::ServerUnreachable,
    }
}
