//! A pool for functions that are frozen between invocations: `&Db<Postgres>`.

mod executor;
mod guard;
mod text;

pub use guard::{DbConnection, DbTransaction};

use super::{
    driver::Driver,
    error,
    pool::{Pool, Using},
    users::User,
};
use crate::{
    config::Defaults,
    error::Error,
    resource::{AcquireContext, Disposition, Handle, Health, InjectRef, Resource, Symptom, Usage},
};
use std::{fmt, sync::Arc, time::Duration};

/// A pool of connections to one database, as one handler gets it. Concurrent queries use up to `max` connections;
/// sequential queries share one.
///
/// It differs from sqlx's own pool in these points, because the environment may be frozen at any time between
/// invocations:
///
/// * It has no background task, timer or ping. A connection is released as soon as its query's reply has been read, so
///   sequential queries share one connection.
/// * A connection whose query was dropped (by `select!`, a timeout, a stream that was not read to its end) is
///   discarded, and the query is cancelled on the server after the handler.
/// * A connection that was checked out with [`acquire`](Self::acquire) or [`begin`](Self::begin) is reused only after a
///   round trip whose reply was recognized. After a dropped `COPY` or statement, sqlx may be out of sync with the
///   server and return the rows of one query for the next. Queries on the `Db` itself do not cost this round trip.
/// * Statements on the `Db` are independent of each other. A transaction that one of them leaves open (a raw `BEGIN`)
///   is rolled back before the next statement: use [`begin`](Self::begin).
/// * Closing has a timeout, whatever the server does.
/// * Its errors say why no connection was available.
///
/// ```no_run
/// use db_handler::{Db, Error, LambdaEvent, db_handler, sqlx::{self, Sqlite}};
///
/// #[db_handler(env = "DATABASE_URL")]
/// async fn count(event: LambdaEvent<String>, db: &Db<Sqlite>) -> Result<i64, Error> {
///     let orders = sqlx::query_scalar("SELECT count(*) FROM orders WHERE item = ?")
///         .bind(event.payload)
///         .fetch_one(db)
///         .await?;
///     Ok(orders)
/// }
/// ```
///
/// Clones use the same connections. Using a clone after the invocation has ended returns an error.
///
/// # Reuse
///
/// Unless `close` is `"always"`, a connection is reused by the next invocation after its session has been reset and the
/// server's reply to the reset was recognized. Otherwise it is closed.
///
/// * **PostgreSQL**: the reset does what `DISCARD ALL` does, but keeps the statements that sqlx itself has prepared. If
///   the handler had the connection itself and the server no longer accepts one of these statements (`ALTER TABLE`, a
///   type that was created anew), they are prepared again: such an error costs one invocation, whatever the handler
///   does with it.
/// * **MariaDB**: the reset ends open transactions, releases locks and clears `LAST_INSERT_ID()`. A session with any
///   other state is closed: a setting, a user variable, another database, a temporary table or sequence, a statement
///   prepared in SQL. To find these, the reset reads `information_schema.USER_VARIABLES`, which exists by default. It
///   does not detect the last values of permanent sequences (`LASTVAL(s)`).
/// * **MySQL**: as for MariaDB, but the list is in the performance schema, which must be enabled. It needs MySQL 8.0.16
///   or later, or Aurora MySQL 3 or later, and `GRANT SELECT ON performance_schema.user_variables_by_thread TO ..`.
///   Without it, every connection that was used is closed. Tested on MariaDB only.
/// * **SQLite**: a connection to a file is closed after each invocation that used it. An in-memory database lives as
///   long as its connection: that connection is reused. Its most common pragmas are reset; all other state remains.
///
/// If a server accepted writes before and no longer does (a failover), its connections are replaced after the
/// invocation.
///
/// The same applies to sqlx's pools and to `&mut` connections.
pub struct Db<DB: Driver> {
    pool: Arc<Pool<DB>>,
    user: User,
}

impl<DB: Driver> Db<DB> {
    /// Checks out a connection until the guard is dropped. A transaction that is open by then is rolled back.
    ///
    /// # Errors
    /// If no connection becomes free within `acquire_ms`, or a new one cannot be opened.
    pub async fn acquire(&self) -> Result<DbConnection<DB>, Error> {
        Ok(DbConnection::new(self.take_now().await?))
    }

    /// Begins a transaction, which is rolled back if its guard is dropped without [`commit`](DbTransaction::commit).
    ///
    /// # Errors
    /// As for [`acquire`](Self::acquire), and if the database rejects the `BEGIN`.
    pub async fn begin(&self) -> Result<DbTransaction<DB>, Error> {
        Ok(DbTransaction::begin(self.take_now().await?).await?)
    }

    async fn take_now(&self) -> Result<super::Checkout<DB>, Error> {
        let acquire = self.pool.acquire_now();
        self.pool.take(self.user, &acquire).await
    }
}

/// The connections that the [`Db`]s of all invocations share.
pub struct DbPool<DB: Driver> {
    pool: Arc<Pool<DB>>,
}

impl<DB: Driver> Resource for DbPool<DB> {
    const NAME: &'static str = DB::HANDLE;
    const DEFAULTS: Defaults = Defaults::SQL;
    const PER_CONNECTION: bool = true;

    async fn open(acquire: &AcquireContext) -> Result<Self, Error> {
        Ok(Self {
            pool: Arc::new(Pool::new(acquire)?),
        })
    }

    async fn connect(&self, acquire: &AcquireContext) -> Result<(), Error> {
        let wanted = acquire.settings().min.max(1);
        self.pool.connect(wanted, acquire).await
    }

    async fn check(&self, _: Duration) -> Health {
        self.pool.check()
    }

    fn stop(&self) {
        self.pool.mark_closed();
    }

    async fn close(&self) {
        self.pool.close().await;
    }

    fn usage(&self) -> Usage {
        self.pool.usage()
    }

    fn round_trip(&self) -> Duration {
        self.pool.address().round_trip().get()
    }
}

/// One invocation's [`Db`], and the part of the pool that it used.
pub struct DbHandle<DB: Driver> {
    resource: Arc<DbPool<DB>>,
    db: Db<DB>,
    using: Using<DB>,
}

impl<DB: Driver> Handle for DbHandle<DB> {
    type Resource = DbPool<DB>;

    fn new(resource: Arc<DbPool<DB>>) -> Self {
        let using = resource.pool.add_user();
        let db = Db {
            pool: Arc::clone(&resource.pool),
            user: using.user(),
        };
        Self {
            resource,
            db,
            using,
        }
    }

    fn resource(&self) -> &DbPool<DB> {
        &self.resource
    }

    fn explain(&self, symptom: Symptom) -> Option<Error> {
        let (pool, user) = (self.using.pool(), self.using.user());
        match symptom {
            Symptom::TimedOut => pool.explain(user),
            Symptom::Outdated => {
                pool.outdated();
                None
            }
            Symptom::Unknown => {
                pool.suspect(user);
                None
            }
            _ => None,
        }
    }

    fn stop(&self) {
        self.using.pool().stop(self.using.user());
    }

    async fn clean_up(&self, reuse: bool) -> Health {
        self.using.pool().clean_up(self.using.user(), reuse).await
    }

    fn cleanup_time(&self) -> Duration {
        self.using.pool().cleanup_time(self.using.user())
    }

    fn may_close(&self) -> bool {
        self.using.pool().may_close()
    }
}

impl<DB: Driver> InjectRef for Db<DB> {
    type Handle = DbHandle<DB>;

    fn borrow(handle: &DbHandle<DB>) -> &Self {
        &handle.db
    }
}

impl<DB: Driver> Clone for Db<DB> {
    fn clone(&self) -> Self {
        Self {
            pool: Arc::clone(&self.pool),
            user: self.user,
        }
    }
}

impl<DB: Driver> fmt::Debug for Db<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db")
            .field("target", &self.pool.address().target())
            .field("usage", &self.pool.usage())
            .finish_non_exhaustive()
    }
}

impl<DB: Driver> fmt::Debug for DbPool<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DbPool").field(&self.pool).finish()
    }
}

impl<DB: Driver> fmt::Debug for DbHandle<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DbHandle").field(&self.db).finish()
    }
}

/// Injects `&mut $connection` from the [`DbPool`] of its database: one connection for the whole invocation.
macro_rules! inject_connection {
    ($connection:ty, $database:ty) => {
        impl crate::resource::InjectMut for $connection {
            type Handle = crate::drivers::sql::DbHandle<$database>;
            type Guard = crate::drivers::sql::Checkout<$database>;

            async fn acquire(
                handle: &Self::Handle,
                acquire: &crate::resource::AcquireContext,
            ) -> Result<Self::Guard, crate::Error> {
                handle.take(acquire).await
            }

            async fn release(
                handle: &Self::Handle,
                checkout: Self::Guard,
                disposition: crate::resource::Disposition,
            ) {
                handle.put_back(checkout, disposition).await;
            }
        }
    };
}

pub(super) use inject_connection;

impl<DB: Driver> DbHandle<DB> {
    pub(super) async fn take(
        &self,
        acquire: &AcquireContext,
    ) -> Result<super::Checkout<DB>, Error> {
        self.using.pool().take(self.using.user(), acquire).await
    }

    pub(super) async fn put_back(&self, checkout: super::Checkout<DB>, disposition: Disposition) {
        self.using.pool().release(checkout, disposition).await;
    }

    /// Host, port and database.
    #[cfg(feature = "postgres")]
    pub(super) fn target(&self) -> &str {
        self.using.pool().address().target()
    }
}

impl<DB: Driver> Db<DB> {
    /// Acquires a connection for one statement, with the error type of sqlx's traits.
    async fn for_statement(&self) -> Result<super::Checkout<DB>, sqlx::Error> {
        self.take_now().await.map_err(error::wrapped)
    }
}
