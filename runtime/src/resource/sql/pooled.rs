//! One transaction on a connection through a pooler, for as long as an invocation needs the database.

mod statement;

use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, ready},
    stream::{self, BoxStream},
};
use sqlx::{
    Connection, Either, Execute, Executor, PgConnection, PgTransaction, Postgres, SqlStr,
    error::BoxDynError,
    postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use std::fmt;

/// A transaction in which every statement is unnamed: what is right behind a PgBouncer that pools
/// transactions.
///
/// Such a pooler gives each *transaction* a connection to the server. sqlx sends a statement in two steps,
/// and the server knows it by a name: between two transactions, and between the two steps outside of one, that
/// may be another client's connection, on which the same name means another statement. The rows of a
/// query that somebody else asked come back, without an error. Inside one transaction, with statements
/// that have no name, nothing can get in between.
///
/// ```no_run
/// use db_handler::{
///     Error,
///     resource::sql::PooledTransaction,
///     sqlx::{self, PgConnection},
/// };
///
/// async fn order(connection: &mut PgConnection, item: &str) -> Result<i64, Error> {
///     let mut db = PooledTransaction::begin(connection).await?;
///     let id = sqlx::query_scalar("INSERT INTO orders (item) VALUES ($1) RETURNING id")
///         .bind(item)
///         .fetch_one(&mut db)
///         .await?;
///     db.commit().await?;
///     Ok(id)
/// }
/// ```
///
/// A statement that would end the transaction (`COMMIT`, `ROLLBACK` ..) is refused before it is sent, because
/// whatever followed it would be outside; `SAVEPOINT` and `ROLLBACK TO` are fine. Dropped without
/// [`commit`](Self::commit), it is rolled back.
#[must_use = "a transaction that is dropped is rolled back"]
pub struct PooledTransaction<'c>(PgTransaction<'c>);

impl<'c> PooledTransaction<'c> {
    /// Begins a transaction.
    ///
    /// # Errors
    /// When the server does not, or the connection is in a transaction already.
    pub async fn begin(connection: &'c mut PgConnection) -> Result<Self, sqlx::Error> {
        // With a statement given, sqlx refuses to make it a savepoint.
        connection.begin_with("BEGIN").await.map(Self)
    }

    /// Commits it.
    ///
    /// # Errors
    /// When the server cannot: nothing of it has happened then, or, if the connection was lost, perhaps
    /// all of it.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        self.leave_no_name().await?;
        self.0.commit().await
    }

    /// Rolls it back.
    ///
    /// # Errors
    /// When the connection is lost; then the server rolls it back.
    pub async fn rollback(mut self) -> Result<(), sqlx::Error> {
        // In a transaction that has failed, the server closes statements all the same.
        self.leave_no_name().await?;
        self.0.rollback().await
    }

    /// sqlx looks up types that it does not know (an enum, a composite) by statements of its own, and
    /// these have names. The next client of the server's connection must not meet them.
    async fn leave_no_name(&mut self) -> Result<(), sqlx::Error> {
        if self.0.cached_statements_size() > 0 {
            self.0.clear_cached_statements().await?;
        }
        Ok(())
    }
}

impl fmt::Debug for PooledTransaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledTransaction").finish_non_exhaustive()
    }
}

/// A query without a name, whatever it was before.
struct Unnamed {
    sql: SqlStr,
    statement: Option<PgStatement>,
    arguments: Option<Result<Option<PgArguments>, BoxDynError>>,
}

impl Unnamed {
    fn new<'q>(mut query: impl Execute<'q, Postgres>) -> Result<Self, sqlx::Error> {
        let statement = query.statement().cloned();
        let arguments = Some(query.take_arguments());
        let sql = query.sql();
        if let Some(word) = statement::ends_a_transaction(sql.as_str()) {
            return Err(sqlx::Error::Protocol(format!(
                "`{word}` would end the one transaction that everything has to be in behind a pooler: leave that to the end of the handler, or undo a part with `SAVEPOINT` and `ROLLBACK TO`"
            )));
        }
        Ok(Self {
            sql,
            statement,
            arguments,
        })
    }
}

impl Execute<'_, Postgres> for Unnamed {
    fn sql(self) -> SqlStr {
        self.sql
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.statement.as_ref()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        self.arguments.take().unwrap_or(Ok(None))
    }

    fn persistent(&self) -> bool {
        false
    }
}

impl<'t> Executor<'t> for &'t mut PooledTransaction<'_> {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        't: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match Unnamed::new(query) {
            Ok(query) => (&mut *self.0).fetch_many(query),
            Err(refused) => stream::once(ready(Err(refused))).boxed(),
        }
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        't: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match Unnamed::new(query) {
            Ok(query) => (&mut *self.0).fetch_optional(query),
            Err(refused) => ready(Err(refused)).boxed(),
        }
    }

    fn prepare_with<'e>(
        self,
        _: SqlStr,
        _: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        't: 'e,
    {
        let refused = sqlx::Error::Protocol(
            "a statement cannot be prepared behind a pooler: run the query itself".to_owned(),
        );
        ready(Err(refused)).boxed()
    }
}
