//! Guards for a connection and a transaction, which release the connection on drop.

use crate::{
    config::DROPPED_STATEMENT,
    drivers::sql::{Checkout, Driver, commit, connection},
    error::{Error, ErrorKind},
};
use sqlx::{Connection, Database, SqlSafeStr};
use sqlx_core::transaction::TransactionManager;
use std::{
    fmt,
    ops::{Deref, DerefMut},
};

/// A connection checked out of a [`Db`](super::Db), released on drop.
///
/// The handler may have used it in any way, so one round trip precedes the next statement on it: a transaction that is
/// still open is rolled back, and a connection with an unexpected reply (after a dropped `COPY`) is replaced. Session
/// state (`SET`, temporary tables) remains until the invocation has ended.
#[must_use = "dropping it gives the connection back"]
pub struct DbConnection<DB: Driver> {
    /// `None` only while it is released.
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

/// A transaction on a [`Db`](super::Db). If it is dropped without [`commit`](Self::commit), it is rolled back: the
/// rollback is sent with the connection's next use, at the latest after the handler.
#[must_use = "dropped without `commit`, it is rolled back"]
pub struct DbTransaction<DB: Driver> {
    connection: DbConnection<DB>,
    open: bool,
}

type Manager<DB> = <DB as Database>::TransactionManager;

impl<DB: Driver> DbTransaction<DB> {
    pub(super) async fn begin(mut checkout: Checkout<DB>) -> Result<Self, sqlx::Error> {
        // If this future is dropped, it is unknown whether the transaction has begun: the connection is dropped with
        // it.
        let begin = DB::BEGIN.map(SqlSafeStr::into_sql_str);
        Manager::<DB>::begin(&mut checkout, begin).await?;
        Ok(Self {
            connection: DbConnection::new(checkout),
            open: true,
        })
    }

    /// Commits the transaction. With PostgreSQL, a round trip precedes the `COMMIT` to find out whether a statement was
    /// dropped: a dropped `COPY` or a statement that still runs is not committed.
    ///
    /// # Errors
    /// [`CommitFailed`](crate::ErrorKind::CommitFailed) if nothing was committed: the database rejected the `COMMIT`, a
    /// statement was dropped, or, with PostgreSQL, the handler went on after a failed statement. With MySQL and MariaDB
    /// also if the transaction had already ended, for example by a deadlock: statements after that may have been
    /// written.
    /// [`CommitUnknown`](crate::ErrorKind::CommitUnknown) if the connection was lost, or the reply was not recognized.
    pub async fn commit(mut self) -> Result<(), Error> {
        let Some(mut checkout) = self.end() else {
            return Ok(());
        };
        let longest = checkout.reply_within(DROPPED_STATEMENT);
        if let Err(error) = commit::ready::<DB>(&mut checkout, longest).await {
            Manager::<DB>::start_rollback(&mut checkout);
            // The next user, or the cleanup, cancels statements that still run.
            checkout.in_hand();
            return Err(error);
        }
        if let Err(error) = commit::commit::<DB>(&mut checkout).await {
            if error.kind() != ErrorKind::CommitUnknown {
                Manager::<DB>::start_rollback(&mut checkout);
                checkout.in_hand();
            }
            return Err(error);
        }
        if checkout.is_in_transaction() {
            // sqlx still counts it as open. The rollback that sqlx sends changes nothing, and is not awaited here.
            Manager::<DB>::start_rollback(&mut checkout);
            connection::is_quiet::<DB>(&mut checkout);
        }
        if checkout.is_in_transaction() {
            // A savepoint was leaked, and sqlx still counts it.
            return Ok(());
        }
        checkout.responded();
        Ok(())
    }

    /// Rolls back the transaction, and waits for the reply.
    ///
    /// # Errors
    /// If the connection is lost; the server then rolls back by itself.
    pub async fn rollback(mut self) -> Result<(), Error> {
        let Some(mut checkout) = self.end() else {
            return Ok(());
        };
        let rolled_back = Manager::<DB>::rollback(&mut checkout).await;
        // The handler may have used the connection in any way: a statement may still run.
        checkout.in_hand();
        Ok(rolled_back?)
    }

    /// Returns the connection. Unless it is released, it is discarded: if the caller's future is dropped, the state of
    /// the transaction is unknown.
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
