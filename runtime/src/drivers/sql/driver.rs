//! What differs between the databases.

mod load;
mod options;

pub(super) use load::{Load, Pressured};
pub(super) use options::{CertificateFile, WrittenMode, WrittenTls};
pub(super) use options::{Identify, TlsMode, TlsWords, Written};

use super::tag::Tag;
use crate::{config::Proxy, error::ErrorKind, resource::Fitness};
use futures_util::future::{BoxFuture, ready};
use sqlx::{ConnectOptions, Connection, Database, Transaction, error::DatabaseError};
use std::time::Duration;

/// A database that sqlx speaks to. Sealed: implemented for `Postgres`, `MySql` and `Sqlite`.
pub trait Driver:
    Database<Connection: Connection<Options = Self::Options> + Send> + Pressured + sealed::Sealed
{
    /// Where and how to connect.
    type Options: ConnectOptions<Connection = Self::Connection> + Identify + Send + Sync + Clone;

    /// How one session is found again on the server, to stop what it runs.
    type Session: Clone + Send + Sync + 'static;

    /// What a session's reset needs to know of the last one.
    type Memory: Default + Send + Sync + 'static;

    /// What its pool is called in errors and drawings.
    const POOL: &'static str;
    /// What a single connection is called in errors and drawings.
    const CONNECTION: &'static str;
    /// What its handle is called in errors and drawings.
    const HANDLE: &'static str;
    /// The schemes of its URLs.
    const SCHEMES: &'static [&'static str];

    /// Its connections are threads of this process, and not sockets: a dropped one takes its time to
    /// come to an end, and to let go of its locks.
    const IN_PROCESS: bool = false;

    /// A URL as it should look.
    const EXAMPLE: &'static str;

    /// The parameters in the query of its URLs, except for those that TLS has.
    const PARAMETERS: &'static [&'static str];

    /// Whether `key` is one of the parameters that are more than a word.
    #[must_use]
    fn is_parameter(key: &str) -> bool {
        let _ = key;
        false
    }

    /// Reads a URL.
    ///
    /// # Errors
    /// When sqlx cannot read it.
    fn options(url: &str) -> Result<Self::Options, sqlx::Error>;

    /// The same options, so that the server shows `tag` with the session.
    #[must_use]
    fn tagged(options: &Self::Options, tag: &Tag) -> Self::Options;

    /// The same options as they are sent to a proxy, which gives the session to others, too: without the
    /// tag.
    #[must_use]
    fn untagged(options: &Self::Options) -> Self::Options {
        options.clone()
    }

    /// The same options without what a proxy does not let through, or what has to be taken out of the URL.
    ///
    /// # Errors
    /// What in the options cannot be had behind a proxy, and where to put it.
    fn for_proxy(options: Self::Options) -> Result<Self::Options, &'static str> {
        Ok(options)
    }

    /// The same options leading nowhere: connecting with them fails at once, without any network,
    /// and not in a way that sqlx's pool would try again.
    #[must_use]
    fn unreachable_options(options: &Self::Options) -> Self::Options;

    /// The server's TCP port, if that is how it is reached.
    fn port(options: &Self::Options) -> Option<u16>;

    /// Host, port and database: what an error may show of a URL.
    fn target(options: &Self::Options) -> String;

    /// What is to be said first on a new connection, from the same URL as the options; nothing that a
    /// `proxy` would have to keep for this client alone.
    ///
    /// # Errors
    /// When sqlx cannot read the URL.
    fn setup_sql(url: &str, proxy: Option<Proxy>) -> Result<String, sqlx::Error> {
        let _ = (url, proxy);
        Ok(String::new())
    }

    /// The same options, so that the server notices when this process has vanished without a goodbye;
    /// `None` if the options cannot say so. A client that is silent for less than `silence` has not vanished.
    #[must_use]
    fn monitored(options: &Self::Options, silence: Duration) -> Option<Self::Options> {
        let _ = (options, silence);
        None
    }

    /// Whether a server, or a pooler in front of it, refuses a connection because of what
    /// [`monitored`](Self::monitored) adds.
    fn refuses_monitoring(error: &dyn DatabaseError) -> bool {
        let _ = error;
        false
    }

    /// Says on an open connection what [`monitored`](Self::monitored) says while one is opened.
    fn monitor<'c>(
        connection: &'c mut Self::Connection,
        options: &'c Self::Options,
        silence: Duration,
    ) -> BoxFuture<'c, Result<(), sqlx::Error>> {
        let _ = (connection, options, silence);
        Box::pin(ready(Ok(())))
    }

    /// The first thing that happens on a new connection, opened with `options` that were
    /// [`tagged`](Self::tagged). `silence` is that of [`monitored`](Self::monitored), and `None` where the session
    /// is not ours alone.
    fn init_session<'c>(
        connection: &'c mut Self::Connection,
        options: &'c Self::Options,
        setup_sql: &str,
        silence: Option<Duration>,
    ) -> BoxFuture<'c, Result<Self::Session, sqlx::Error>>;

    /// Makes the server end the session of a connection that sqlx is about to shut down: over rustls, sqlx waits
    /// until the server has done that.
    fn hang_up(connection: &mut Self::Connection) -> BoxFuture<'_, ()> {
        let _ = connection;
        Box::pin(ready(()))
    }

    /// The session as its reset has identified it, if that is more than was known of it before.
    fn identified(session: &Self::Session, memory: &Self::Memory) -> Option<Self::Session> {
        let _ = (session, memory);
        None
    }

    /// Whether `session` is known as this one session, and not only by a name that others may share.
    fn is_identified(session: &Self::Session) -> bool {
        let _ = session;
        true
    }

    /// Every session that goes by the name of `session`, except for `others`, which are
    /// [identified](Self::is_identified).
    #[must_use]
    fn all_but(session: &Self::Session, others: &[Self::Session]) -> Self::Session {
        let _ = others;
        session.clone()
    }

    /// Resolves when everything that was sent has been answered: at once, and without a byte on the
    /// wire, if nothing is on its way.
    fn drain(connection: &mut Self::Connection) -> BoxFuture<'_, Result<(), sqlx::Error>>;

    /// Stops what `session` runs without another connection, where that is possible.
    fn interrupt(session: &Self::Session) -> bool;

    /// Whether the connection of a session that was stopped is gone, with its locks. A server sees to
    /// that by itself.
    fn has_left(session: &Self::Session) -> bool {
        let _ = session;
        true
    }

    /// Stops on the server what `sessions` run, through another connection. What runs nothing, or nothing
    /// yet, is ended: none of them is going to be used again.
    fn cancel<'c>(
        via: &'c mut Self::Connection,
        sessions: &'c [Self::Session],
    ) -> BoxFuture<'c, Result<Cancelled<Self::Session>, sqlx::Error>>;

    /// Stops what transactions behind a PgBouncer run whose names are `sessions`, and nothing that runs
    /// before or after them on the same connections of the pooler's.
    fn cancel_in_transactions<'c>(
        via: &'c mut Self::Connection,
        sessions: &'c [Self::Session],
    ) -> BoxFuture<'c, Result<(), sqlx::Error>> {
        let _ = (via, sessions);
        Box::pin(ready(Ok(())))
    }

    /// Makes sqlx forget what it has prepared in a session that was just reset, if the server accepts some of it no
    /// longer: whoever had the connection itself may have passed over an error that would come again.
    ///
    /// # Errors
    /// When the reply does not come, or is not recognized.
    fn revalidate<'c>(
        connection: &'c mut Self::Connection,
        memory: &'c mut Self::Memory,
    ) -> BoxFuture<'c, Result<(), sqlx::Error>> {
        let _ = (connection, memory);
        Box::pin(ready(Ok(())))
    }

    /// Whether the server took writes at the last [`reset`](Self::reset), where that has asked.
    fn takes_writes(memory: &Self::Memory) -> Option<bool> {
        let _ = memory;
        None
    }

    /// Ends a transaction that a user of the connection may have left open, and tells whether the reply
    /// to that was recognized: sqlx may have lost its place in the protocol, and then takes the reply to
    /// an earlier statement for the one to the next.
    fn recognize(connection: &mut Self::Connection) -> BoxFuture<'_, Result<bool, sqlx::Error>>;

    /// The same, and learns by what the session can be [`identified`](Self::identified).
    ///
    /// # Errors
    /// When the reply does not come, or is not recognized.
    fn identify<'c>(
        connection: &'c mut Self::Connection,
        memory: &'c mut Self::Memory,
    ) -> BoxFuture<'c, Result<bool, sqlx::Error>> {
        let _ = memory;
        Self::recognize(connection)
    }

    /// Undoes what an invocation has done to its session: open transaction, `SET`, locks, temporary
    /// tables, cursors. sqlx's own prepared statements stay valid. What cannot be undone, or not be
    /// proved, makes it unfit.
    ///
    /// # Errors
    /// When the reply does not come, or is not recognized.
    fn reset<'c>(
        connection: &'c mut Self::Connection,
        memory: &'c mut Self::Memory,
    ) -> BoxFuture<'c, Result<Fitness, sqlx::Error>>;

    /// What begins a transaction that [`commit_on`](Self::commit_on) commits, where that is not what sqlx sends.
    const BEGIN: Option<&'static str> = None;

    /// Resolves in an open transaction when everything that was sent has been answered, and it is known that sqlx
    /// takes the next reply for what it is.
    ///
    /// # Errors
    /// That of a statement which the handler dropped; or the reply is not recognized, or the transaction is
    /// [aborted](Self::is_aborted).
    fn before_commit(connection: &mut Self::Connection) -> BoxFuture<'_, Result<(), sqlx::Error>> {
        Self::drain(connection)
    }

    /// Whether `error` says that a statement had failed before, after which the database commits nothing.
    #[must_use]
    fn is_aborted(error: &sqlx::Error) -> bool {
        let _ = error;
        false
    }

    /// Whether `error` of [`commit_on`](Self::commit_on) says that the transaction had ended before, without the
    /// handler's being told so.
    #[must_use]
    fn had_ended(error: &sqlx::Error) -> bool {
        let _ = error;
        false
    }

    /// Commits the transaction that sqlx has begun on `connection`, however many savepoints were leaked in
    /// it, and recognizes the reply. sqlx may still count it as open afterwards: its rollback does nothing.
    ///
    /// # Errors
    /// When the database refuses, also because a statement had failed before; when the reply is not
    /// recognized, or never comes: then it is not known whether it was committed.
    fn commit_on(connection: &mut Self::Connection) -> BoxFuture<'_, Result<(), sqlx::Error>>;

    /// Commits, and says so if there was nothing to commit because a statement had failed.
    fn commit(
        mut transaction: Transaction<'static, Self>,
    ) -> BoxFuture<'static, Result<(), sqlx::Error>> {
        Box::pin(async move { Self::commit_on(&mut transaction).await })
    }

    /// What the database's own error code says about a connection that could not be had or is of no
    /// more use; `None` for an ordinary failure of a statement.
    fn kind(error: &dyn DatabaseError) -> Option<ErrorKind>;

    /// Whether the server no longer knows what the connection relies on (a type, the plan or the name of a
    /// prepared statement): every further use of it would fail the same way.
    fn is_outdated(error: &dyn DatabaseError) -> bool {
        let _ = error;
        false
    }

    /// Forgets what may be outdated in a session that was just reset, and looks whether the server takes
    /// writes: after a failure that nobody could read.
    fn renew(connection: &mut Self::Connection) -> BoxFuture<'_, Result<Fitness, sqlx::Error>> {
        let _ = connection;
        Box::pin(ready(Ok(Fitness::Fit)))
    }

    /// Whether the server, or a proxy before it, has no room for one more connection right now.
    fn is_server_full(error: &dyn DatabaseError) -> bool;
}

/// What is left after a server was asked to stop sessions. Those that are not in here were stopped, or have
/// ended by themselves.
#[derive(Debug)]
pub struct Cancelled<Session> {
    /// Sessions of another server behind the same address.
    pub(super) elsewhere: Vec<Session>,
    /// Why others may still be running.
    pub(super) unsure: Option<&'static str>,
}

impl<Session> Cancelled<Session> {
    /// Everything was stopped.
    pub(super) fn all() -> Self {
        Self {
            elsewhere: Vec::new(),
            unsure: None,
        }
    }
}

/// A socket that does not exist: not being found is no refusal, which sqlx's pool would retry.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(super) const NO_SOCKET: &str = "/dev/null/given-up-by-db-handler";

pub(super) mod sealed {
    /// Keeps [`Driver`](super::Driver) for the databases that are known here.
    pub trait Sealed {}
}
