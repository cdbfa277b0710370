//! One transaction on a connection through a pooler, for as long as an invocation needs the database.

mod statement;

use super::{
    Db, Lent,
    driver::Driver,
    fault,
    link::becomes_quiet,
    postgres::{COMMIT, literal},
    silent::silently,
};
use crate::{
    config::{Proxy, QUIET},
    error::Error,
    resource::{Acquire, Exclusive, Fate, Outcome},
};
use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, ready},
    stream::{self, BoxStream},
};
use sqlx::{
    AssertSqlSafe, Connection, Either, Execute, Executor, PgConnection, Postgres, Row, SqlSafeStr,
    SqlStr,
    error::BoxDynError,
    postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
    raw_sql,
};
use sqlx_core::describe::Describe;
use std::fmt;
use tokio::time::{timeout, timeout_at};

/// A transaction for the whole invocation in which every statement is unnamed: what is right behind a PgBouncer
/// that pools transactions.
///
/// Such a pooler gives each *transaction* a connection to the server. sqlx sends a statement in two steps,
/// and the server knows it by a name: between two transactions, and between the two steps outside of one, that
/// may be another client's connection, on which the same name means another statement. The rows of a
/// query that somebody else asked come back, without an error. Inside one transaction, with statements
/// that have no name, nothing can get in between.
///
/// A handler takes it by `&mut`. It is begun before the handler, committed when the handler returns `Ok`, and
/// rolled back after an `Err`, a panic or at the deadline:
///
/// ```no_run
/// use db_handler::{Error, LambdaEvent, db_handler, resource::sql::PooledTransaction, sqlx};
///
/// #[db_handler(proxy = "pgbouncer", close = "never")]
/// async fn order(event: LambdaEvent<String>, db: &mut PooledTransaction) -> Result<i64, Error> {
///     let id = sqlx::query_scalar("INSERT INTO orders (item) VALUES ($1) RETURNING id")
///         .bind(event.payload)
///         .fetch_one(db)
///         .await?;
///     Ok(id)
/// }
/// ```
///
/// Refused before it is sent is a statement that would end the transaction (`COMMIT`, `ROLLBACK` ..), because
/// whatever followed it would be outside, and one that would outlive it in a session which the next client gets
/// (`SET` without `LOCAL`, `RESET`, `DISCARD`, `LISTEN`, `PREPARE`, `DEALLOCATE`, `LOAD`). `SAVEPOINT`, `ROLLBACK TO`
/// and `SET LOCAL` are fine. What cannot be told from a statement's first words is up to you: no session locks
/// (`pg_advisory_xact_lock` instead of `pg_advisory_lock`), no `set_config(.., false)`, temporary tables with
/// `ON COMMIT DROP`, no cursor `WITH HOLD`.
///
/// Behind RDS Proxy, a kept connection is closed after an invocation for one of whose statements the proxy pins a session (`SET
/// LOCAL`, `nextval`, locks, temporary tables, cursors, a text above 16 KB), so that nothing stays pinned.
///
/// For each connection, sqlx is made to ask for the database's own types (enums, domains, composites) before the
/// first transaction: one round trip in a database without such types, otherwise a few. It would ask in the
/// middle of a statement, which then fails.
pub struct PooledTransaction {
    /// Empty only when it is put back.
    lent: Option<Lent<Postgres>>,
    progress: Progress,
    proxy: Option<Proxy>,
    /// RDS Proxy may keep the session for this connection alone until that is closed.
    pinned: bool,
}

/// How far a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Nobody has begun to end it.
    Open,
    /// Its end was sent, and has not been answered.
    Ending,
    Ended,
}

impl Exclusive for PooledTransaction {
    type Resource = Db<Postgres>;
    type Loan = Box<Self>;

    async fn take(db: &Db<Postgres>, acquire: &Acquire) -> Result<Box<Self>, Error> {
        loop {
            let mut lent = db.lend(acquire).await?;
            let was_kept = lent.memory().types;
            let proxy = acquire.settings().proxy;
            let error = match timeout_at(acquire.until(), begin(&mut lent, proxy)).await {
                Ok(Ok(())) => {
                    return Ok(Box::new(Self {
                        lent: Some(lent),
                        progress: Progress::Open,
                        proxy,
                        pinned: false,
                    }));
                }
                Ok(Err(error)) => error,
                Err(_) => {
                    lent.leave();
                    return Err(acquire
                        .timed_out("beginning a transaction")
                        .adding(" Behind a pooler: has it a connection to the server to spare?"));
                }
            };
            lent.leave();
            // A kept connection whose other end has gone: nothing has happened on it yet.
            if !(was_kept && fault::ends_the_connection(&error)) {
                return Err(fault::connecting::<Postgres>(acquire, db.target(), error));
            }
        }
    }

    async fn conclude(loan: &mut Box<Self>, outcome: Outcome) -> Result<(), Error> {
        match outcome {
            Outcome::Succeeded => loan
                .commit()
                .await
                .map_err(fault::not_committed::<Postgres>),
            Outcome::Failed => {
                loan.roll_back().await;
                Ok(())
            }
        }
    }

    async fn put_back(db: &Db<Postgres>, mut loan: Box<Self>, fate: Fate) {
        if fate != Fate::Discarded {
            loan.roll_back().await;
        }
        let Some(lent) = loan.lent.take() else { return };
        match (loan.progress, fate) {
            // The pooler may already have given the server's side to somebody else.
            (Progress::Ending, _) => lent.leave(),
            (Progress::Ended, Fate::Kept) if loan.pinned => db.put_back(lent, Fate::Closed).await,
            // Nothing is left in the session that could be undone, and it is not ours any more.
            (Progress::Ended, Fate::Kept) if loan.proxy.is_some() => lent.give_back(),
            _ => db.put_back(lent, fate).await,
        }
    }
}

impl PooledTransaction {
    async fn commit(&mut self) -> Result<(), sqlx::Error> {
        // A query that was given up half-way comes to its end first.
        Postgres::drain(self.connection()).await?;
        self.progress = Progress::Ending;
        let committed = raw_sql(COMMIT).execute(self.connection()).await;
        match committed {
            Ok(_) => self.progress = Progress::Ended,
            Err(error) => {
                if !fault::ends_the_connection(&error) {
                    self.progress = Progress::Open;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Rolls back, unless something is still running: that has to be stopped on the server.
    async fn roll_back(&mut self) {
        if self.progress != Progress::Open
            || !becomes_quiet::<Postgres>(self.connection(), QUIET).await
        {
            return;
        }
        self.progress = Progress::Ending;
        // After a commit that failed there is none to roll back, and the server says so in a warning.
        let rolling_back = silently(raw_sql("ROLLBACK").execute(self.connection()));
        if let Ok(Ok(_)) = timeout(QUIET, rolling_back).await {
            self.progress = Progress::Ended;
        }
    }

    fn note(&mut self, sql: &str) {
        self.pinned |= self.proxy == Some(Proxy::Rds) && statement::may_pin(sql);
    }

    fn connection(&mut self) -> &mut PgConnection {
        match &mut self.lent {
            Some(lent) => lent,
            None => unreachable!("emptied when it is put back"),
        }
    }
}

impl Drop for PooledTransaction {
    fn drop(&mut self) {
        if let Some(lent) = self.lent.take()
            && self.progress == Progress::Ending
        {
            lent.leave();
        }
    }
}

/// Begins a transaction; behind a PgBouncer it has the name of the connection, which no session there keeps
/// beyond the transaction.
async fn begin(lent: &mut Lent<Postgres>, proxy: Option<Proxy>) -> Result<(), sqlx::Error> {
    if !lent.memory().types {
        learn_types(lent).await?;
        lent.memory().types = true;
    }
    let begin = match proxy {
        Some(Proxy::PgBouncer) => {
            let name = literal(lent.session().name());
            format!("BEGIN; SET LOCAL application_name ={name}")
        }
        _ => "BEGIN".to_owned(),
    };
    // The name is ours, and quoted.
    let begin = raw_sql(AssertSqlSafe(begin));
    silently(begin.execute(&mut **lent)).await.map(drop)
}

/// Makes `connection` know the types of its database that are not PostgreSQL's own: enums, domains,
/// composites, those of extensions. Called once, after connecting.
///
/// sqlx asks for a type when it first meets it, between the two steps of a statement, and that question ends
/// a statement without a name: "unnamed prepared statement does not exist". In a database without such types
/// this is one round trip; otherwise a few.
async fn learn_types(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let row = raw_sql(OWN_TYPES).fetch_one(&mut *connection).await?;
    let Some(columns) = row.try_get::<Option<String>, _>(0)? else {
        return Ok(());
    };
    // The server has written and quoted these names itself.
    let sql = AssertSqlSafe(format!("select {columns}")).into_sql_str();
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

impl fmt::Debug for PooledTransaction {
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
        if let Some(refused) = statement::refused(sql.as_str()) {
            return Err(sqlx::Error::Protocol(refused.to_string()));
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

impl<'t> Executor<'t> for &'t mut PooledTransaction {
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
            Ok(query) => {
                self.note(query.sql.as_str());
                self.connection().fetch_many(query)
            }
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
            Ok(query) => {
                self.note(query.sql.as_str());
                self.connection().fetch_optional(query)
            }
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

    // Required by sqlx's hidden feature `offline`, which its default features switch on.
    fn describe<'e>(self, _: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, sqlx::Error>>
    where
        't: 'e,
    {
        let refused = sqlx::Error::Protocol(
            "a statement cannot be described behind a pooler: sqlx would prepare it by name"
                .to_owned(),
        );
        ready(Err(refused)).boxed()
    }
}
