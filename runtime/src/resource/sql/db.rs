//! A handle made for a function that is frozen between its invocations: `&Db<Postgres>`.

mod executor;
mod guard;
mod text;

pub use guard::{DbConnection, DbTransaction};

use super::{driver::Driver, fault, set::Set};
use crate::{
    config::Defaults,
    error::Error,
    resource::{Acquire, Fate, Fitness, Resource, Symptom, Usage},
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
/// * **PostgreSQL**: undone is what `DISCARD ALL` undoes, except for the statements that sqlx itself has prepared.
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
/// The same holds for sqlx's pools and for `&mut` connections.
pub struct Db<DB: Driver> {
    set: Arc<Set<DB>>,
}

impl<DB: Driver> Db<DB> {
    /// Takes a connection for oneself, until the guard is dropped. A transaction that it is in by then is rolled
    /// back.
    ///
    /// # Errors
    /// When none is free within `acquire_ms`, or a new one cannot be opened.
    pub async fn acquire(&self) -> Result<DbConnection<DB>, Error> {
        let acquire = self.set.acquire_now();
        Ok(DbConnection::new(self.set.take(&acquire).await?))
    }

    /// Begins a transaction, which is rolled back if its guard is dropped without
    /// [`commit`](DbTransaction::commit).
    ///
    /// # Errors
    /// As for [`acquire`](Self::acquire), and when the database refuses.
    pub async fn begin(&self) -> Result<DbTransaction<DB>, Error> {
        let acquire = self.set.acquire_now();
        Ok(DbTransaction::begin(self.set.take(&acquire).await?).await?)
    }
}

impl<DB: Driver> Resource for Db<DB> {
    const NAME: &'static str = DB::HANDLE;
    const DEFAULTS: Defaults = Defaults::SQL;

    async fn open(acquire: &Acquire) -> Result<Self, Error> {
        Ok(Self {
            set: Arc::new(Set::new(acquire)?),
        })
    }

    async fn connect(&self, acquire: &Acquire) -> Result<(), Error> {
        let wanted = acquire.settings().min.max(1);
        self.set.connect(wanted, acquire).await
    }

    async fn reset(&self, _: Duration) -> Fitness {
        self.set.serve()
    }

    fn explain(&self, symptom: Symptom) -> Option<Error> {
        match symptom {
            Symptom::TimedOut => self.set.explain(),
            Symptom::Outdated => {
                self.set.outdated();
                None
            }
            Symptom::Unknown => {
                self.set.suspect();
                None
            }
            _ => None,
        }
    }

    fn rest(&self) {
        self.set.rest();
    }

    fn abandon(&self) {
        self.set.abandon();
    }

    async fn settle(&self) -> Fitness {
        self.set.settle().await
    }

    async fn refresh(&self) -> Fitness {
        self.set.refresh().await
    }

    async fn close(&self) {
        self.set.close().await;
    }

    fn usage(&self) -> Usage {
        self.set.usage()
    }

    fn round_trip(&self) -> Duration {
        self.set.address().round_trip().get()
    }
}

impl<DB: Driver> Clone for Db<DB> {
    fn clone(&self) -> Self {
        Self {
            set: Arc::clone(&self.set),
        }
    }
}

impl<DB: Driver> fmt::Debug for Db<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db")
            .field("target", &self.set.address().target())
            .field("usage", &self.set.usage())
            .finish()
    }
}

/// Lends `&mut $connection`, one for the whole invocation, from the [`Db`] of its database.
macro_rules! lend_connection {
    ($connection:ty, $database:ty) => {
        impl crate::resource::Exclusive for $connection {
            type Resource = crate::resource::sql::Db<$database>;
            type Loan = crate::resource::sql::Lent<$database>;

            async fn take(
                db: &Self::Resource,
                acquire: &crate::resource::Acquire,
            ) -> Result<Self::Loan, crate::Error> {
                db.lend(acquire).await
            }

            async fn put_back(db: &Self::Resource, lent: Self::Loan, fate: crate::resource::Fate) {
                db.put_back(lent, fate).await;
            }
        }
    };
}

pub(super) use lend_connection;

impl<DB: Driver> Db<DB> {
    pub(super) async fn lend(&self, acquire: &Acquire) -> Result<super::Lent<DB>, Error> {
        self.set.take(acquire).await
    }

    pub(super) async fn put_back(&self, lent: super::Lent<DB>, fate: Fate) {
        self.set.put_back(lent, fate).await;
    }

    /// Host, port and database.
    #[cfg(feature = "postgres")]
    pub(super) fn target(&self) -> &str {
        self.set.address().target()
    }

    /// A connection for one statement, with errors as sqlx's traits want them.
    async fn for_statement(&self) -> Result<super::Lent<DB>, sqlx::Error> {
        let acquire = self.set.acquire_now();
        self.set.take(&acquire).await.map_err(fault::wrapped)
    }
}
