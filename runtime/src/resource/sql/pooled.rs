//! One transaction on a connection through a pooler, for as long as an invocation needs the database.

mod statement;

use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, ready},
    stream::{self, BoxStream},
};
use sqlx::{
    Connection, Either, Execute, Executor, PgConnection, PgTransaction, Postgres, Row, SqlSafeStr,
    SqlStr,
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
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.0.commit().await
    }

    /// Rolls it back.
    ///
    /// # Errors
    /// When the connection is lost; then the server rolls it back.
    pub async fn rollback(self) -> Result<(), sqlx::Error> {
        self.0.rollback().await
    }

    /// Makes `connection` know the types of its database that are not PostgreSQL's own: enums, domains,
    /// composites, those of extensions. Called once, after connecting.
    ///
    /// sqlx asks for a type when it first meets it, between the two steps of a statement, and that question ends
    /// a statement without a name: "unnamed prepared statement does not exist". In a database without such types
    /// this is one round trip; otherwise a few.
    ///
    /// # Errors
    /// When the server refuses, or the connection is lost.
    pub async fn learn_types(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let row = sqlx::raw_sql(OWN_TYPES).fetch_one(&mut *connection).await?;
        let Some(columns) = row.try_get::<Option<String>, _>(0)? else {
            return Ok(());
        };
        // The server has written and quoted these names itself.
        let sql = sqlx::AssertSqlSafe(format!("select {columns}")).into_sql_str();
        for tries_left in (0..NAMES_TRIED).rev() {
            let mut transaction = connection.begin_with("BEGIN").await?;
            // Only a statement with a name survives the questions; it has to go again in the same transaction.
            match (&mut *transaction).prepare(sql.clone()).await {
                Ok(_) => {
                    transaction.clear_cached_statements().await?;
                    return transaction.commit().await;
                }
                // Another client has left this name behind: sqlx's next one is another.
                Err(error) if tries_left > 0 && is_name_taken(&error) => {
                    transaction.rollback().await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// How many names, all of them left behind by other clients, are tried.
const NAMES_TRIED: u32 = 20;

/// A column of each type that is not PostgreSQL's own, and not the row of a table. A `select` cannot have more
/// than 1664 columns.
const OWN_TYPES: &str = "
    select string_agg('null::' || own.oid::regtype, ', ')
    from (
        select type.oid
        from pg_type type
        left join pg_type element on element.oid = type.typelem and type.typcategory = 'A'
        left join pg_class rows on rows.oid = coalesce(nullif(element.typrelid, 0), type.typrelid)
        where type.oid >= 16384 and type.typtype <> 'p' and coalesce(rows.relkind, 'c') = 'c'
        limit 1600
    ) own";

fn is_name_taken(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(|error| error.code().map(|code| code == "42P05"))
        .unwrap_or(false)
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
