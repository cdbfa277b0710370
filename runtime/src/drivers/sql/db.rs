//! A handle made for a function that is frozen between its invocations: `&Db<Postgres>`.

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
    resource::{Acquire, Disposition, Fitness, Handle, InjectRef, Resource, Symptom, Usage},
};
use std::{fmt, sync::Arc, time::Duration};

/// A database, for one handler: queries run on it by shared reference, side by side on up to `max`
/// connections, and one after the other on one.
///
/// It differs from sqlx's own pool in what a frozen sandbox makes of a pool:
///
/// * It has no task, no timer and no ping of its own. A connection is back at once when its query
///   has been answered, so queries in a row share one connection.
/// * A connection whose query was given up (by `select!`, a timeout, a stream dropped half-way) is
///   discarded, and the query is stopped on the server when the handler has ended.
/// * A connection that came through [`acquire`](Self::acquire) or [`begin`](Self::begin) is used again only
///   after a round trip whose reply was recognized. sqlx may be out of step with the server after a `COPY` or
///   a statement that was dropped half-way, and would return the rows of one query for the next. Queries on
///   the handle itself cost no such round trip.
/// * Each statement on the handle is on its own. A transaction that one of them leaves open (a raw `BEGIN`) is
///   rolled back before the next statement: use [`begin`](Self::begin).
/// * It is closed within a bound, whatever the server does.
/// * Its errors say what kept a connection from being had.
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
/// Clones lead to the same connections. A clone that is used when the invocation is over gets an error.
///
/// # What is reused
///
/// Where `close` is not `"always"`, a connection goes to the next invocation after its session has been reset and
/// the server's reply to that was recognized. Otherwise it is closed.
///
/// * **PostgreSQL**: undone is what `DISCARD ALL` undoes, except for the statements that sqlx itself has prepared. Where
///   the handler had the connection itself, those are prepared again if the server no longer accepts one of them
///   (`ALTER TABLE`, a type that was created anew): such an error costs one invocation, whatever the handler does
///   with it.
/// * **MariaDB**: open transactions, locks and `LAST_INSERT_ID()` are undone. A session with anything else in it is
///   closed: a setting, a user variable, another database, a temporary table or sequence, a statement prepared in
///   SQL. That takes the list in `information_schema.USER_VARIABLES`, which is there by default. Not seen are the
///   last values of permanent sequences (`LASTVAL(s)`).
/// * **MySQL**: the same. The list is in the performance schema, which has to be on, from MySQL 8.0.16 and Aurora
///   MySQL 3 on: `GRANT SELECT ON performance_schema.user_variables_by_thread TO ..`. Without it, every connection
///   that was used is closed. This was run on MariaDB only.
/// * **SQLite**: a connection to a file is closed after each invocation that used it. A database in memory lives as
///   long as its connection: that is reused, its most common pragmas set back, and everything else as it was left.
///
/// Connections to a server that took writes before and takes none any more (a failover) are replaced after the
/// invocation.
///
/// The same holds for sqlx's pools and for `&mut` connections.
pub struct Db<DB: Driver> {
    pool: Arc<Pool<DB>>,
    user: User,
}

impl<DB: Driver> Db<DB> {
    /// Takes a connection for oneself, until the guard is dropped. A transaction that it is in by then is rolled
    /// back.
    ///
    /// # Errors
    /// When none is free within `acquire_ms`, or a new one cannot be opened.
    pub async fn acquire(&self) -> Result<DbConnection<DB>, Error> {
        Ok(DbConnection::new(self.take_now().await?))
    }

    /// Begins a transaction, which is rolled back if its guard is dropped without
    /// [`commit`](DbTransaction::commit).
    ///
    /// # Errors
    /// As for [`acquire`](Self::acquire), and when the database refuses.
    pub async fn begin(&self) -> Result<DbTransaction<DB>, Error> {
        Ok(DbTransaction::begin(self.take_now().await?).await?)
    }

    async fn take_now(&self) -> Result<super::Checkout<DB>, Error> {
        let acquire = self.pool.acquire_now();
        self.pool.take(self.user, &acquire).await
    }
}

/// The connections that the [`Db`]s of all invocations have in common.
pub struct DbPool<DB: Driver> {
    pool: Arc<Pool<DB>>,
}

impl<DB: Driver> Resource for DbPool<DB> {
    const NAME: &'static str = DB::HANDLE;
    const DEFAULTS: Defaults = Defaults::SQL;
    const PER_CONNECTION: bool = true;

    async fn open(acquire: &Acquire) -> Result<Self, Error> {
        Ok(Self {
            pool: Arc::new(Pool::new(acquire)?),
        })
    }

    async fn connect(&self, acquire: &Acquire) -> Result<(), Error> {
        let wanted = acquire.settings().min.max(1);
        self.pool.connect(wanted, acquire).await
    }

    async fn reset(&self, _: Duration) -> Fitness {
        self.pool.check()
    }

    fn abandon(&self) {
        self.pool.abandon();
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

/// One invocation's [`Db`], and what it used of the pool.
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

    async fn clean_up(&self, reuse: bool) -> Fitness {
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

/// Injects `&mut $connection`, one for the whole invocation, from the [`DbPool`] of its database.
macro_rules! inject_connection {
    ($connection:ty, $database:ty) => {
        impl crate::resource::InjectMut for $connection {
            type Handle = crate::drivers::sql::DbHandle<$database>;
            type Guard = crate::drivers::sql::Checkout<$database>;

            async fn acquire(
                handle: &Self::Handle,
                acquire: &crate::resource::Acquire,
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
    pub(super) async fn take(&self, acquire: &Acquire) -> Result<super::Checkout<DB>, Error> {
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
    /// A connection for one statement, with errors as sqlx's traits want them.
    async fn for_statement(&self) -> Result<super::Checkout<DB>, sqlx::Error> {
        self.take_now().await.map_err(error::wrapped)
    }
}
