//! A connection for oneself, and a transaction: guards that give back what they hold.

use crate::resource::sql::{Driver, Lent};
use sqlx::Database;
use sqlx_core::transaction::TransactionManager;
use std::{
    fmt,
    ops::{Deref, DerefMut},
};

/// A connection of a [`Db`](super::Db) for oneself. Dropping it gives it back.
#[must_use = "dropping it gives the connection back"]
pub struct DbConnection<DB: Driver> {
    /// Empty only when it is given back.
    lent: Option<Lent<DB>>,
}

impl<DB: Driver> DbConnection<DB> {
    pub(super) fn new(lent: Lent<DB>) -> Self {
        Self { lent: Some(lent) }
    }
}

impl<DB: Driver> Drop for DbConnection<DB> {
    fn drop(&mut self) {
        if let Some(lent) = self.lent.take() {
            lent.unsure();
        }
    }
}

impl<DB: Driver> Deref for DbConnection<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        match &self.lent {
            Some(lent) => lent,
            None => unreachable!("emptied in `drop` only"),
        }
    }
}

impl<DB: Driver> DerefMut for DbConnection<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        match &mut self.lent {
            Some(lent) => lent,
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
    pub(super) async fn begin(mut lent: Lent<DB>) -> Result<Self, sqlx::Error> {
        // Given up half-way, nobody knows whether it has begun: the connection goes with this future.
        Manager::<DB>::begin(&mut lent, None).await?;
        Ok(Self {
            connection: DbConnection::new(lent),
            open: true,
        })
    }

    /// Commits.
    ///
    /// # Errors
    /// When the database refuses, or the connection is lost: whether it was committed is then unknown.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        let Some(mut lent) = self.end() else {
            return Ok(());
        };
        Manager::<DB>::commit(&mut lent).await?;
        lent.answered();
        Ok(())
    }

    /// Rolls back, and waits for it.
    ///
    /// # Errors
    /// When the connection is lost; then the server rolls back by itself.
    pub async fn rollback(mut self) -> Result<(), sqlx::Error> {
        let Some(mut lent) = self.end() else {
            return Ok(());
        };
        Manager::<DB>::rollback(&mut lent).await?;
        lent.answered();
        Ok(())
    }

    /// The connection, which is discarded unless it is given back: given up half-way, nobody knows what
    /// became of the transaction.
    fn end(&mut self) -> Option<Lent<DB>> {
        self.open = false;
        self.connection.lent.take()
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
