//! A transaction for the whole invocation: `&mut PgTransaction<'_>` and its siblings.

use super::{SqlxHandle, driver::Driver, fault};
use crate::{
    config::DROPPED_STATEMENT,
    error::Error,
    lifecycle::set_committing,
    resource::{Acquire, Disposition, InjectMut, Outcome},
};
use futures_util::FutureExt;
use sqlx::Transaction;
use std::{
    fmt,
    ops::{Deref, DerefMut},
    panic::AssertUnwindSafe,
};
use tokio::time::timeout;

/// What a handler's `&mut PgTransaction<'_>`, or a sibling of it, is borrowed from: begun before the handler,
/// committed when it returns `Ok`, rolled back otherwise. Its connection comes from a pool of its own.
///
/// It stands between sqlx's type and [`InjectMut`] because of that type's lifetime: the compiler cannot tell
/// whether a future is `Send` that depends on a trait for `'static` alone.
pub struct OwnTransaction<DB: Driver>(Transaction<'static, DB>);

/// Holds an [`OwnTransaction`]. Dropping it rolls the transaction back.
pub struct TransactionLoan<DB: Driver> {
    /// Empty only when the handler has returned.
    transaction: Option<OwnTransaction<DB>>,
}

impl<DB: Driver> InjectMut for OwnTransaction<DB> {
    type Handle = SqlxHandle<DB>;
    type Guard = TransactionLoan<DB>;

    async fn acquire(handle: &Self::Handle, acquire: &Acquire) -> Result<Self::Guard, Error> {
        let begun = handle.begin(acquire).await?;
        Ok(TransactionLoan {
            transaction: Some(Self(begun)),
        })
    }

    async fn conclude(loan: &mut Self::Guard, outcome: Outcome) -> Result<(), Error> {
        // The pool sees the rollback through, and the *finally* waits for the pool.
        let Some(OwnTransaction(mut transaction)) = loan.transaction.take() else {
            return Ok(());
        };
        if outcome != Outcome::Succeeded {
            return Ok(());
        }
        set_committing(false);
        // A `COMMIT` would wait for a statement that the handler has dropped, and make half of it last. The
        // *finally* cancels it.
        let draining = AssertUnwindSafe(DB::drain(&mut transaction)).catch_unwind();
        match timeout(DROPPED_STATEMENT, draining).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) if fault::ends_the_connection(&error) => {
                return Err(fault::lost_before_commit::<DB>(error));
            }
            Ok(Ok(Err(error))) => return Err(fault::dropped_statement_failed::<DB>(error)),
            // sqlx may panic where it has lost its place in the protocol.
            Ok(Err(_)) | Err(_) => return Err(fault::statement_dropped::<DB>()),
        }
        set_committing(true);
        DB::commit(transaction)
            .await
            .map_err(fault::not_committed::<DB>)
    }

    async fn release(_: &Self::Handle, loan: Self::Guard, _: Disposition) {
        drop(loan);
    }
}

impl<DB: Driver> Deref for OwnTransaction<DB> {
    type Target = Transaction<'static, DB>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<DB: Driver> DerefMut for OwnTransaction<DB> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl<DB: Driver> Deref for TransactionLoan<DB> {
    type Target = OwnTransaction<DB>;

    fn deref(&self) -> &Self::Target {
        match &self.transaction {
            Some(transaction) => transaction,
            None => unreachable!("emptied when the handler has returned"),
        }
    }
}

impl<DB: Driver> DerefMut for TransactionLoan<DB> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        match &mut self.transaction {
            Some(transaction) => transaction,
            None => unreachable!("emptied when the handler has returned"),
        }
    }
}

impl<DB: Driver> fmt::Debug for OwnTransaction<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnTransaction").finish_non_exhaustive()
    }
}

impl<DB: Driver> fmt::Debug for TransactionLoan<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionLoan")
            .field("open", &self.transaction.is_some())
            .finish_non_exhaustive()
    }
}
