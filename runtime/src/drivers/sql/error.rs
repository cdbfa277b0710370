//! What sqlx's errors mean. sqlx itself tells few of them apart.

use super::{driver::Driver, tls};
use crate::{
    credentials::Secret,
    error::{Error, ErrorKind, Stage},
    resource::running,
    resource::{Acquire, Symptom},
};
use sqlx::error::DatabaseError;
use std::io;

/// What is logged when connections are replaced although they are open.
pub(super) const OUTDATED: &str = "the server has become read-only, or what its sessions have prepared has changed: the \
     connections are replaced before the next invocation";

/// The symptom in `error`, if it is one whose cause sqlx hides.
pub(crate) fn symptom(error: &sqlx::Error) -> Option<Symptom> {
    match error {
        sqlx::Error::PoolTimedOut => Some(Symptom::TimedOut),
        sqlx::Error::PoolClosed => Some(Symptom::Closed),
        sqlx::Error::Io(_) => Some(Symptom::Disconnected),
        _ => outdates_the_connection(error).then_some(Symptom::Outdated),
    }
}

/// An error of ours where sqlx's traits want one of theirs.
pub(super) fn wrapped(error: Error) -> sqlx::Error {
    sqlx::Error::Io(io::Error::other(error))
}

/// The error that [`wrapped`] has put into `error`.
pub(crate) fn ours(error: &sqlx::Error) -> Option<&Error> {
    match error {
        sqlx::Error::Io(io) => io.get_ref()?.downcast_ref(),
        _ => None,
    }
}

/// Whether a connection is of no more use after `error`: what it says next would be out of step.
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

/// Whether every further use of a connection would fail like this: see [`Symptom::Outdated`].
pub(super) fn outdates_the_connection(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|database| {
        database_kind(database) == Some(ErrorKind::ReadOnly) || is_outdated(database)
    })
}

/// An error of a statement in a handler.
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
            ErrorKind::AllInUse
            | ErrorKind::Authentication
            | ErrorKind::NoSuchDatabase
            | ErrorKind::TooManyConnections
            | ErrorKind::Unavailable
            | ErrorKind::Refused
            | ErrorKind::Unreachable
            | ErrorKind::Tls => Stage::Acquire,
            _ => Stage::Handler,
        };
        if matches!(error, sqlx::Error::PoolClosed) {
            return escape().caused_by(error);
        }
        let message = match kind {
            ErrorKind::ReadOnly => format!(
                "{error}: has the server become a reader in a failover? Its connections are replaced before the next invocation"
            ),
            _ if outdates_the_connection(&error) => format!(
                "{error}: a table or a type has changed since a connection prepared for it; the connections are replaced before the next invocation"
            ),
            ErrorKind::AllInUse => format!(
                "{error}: no connection came free in time, or none could be opened (more is known in the handler's own task, of a pool that it was lent)"
            ),
            _ if tls::is_declined(&error) => format!("{error}; {}", tls::AFTER_DECLINED),
            _ => error.to_string(),
        };
        Self::new(kind, message).at(stage).caused_by(error)
    }
}

/// What kind of failure `error` is, when it comes up in a handler.
pub(crate) fn kind(error: &sqlx::Error) -> ErrorKind {
    match error {
        sqlx::Error::Database(database) => database_kind(&**database).unwrap_or(ErrorKind::Query),
        sqlx::Error::Io(io) => ours(error).map_or_else(|| io_kind(io), Error::kind),
        sqlx::Error::WorkerCrashed => ErrorKind::ConnectionLost,
        sqlx::Error::PoolClosed => ErrorKind::Escaped,
        sqlx::Error::Tls(_) => ErrorKind::Tls,
        sqlx::Error::PoolTimedOut => ErrorKind::AllInUse,
        _ => ErrorKind::Query,
    }
}

/// What the database's code says, whichever database it is.
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

/// Where host and database of a connection were said.
#[derive(Debug, Clone, Copy)]
pub(super) enum SaidBy<'a> {
    Url,
    /// In the secret, as far as it says anything, otherwise in the URL.
    Secret(&'a Secret),
    /// In one of the two.
    Either,
}

impl SaidBy<'_> {
    /// Where to look for what the secret says if it `has` it.
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

/// Whether the database no longer knows what the connection relies on, whichever database it is.
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

/// The error of a connection that could not be opened, with the place it should have led to.
pub(super) fn connecting<DB: Driver>(acquire: &Acquire, target: &str, error: sqlx::Error) -> Error {
    let said_by = match acquire.settings().credentials {
        Some(_) => SaidBy::Either,
        None => SaidBy::Url,
    };
    connecting_as::<DB>(acquire, said_by, target, error)
}

/// The same, where it is known what was `said_by` whom.
pub(super) fn connecting_as<DB: Driver>(
    acquire: &Acquire,
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
    .unwrap_or(ErrorKind::Unavailable);
    let variable = acquire.settings().env.unwrap_or("the URL's variable");
    let advice = match kind {
        ErrorKind::Refused => "is the server running and listening there?".to_owned(),
        ErrorKind::Unreachable => {
            let place = said_by.place(variable, |secret| secret.host.is_some());
            format!("is the host in {place} right, and reachable from here?")
        }
        ErrorKind::TooManyConnections => format!(
            "the server has no connection to spare: lower `max` (now {}) or the function's concurrency, or raise the server's limit",
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
        _ => "the server is not ready to serve, or refuses what the URL asks for".to_owned(),
    };
    let what = match kind {
        ErrorKind::Refused => "refused the connection",
        ErrorKind::Unreachable => "cannot be reached",
        ErrorKind::TooManyConnections => "has too many connections",
        ErrorKind::Authentication => "did not let us in",
        ErrorKind::NoSuchDatabase => "has no such database",
        ErrorKind::Tls => "offered no encrypted session that holds",
        ErrorKind::ConnectionLost => "ended the connection",
        _ => "did not open a connection",
    };
    let name = DB::NAME;
    let message = format!("{name} at {target} {what}: {error}; {advice}");
    acquire.failed(kind, message).caused_by(error)
}

/// The error of a connection that took longer than it may.
pub(super) fn connect_timed_out<DB: Driver>(acquire: &Acquire, target: &str) -> Error {
    acquire
        .timed_out(&format!("connecting to {} at {target}", DB::NAME))
        .at(Stage::Acquire)
        .in_handler(acquire.handler())
}

/// The error of an acquire that found every connection in use.
pub(super) fn all_in_use(acquire: &Acquire) -> Error {
    let max = acquire.settings().max;
    let within = acquire.within().as_millis();
    acquire.failed(
        ErrorKind::AllInUse,
        format!(
            "no free connection within {within} ms: {max} of {max} in use; raise `max`, shorten what holds them, or raise `acquire_ms`"
        ),
    )
}

/// The error of somebody who uses a database when the invocation that it was lent to is over.
pub(super) fn escaped(acquire: &Acquire) -> Error {
    escape().in_handler(acquire.handler())
}

fn escape() -> Error {
    Error::new(
        ErrorKind::Escaped,
        "the invocation is over, and with it the use of its database: a clone has escaped into a task that outlives the handler; spawn such work through `&Background`",
    )
    .at(Stage::Finally)
}

/// The error of a transaction that was to be committed when its handler had returned `Ok`.
pub(super) fn not_committed<DB: Driver>(error: sqlx::Error) -> Error {
    let (kind, what) = if ends_the_connection(&error) {
        let what = format!(
            "the connection to {} was lost while its transaction was being committed: {error}; whether it was committed is not known: look before you repeat it",
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
            "{} did not commit: {error}; nothing of the transaction has happened",
            DB::NAME
        );
        (ErrorKind::CommitFailed, what)
    };
    Error::new(kind, what).caused_by(error)
}

/// The error of a transaction whose connection was lost before its `COMMIT` was sent.
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

/// The error of a transaction in which a statement has failed that the handler had dropped.
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

/// The error of a transaction on whose connection a statement is still running, although its handler has
/// returned `Ok`.
pub(super) fn statement_dropped<DB: Driver>() -> Error {
    Error::new(
        ErrorKind::CommitFailed,
        format!(
            "{} did not commit: a statement that the handler dropped before it was done (a timeout, a `select!`) was still running; the transaction is rolled back: await each statement, or return an error",
            DB::NAME
        ),
    )
}

/// The error of a transaction on whose connection sqlx takes one reply for another, because of what its handler has
/// dropped.
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
        // A Unix socket that is not there is a server that does not listen.
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => ErrorKind::Refused,
        // This is how rustls says that a certificate does not hold.
        io::ErrorKind::InvalidData => ErrorKind::Tls,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => ErrorKind::ConnectionLost,
        _ => ErrorKind::Unreachable,
    }
}
