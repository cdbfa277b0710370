//! The differences between the databases.

mod load;
mod options;

pub(super) use load::{Capacity, Load};
pub(super) use options::{CertificateFile, TlsModePart, TlsParts};
pub(super) use options::{Identify, TlsMode, TlsWords, UrlParts};

use super::tag::Tag;
use crate::{config::Proxy, error::ErrorKind, resource::Health};
use futures_util::future::{BoxFuture, ready};
use sqlx::{ConnectOptions, Connection, Database, error::DatabaseError};
use std::time::Duration;

/// A database that sqlx supports. Sealed: implemented for `Postgres`, `MySql` and `Sqlite`.
pub trait Driver:
    Database<Connection: Connection<Options = Self::Options> + Send> + Capacity + sealed::Sealed
{
    /// The connect options.
    type Options: ConnectOptions<Connection = Self::Connection> + Identify + Send + Sync + Clone;

    /// Identifies one session on the server, to cancel its queries.
    type Session: Clone + Send + Sync + 'static;

    /// What the reset of a session remembers from the last one.
    type SessionState: Default + Send + Sync + 'static;

    /// The pool's name in errors and timelines.
    const POOL: &'static str;
    /// A single connection's name in errors and timelines.
    const CONNECTION: &'static str;
    /// The handle's name in errors and timelines.
    const HANDLE: &'static str;
    /// The schemes of its URLs.
    const SCHEMES: &'static [&'static str];

    /// Whether its connections are threads of this process instead of sockets: a dropped connection takes some time to
    /// end and to release its locks.
    const IN_PROCESS: bool = false;

    /// An example of a URL.
    const EXAMPLE: &'static str;

    /// The query parameters of its URLs, without those for TLS.
    const PARAMETERS: &'static [&'static str];

    /// Whether `key` is one of the parameters that [`PARAMETERS`](Self::PARAMETERS) cannot list.
    #[must_use]
    fn is_parameter(key: &str) -> bool {
        let _ = key;
        false
    }

    /// Parses a URL.
    ///
    /// # Errors
    /// If sqlx cannot parse it.
    fn options(url: &str) -> Result<Self::Options, sqlx::Error>;

    /// Returns the options with `tag`, which the server shows with the session.
    #[must_use]
    fn tagged(options: &Self::Options, tag: &Tag) -> Self::Options;

    /// Returns the options without the tag, for a proxy, which also gives the session to other clients.
    #[must_use]
    fn untagged(options: &Self::Options) -> Self::Options {
        options.clone()
    }

    /// Removes from the options what a proxy does not accept.
    ///
    /// # Errors
    /// Names an option that does not work behind a proxy and has to be removed from the URL, and says where to put it.
    fn for_proxy(options: Self::Options) -> Result<Self::Options, &'static str> {
        Ok(options)
    }

    /// Returns options that cannot connect: connecting with them fails at once, without network access, and with an
    /// error that sqlx's pool does not retry.
    #[must_use]
    fn unreachable_options(options: &Self::Options) -> Self::Options;

    /// The server's TCP port, if it is reached over TCP.
    fn port(options: &Self::Options) -> Option<u16>;

    /// Host, port and database: the part of a URL that errors may show.
    fn target(options: &Self::Options) -> String;

    /// The first statement on a new connection, from the same URL as the options. With a `proxy`, it sets nothing that
    /// would pin the session.
    ///
    /// # Errors
    /// If sqlx cannot parse the URL.
    fn setup_sql(url: &str, proxy: Option<Proxy>) -> Result<String, sqlx::Error> {
        let _ = (url, proxy);
        Ok(String::new())
    }

    /// Returns options with which the server notices that this process has vanished; `None` if the options cannot
    /// express it. A client that sends nothing for less than `silence` has not vanished.
    #[must_use]
    fn monitored(options: &Self::Options, silence: Duration) -> Option<Self::Options> {
        let _ = (options, silence);
        None
    }

    /// Whether a server, or a pooler in front of it, refuses a connection because of the parameters that
    /// [`monitored`](Self::monitored) adds.
    fn refuses_monitoring(error: &dyn DatabaseError) -> bool {
        let _ = error;
        false
    }

    /// Sets on an open connection what [`monitored`](Self::monitored) sets in the connect options.
    fn monitor<'c>(
        connection: &'c mut Self::Connection,
        options: &'c Self::Options,
        silence: Duration,
    ) -> BoxFuture<'c, Result<(), sqlx::Error>> {
        let _ = (connection, options, silence);
        Box::pin(ready(Ok(())))
    }

    /// Initializes a new connection, which was opened with [`tagged`](Self::tagged) `options`. `silence` is that of
    /// [`monitored`](Self::monitored), or `None` if the session is shared with other clients.
    fn init_session<'c>(
        connection: &'c mut Self::Connection,
        options: &'c Self::Options,
        setup_sql: &str,
        silence: Option<Duration>,
    ) -> BoxFuture<'c, Result<Self::Session, sqlx::Error>>;

    /// Makes the server end the session of a connection that sqlx is about to shut down: over rustls, sqlx waits until
    /// the server has done that.
    fn end_session(connection: &mut Self::Connection) -> BoxFuture<'_, ()> {
        let _ = connection;
        Box::pin(ready(()))
    }

    /// The session with the identity that its reset has read, if that is more than was known before.
    fn identified(
        session: &Self::Session,
        session_state: &Self::SessionState,
    ) -> Option<Self::Session> {
        let _ = (session, session_state);
        None
    }

    /// Whether `session` identifies one session, and not only a name that several may share.
    fn is_identified(session: &Self::Session) -> bool {
        let _ = session;
        true
    }

    /// Every session with the name of `session`, except `others`, which are [identified](Self::is_identified).
    #[must_use]
    fn all_but(session: &Self::Session, others: &[Self::Session]) -> Self::Session {
        let _ = others;
        session.clone()
    }

    /// Resolves when the server has replied to everything that was sent: at once, and without network traffic, if
    /// nothing is on the wire.
    fn drain(connection: &mut Self::Connection) -> BoxFuture<'_, Result<(), sqlx::Error>>;

    /// Cancels the query of `session` without another connection. Returns `false` if that is not possible.
    fn interrupt(session: &Self::Session) -> bool;

    /// Whether the connection of a cancelled session has ended and released its locks. A server ensures this by itself.
    fn session_ended(session: &Self::Session) -> bool {
        let _ = session;
        true
    }

    /// Cancels the queries of `sessions` on the server, through another connection. A session without a running query
    /// is ended: none of them is reused.
    fn cancel<'c>(
        via: &'c mut Self::Connection,
        sessions: &'c [Self::Session],
    ) -> BoxFuture<'c, Result<Cancelled<Self::Session>, sqlx::Error>>;

    /// Cancels the statements of the transactions named `sessions` behind a PgBouncer, and nothing that runs before or
    /// after them on the same server connections.
    fn cancel_in_transactions<'c>(
        via: &'c mut Self::Connection,
        sessions: &'c [Self::Session],
    ) -> BoxFuture<'c, Result<(), sqlx::Error>> {
        let _ = (via, sessions);
        Box::pin(ready(Ok(())))
    }

    /// Clears sqlx's prepared statements in a session that was just reset, if the server no longer accepts one of them:
    /// a handler with the connection itself may have ignored an error that would recur. [`Health::Broken`] means that
    /// those of other sessions are outdated as well.
    ///
    /// # Errors
    /// If the reply does not arrive or is not recognized.
    fn revalidate<'c>(
        connection: &'c mut Self::Connection,
        session_state: &'c mut Self::SessionState,
    ) -> BoxFuture<'c, Result<Health, sqlx::Error>> {
        let _ = (connection, session_state);
        Box::pin(ready(Ok(Health::Healthy)))
    }

    /// Whether the server accepted writes at the last [`reset`](Self::reset), if that has checked it.
    fn takes_writes(session_state: &Self::SessionState) -> Option<bool> {
        let _ = session_state;
        None
    }

    /// Rolls back a transaction that may be open, and returns whether the reply was recognized. sqlx may be out of sync
    /// with the protocol, and then takes the reply to an earlier statement for that to the next one.
    fn recognize(connection: &mut Self::Connection) -> BoxFuture<'_, Result<bool, sqlx::Error>>;

    /// Like [`recognize`](Self::recognize), and also reads the session's identity for [`identified`](Self::identified).
    ///
    /// # Errors
    /// If the reply does not arrive or is not recognized.
    fn identify<'c>(
        connection: &'c mut Self::Connection,
        session_state: &'c mut Self::SessionState,
    ) -> BoxFuture<'c, Result<bool, sqlx::Error>> {
        let _ = session_state;
        Self::recognize(connection)
    }

    /// Resets the session: open transaction, `SET`, locks, temporary tables, cursors. sqlx's own prepared statements
    /// stay valid. If some state cannot be reset, or the reset cannot be verified, the session is not
    /// [healthy](Health::Healthy).
    ///
    /// # Errors
    /// If the reply does not arrive or is not recognized.
    fn reset<'c>(
        connection: &'c mut Self::Connection,
        session_state: &'c mut Self::SessionState,
    ) -> BoxFuture<'c, Result<Health, sqlx::Error>>;

    /// The statement that begins a transaction for [`commit_on`](Self::commit_on), if it is not sqlx's own.
    const BEGIN: Option<&'static str> = None;

    /// Resolves in an open transaction when the server has replied to everything that was sent and sqlx is in sync with
    /// the protocol.
    ///
    /// # Errors
    /// The error of a statement that the handler dropped, a reply that was not recognized, or an
    /// [aborted](Self::is_aborted) transaction.
    fn before_commit(connection: &mut Self::Connection) -> BoxFuture<'_, Result<(), sqlx::Error>> {
        Self::drain(connection)
    }

    /// Whether `error` says that an earlier statement failed, so that the database commits nothing.
    #[must_use]
    fn is_aborted(error: &sqlx::Error) -> bool {
        let _ = error;
        false
    }

    /// Whether `error` of [`commit_on`](Self::commit_on) says that the transaction had already ended without the
    /// handler's knowledge.
    #[must_use]
    fn had_ended(error: &sqlx::Error) -> bool {
        let _ = error;
        false
    }

    /// Commits the transaction that sqlx has begun on `connection`, including any leaked savepoints, and checks the
    /// reply. sqlx may still count it as open afterwards; its rollback then does nothing.
    ///
    /// # Errors
    /// If the database rejects the `COMMIT`, also because of an earlier failed statement; or if the reply is not
    /// recognized or does not arrive: then it is not known whether the transaction was committed.
    fn commit_on(connection: &mut Self::Connection) -> BoxFuture<'_, Result<(), sqlx::Error>>;

    /// The kind of a database's error code that means that a connection is unavailable or cannot be reused; `None` for
    /// an ordinary failed statement.
    fn kind(error: &dyn DatabaseError) -> Option<ErrorKind>;

    /// Whether the server has lost something that the connection relies on (a type, the plan or the name of a prepared
    /// statement): every further use of the connection would fail in the same way.
    fn is_outdated(error: &dyn DatabaseError) -> bool {
        let _ = error;
        false
    }

    /// Clears what may be outdated in a session that was just reset, and checks whether the server accepts writes.
    /// Called after an error whose cause is not known.
    fn renew(connection: &mut Self::Connection) -> BoxFuture<'_, Result<Health, sqlx::Error>> {
        let _ = connection;
        Box::pin(ready(Ok(Health::Healthy)))
    }

    /// Whether the server, or a proxy in front of it, is at its connection limit.
    fn is_server_full(error: &dyn DatabaseError) -> bool;
}

/// The result of cancelling sessions. Sessions that are not in it were cancelled or had already ended.
#[derive(Debug)]
pub struct Cancelled<Session> {
    /// Sessions of another server at the same address.
    pub(super) elsewhere: Vec<Session>,
    /// Why some sessions may still run.
    pub(super) uncertain: Option<&'static str>,
}

impl<Session> Cancelled<Session> {
    /// The result if everything was cancelled.
    pub(super) fn all() -> Self {
        Self {
            elsewhere: Vec::new(),
            uncertain: None,
        }
    }
}

/// A socket that does not exist. The error is "not found" and not "connection refused", which sqlx's pool would retry.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(super) const NO_SOCKET: &str = "/dev/null/given-up-by-db-handler";

pub(super) mod sealed {
    /// Seals [`Driver`](super::Driver).
    pub trait Sealed {}
}
