//! A transaction for the whole invocation: `&mut PgTransaction<'_>` and its siblings.

use crate::{
    drivers::sql::{SqlxHandle, commit, driver::Driver},
    error::Error,
    resource::{
        AcquireContext, Disposition, InjectMut,
        param::{ByMut, MutParam},
        running::set_committing,
    },
};
use sqlx::Transaction;
use std::{
    fmt,
    ops::{Deref, DerefMut},
    time::Duration,
};

/// The transaction behind a handler's `&mut PgTransaction<'_>` and its siblings: begun before the handler, committed
/// when it returns `Ok`, rolled back otherwise. Its connection comes from its own pool.
///
/// It exists between sqlx's type and [`InjectMut`] because of that type's lifetime: the compiler cannot tell whether a
/// future is `Send` if that depends on a trait that is implemented for `'static` only.
pub struct OwnTransaction<DB: Driver>(Transaction<'static, DB>);

/// Holds an [`OwnTransaction`]. Dropping it rolls back the transaction.
pub struct TransactionGuard<DB: Driver> {
    /// `None` only after the handler has returned.
    transaction: Option<OwnTransaction<DB>>,
    /// How long a dropped statement may take to end.
    ready_within: Duration,
}

impl<DB: Driver> InjectMut for OwnTransaction<DB> {
    type Handle = SqlxHandle<DB>;
    type Guard = TransactionGuard<DB>;

    async fn acquire(
        handle: &Self::Handle,
        acquire: &AcquireContext,
    ) -> Result<Self::Guard, Error> {
        let begun = handle.begin(acquire).await?;
        Ok(TransactionGuard {
            transaction: Some(Self(begun)),
            ready_within: handle.ready_within(),
        })
    }

    async fn commit(guard: &mut Self::Guard) -> Result<(), Error> {
        let Some(OwnTransaction(mut transaction)) = guard.transaction.take() else {
            return Ok(());
        };
        set_committing(false);
        // The cleanup cancels statements that still run.
        commit::ready::<DB>(&mut transaction, guard.ready_within).await?;
        set_committing(true);
        commit::commit::<DB>(&mut transaction).await
    }

    async fn rollback(guard: &mut Self::Guard) {
        // The pool sends the rollback, and the cleanup waits for the pool.
        drop(guard.transaction.take());
    }

    async fn release(_: &Self::Handle, guard: Self::Guard, _: Disposition) {
        drop(guard);
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

impl<DB: Driver> Deref for TransactionGuard<DB> {
    type Target = OwnTransaction<DB>;

    fn deref(&self) -> &Self::Target {
        match &self.transaction {
            Some(transaction) => transaction,
            None => unreachable!("emptied when the handler has returned"),
        }
    }
}

impl<DB: Driver> DerefMut for TransactionGuard<DB> {
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

impl<DB: Driver> fmt::Debug for TransactionGuard<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionLoan")
            .field("open", &self.transaction.is_some())
            .finish_non_exhaustive()
    }
}

/// sqlx's own type with any lifetime: see [`OwnTransaction`].
#[diagnostic::do_not_recommend]
impl<DB: Driver> ByMut for Transaction<'_, DB> {
    type Param = MutParam<OwnTransaction<DB>>;
}
