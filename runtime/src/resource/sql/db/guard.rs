//! A connection for oneself, and a transaction: guards that give back what they hold.

use crate::{
    error::Error,
    resource::sql::{Driver, Lent, fault, link},
};
use sqlx::{Connection, Database};
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
            lent.in_hand();
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
    /// [`CommitFailed`](crate::ErrorKind::CommitFailed) when nothing was committed: the database refused, or, in
    /// PostgreSQL, a statement had failed before and the handler went on.
    /// [`CommitUnknown`](crate::ErrorKind::CommitUnknown) when the connection was lost, or the reply was not
    /// recognized.
    pub async fn commit(mut self) -> Result<(), Error> {
        let Some(mut lent) = self.end() else {
            return Ok(());
        };
        if let Err(error) = DB::commit_on(&mut lent).await {
            if !fault::ends_the_connection(&error) {
                Manager::<DB>::start_rollback(&mut lent);
                lent.in_hand();
            }
            return Err(fault::not_committed::<DB>(error));
        }
        if lent.is_in_transaction() {
            // To sqlx it is still open. What that sends changes nothing, and nobody waits for it here.
            Manager::<DB>::start_rollback(&mut lent);
            link::is_quiet::<DB>(&mut lent);
        }
        if lent.is_in_transaction() {
            // A savepoint was leaked, and sqlx goes on counting it.
            return Ok(());
        }
        lent.answered();
        Ok(())
    }

    /// Rolls back, and waits for it.
    ///
    /// # Errors
    /// When the connection is lost; then the server rolls back by itself.
    pub async fn rollback(mut self) -> Result<(), Error> {
        let Some(mut lent) = self.end() else {
            return Ok(());
        };
        Manager::<DB>::rollback(&mut lent).await?;
        // What the handler did with the connection is not known.
        lent.in_hand();
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
