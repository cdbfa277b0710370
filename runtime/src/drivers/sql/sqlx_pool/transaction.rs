//! A transaction for the whole invocation: `&mut PgTransaction<'_>` and its siblings.

use crate::{
    drivers::sql::{SqlxHandle, commit, driver::Driver, error},
    error::Error,
    resource::{
        Acquire, Disposition, InjectMut, Outcome,
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
    /// How long what the handler has dropped may take to come to its end.
    ready_within: Duration,
}

impl<DB: Driver> InjectMut for OwnTransaction<DB> {
    type Handle = SqlxHandle<DB>;
    type Guard = TransactionLoan<DB>;

    async fn acquire(handle: &Self::Handle, acquire: &Acquire) -> Result<Self::Guard, Error> {
        let begun = handle.begin(acquire).await?;
        Ok(TransactionLoan {
            transaction: Some(Self(begun)),
            ready_within: handle.ready_within(),
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
        // The *finally* cancels what still runs.
        commit::ready::<DB>(&mut transaction, loan.ready_within).await?;
        set_committing(true);
        DB::commit(transaction)
            .await
            .map_err(error::not_committed::<DB>)
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

/// sqlx's own type, whatever its lifetime: see [`OwnTransaction`].
#[diagnostic::do_not_recommend]
impl<DB: Driver> ByMut for Transaction<'_, DB> {
    type Param = MutParam<OwnTransaction<DB>>;
}
