//! A connection for oneself, and a transaction: guards that give back what they hold.

use crate::{
    config::DROPPED_STATEMENT,
    drivers::sql::{Checkout, Driver, commit, connection, error},
    error::Error,
};
use sqlx::{Connection, Database, SqlSafeStr};
use sqlx_core::transaction::TransactionManager;
use std::{
    fmt,
    ops::{Deref, DerefMut},
};

/// A connection of a [`Db`](super::Db) for oneself. Dropping it gives it back.
///
/// What was done with it is not known, so the next statement on it is preceded by one round trip: a
/// transaction that it is still in is rolled back, and a connection whose reply is not the expected one (a
/// `COPY` was dropped half-way) is replaced. What was set in its session (`SET`, temporary tables) stays
/// until the invocation has ended.
#[must_use = "dropping it gives the connection back"]
pub struct DbConnection<DB: Driver> {
    /// Empty only when it is given back.
    checkout: Option<Checkout<DB>>,
}

impl<DB: Driver> DbConnection<DB> {
    pub(super) fn new(checkout: Checkout<DB>) -> Self {
        Self {
            checkout: Some(checkout),
        }
    }
}

impl<DB: Driver> Drop for DbConnection<DB> {
    fn drop(&mut self) {
        if let Some(checkout) = self.checkout.take() {
            checkout.in_hand();
        }
    }
}

impl<DB: Driver> Deref for DbConnection<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        match &self.checkout {
            Some(checkout) => checkout,
            None => unreachable!("emptied in `drop` only"),
        }
    }
}

impl<DB: Driver> DerefMut for DbConnection<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        match &mut self.checkout {
            Some(checkout) => checkout,
            None => unreachable!("emptied in `drop` only"),
        }
    }
}

impl<DB: Driver> fmt::Debug for DbConnection<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DbConnection").finish_non_exhaustive()
    }
}

/// A transaction on a [`Db`](super::Db). Dropped without [`commit`](Self::commit), it is rolled back:
/// the rollback goes out with the connection's next use, at the latest when the handler has ended.
#[must_use = "dropped without `commit`, it is rolled back"]
pub struct DbTransaction<DB: Driver> {
    connection: DbConnection<DB>,
    open: bool,
}

type Manager<DB> = <DB as Database>::TransactionManager;

impl<DB: Driver> DbTransaction<DB> {
    pub(super) async fn begin(mut checkout: Checkout<DB>) -> Result<Self, sqlx::Error> {
        // Given up half-way, nobody knows whether it has begun: the connection goes with this future.
        let begin = DB::BEGIN.map(SqlSafeStr::into_sql_str);
        Manager::<DB>::begin(&mut checkout, begin).await?;
        Ok(Self {
            connection: DbConnection::new(checkout),
            open: true,
        })
    }

    /// Commits. In PostgreSQL a round trip comes first, which shows whether anything was dropped half-way: a
    /// `COPY` that was dropped, or a statement that still runs, is not committed.
    ///
    /// # Errors
    /// [`CommitFailed`](crate::ErrorKind::CommitFailed) when nothing was committed: the database refused, something was
    /// dropped half-way, or, in PostgreSQL, a statement had failed before and the handler went on. In MySQL and
    /// MariaDB also when the transaction had ended before, as a deadlock ends it: what the handler did after
    /// that may have been written.
    /// [`CommitUnknown`](crate::ErrorKind::CommitUnknown) when the connection was lost, or the reply was not
    /// recognized.
    pub async fn commit(mut self) -> Result<(), Error> {
        let Some(mut checkout) = self.end() else {
            return Ok(());
        };
        let longest = checkout.reply_within(DROPPED_STATEMENT);
        if let Err(error) = commit::ready::<DB>(&mut checkout, longest).await {
            Manager::<DB>::start_rollback(&mut checkout);
            // The next user, or the cleanup, cancels what still runs.
            checkout.in_hand();
            return Err(error);
        }
        if let Err(error) = DB::commit_on(&mut checkout).await {
            if !error::ends_the_connection(&error) {
                Manager::<DB>::start_rollback(&mut checkout);
                checkout.in_hand();
            }
            return Err(error::not_committed::<DB>(error));
        }
        if checkout.is_in_transaction() {
            // To sqlx it is still open. What that sends changes nothing, and nobody waits for it here.
            Manager::<DB>::start_rollback(&mut checkout);
            connection::is_quiet::<DB>(&mut checkout);
        }
        if checkout.is_in_transaction() {
            // A savepoint was leaked, and sqlx goes on counting it.
            return Ok(());
        }
        checkout.answered();
        Ok(())
    }

    /// Rolls back, and waits for it.
    ///
    /// # Errors
    /// When the connection is lost; then the server rolls back by itself.
    pub async fn rollback(mut self) -> Result<(), Error> {
        let Some(mut checkout) = self.end() else {
            return Ok(());
        };
        let rolled_back = Manager::<DB>::rollback(&mut checkout).await;
        // What the handler did with the connection is not known: something may still run there.
        checkout.in_hand();
        Ok(rolled_back?)
    }

    /// The connection, which is discarded unless it is given back: given up half-way, nobody knows what
    /// became of the transaction.
    fn end(&mut self) -> Option<Checkout<DB>> {
        self.open = false;
        self.connection.checkout.take()
    }
}

impl<DB: Driver> Drop for DbTransaction<DB> {
    fn drop(&mut self) {
        if self.open {
            Manager::<DB>::start_rollback(&mut self.connection);
        }
    }
}

impl<DB: Driver> Deref for DbTransaction<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        &self.connection
    }
}

impl<DB: Driver> DerefMut for DbTransaction<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        &mut self.connection
    }
}

impl<DB: Driver> fmt::Debug for DbTransaction<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DbTransaction")
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}
