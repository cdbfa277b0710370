//! A test function whose event is a list of steps. The variable `HANDLER` selects database, kind of parameter and
//! `close`: `postgres/db/never`.

mod hands;

use db_handler::{
    Context, Db, Error, LambdaEvent, db_handler,
    sqlx::{self, AssertSqlSafe, Connection, MySql, Postgres, Sqlite},
};
use futures_util::{
    TryStreamExt,
    future::{BoxFuture, try_join_all},
};
use hands::Hand;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{env, fs::File, sync::Mutex, time::Duration};
use tokio::{
    sync::Barrier,
    time::{sleep, timeout},
};

#[derive(Deserialize, Clone)]
#[serde(rename_all = "snake_case")]
enum Step {
    /// Statements as text, without parameters and results.
    Run(String),
    /// A prepared query that returns one text.
    Ask(String),
    /// The same; the handler ignores an error.
    Caught(String),
    /// The same on an acquired connection.
    GuardCaught(String),
    /// The same in a nested transaction, which is rolled back.
    InnerCaught(String),
    /// Several concurrent queries, each on the parameter itself.
    Together(Vec<String>),
    /// The same query on `count` connections, acquired at the same time.
    Guards { count: usize, sql: String },
    /// Reads all rows as a stream, and returns their number.
    Rows(String),
    /// Rows as pairs.
    Pairs(String),
    /// A query that is dropped after `ms` milliseconds.
    GiveUp { sql: String, ms: u64 },
    /// The same on an acquired connection, which is released.
    GuardGivesUp { sql: String, ms: u64 },
    /// The first row of many.
    FirstRow(String),
    /// The first row of several statements.
    FirstOf(String),
    /// Acquires a connection, does the deed of this name with it, and releases it.
    Hand(String),
    /// A transaction around `sql` and the deed `hand`, which ends as `end` says.
    Transaction {
        sql: String,
        hand: Option<String>,
        end: End,
    },
    /// Uses a leaked clone in a separate task, `ms` later.
    Escape { sql: String, ms: u64 },
    /// Waits.
    Linger(u64),
    /// Writes a log line.
    Say(String),
    /// An error of the handler itself.
    Fail,
    /// A panic.
    Panic,
    /// Calls the handler itself, and drops its future after `ms`.
    Dropped { steps: Vec<Step>, ms: u64 },
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum End {
    Commit,
    Rollback,
    Drop,
    /// Its guard is leaked.
    Forget,
    /// An early return with `?`.
    Fail,
    /// A nested one is rolled back, and the outer one is committed.
    Nested,
    /// The guard of a nested one is leaked, and the outer one is committed.
    Leaked,
    /// A failed statement is ignored, and the transaction is committed.
    Careless,
}

/// The result of a query that the handler dropped.
const DROPPED: &str = "dropped";

/// The result of a query, or [`DROPPED`] after `ms`.
async fn within(
    ms: u64,
    asking: impl Future<Output = Result<Option<String>, sqlx::Error>>,
) -> Result<Value, Error> {
    match timeout(Duration::from_millis(ms), asking).await {
        Ok(answer) => Ok(json!(answer?)),
        Err(_) => Ok(json!(DROPPED)),
    }
}

fn failed() -> Error {
    Error::other("told to fail")
}

/// Steps that are the same for all parameters.
async fn common(step: Step) -> Result<Value, Error> {
    match step {
        Step::Linger(ms) => {
            sleep(Duration::from_millis(ms)).await;
            Ok(json!("lingered"))
        }
        Step::Say(word) => {
            tracing::info!("{word}");
            Ok(Value::Null)
        }
        Step::Fail => Err(failed()),
        Step::Panic => panic!("told to panic"),
        _ => Err(Error::other("this handler cannot do that")),
    }
}

/// `&Db<..>` and sqlx's pool have the same methods, but no common trait.
macro_rules! shared {
    ($name:ident, $resource:ty) => {
        #[expect(clippy::too_many_lines, reason = "an arm for each step")]
        async fn $name(steps: Vec<Step>, db: &$resource) -> Result<Value, Error> {
            let ask = |sql: String| {
                sqlx::query_scalar::<_, Option<String>>(AssertSqlSafe(sql)).fetch_one(db)
            };
            let mut answers = Vec::new();
            for step in steps {
                answers.push(match step {
                    Step::Run(sql) => {
                        sqlx::raw_sql(AssertSqlSafe(sql)).execute(db).await?;
                        Value::Null
                    }
                    Step::Ask(sql) => json!(ask(sql).await?),
                    Step::Caught(sql) => json!(ask(sql).await.is_ok()),
                    Step::GuardCaught(sql) => {
                        let mut guard = db.acquire().await?;
                        let answer = sqlx::query_scalar::<_, Option<String>>(AssertSqlSafe(sql));
                        json!(answer.fetch_one(&mut *guard).await.is_ok())
                    }
                    Step::Together(queries) => {
                        json!(try_join_all(queries.into_iter().map(ask)).await?)
                    }
                    Step::Guards { count, sql } => {
                        // No connection is released before all are acquired.
                        let all = Barrier::new(count);
                        let one = async || {
                            let mut guard = db.acquire().await?;
                            all.wait().await;
                            let answer: Option<String> =
                                sqlx::query_scalar(AssertSqlSafe(sql.clone()))
                                    .fetch_one(&mut *guard)
                                    .await?;
                            Ok::<_, Error>(answer)
                        };
                        json!(try_join_all((0..count).map(|_| one())).await?)
                    }
                    Step::Rows(sql) => {
                        let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(db);
                        let mut count = 0;
                        while rows.try_next().await?.is_some() {
                            count += 1;
                        }
                        json!(count)
                    }
                    Step::Pairs(sql) => {
                        let pairs: Vec<(i64, String)> =
                            sqlx::query_as(AssertSqlSafe(sql)).fetch_all(db).await?;
                        json!(pairs)
                    }
                    Step::GiveUp { sql, ms } => within(ms, ask(sql)).await?,
                    Step::GuardGivesUp { sql, ms } => {
                        let mut guard = db.acquire().await?;
                        let query = sqlx::query_scalar(AssertSqlSafe(sql));
                        within(ms, query.fetch_one(&mut *guard)).await?
                    }
                    Step::FirstRow(sql) => {
                        let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(db);
                        json!(rows.try_next().await?.is_some())
                    }
                    Step::FirstOf(sql) => {
                        let statements = sqlx::raw_sql(AssertSqlSafe(sql));
                        json!(statements.fetch_optional(db).await?.is_some())
                    }
                    Step::Hand(deed) => {
                        let mut guard = db.acquire().await?;
                        (*guard).leave(&deed).await;
                        Value::Null
                    }
                    Step::Transaction { sql, hand, end } => {
                        let mut transaction = db.begin().await?;
                        sqlx::raw_sql(AssertSqlSafe(sql.clone()))
                            .execute(&mut *transaction)
                            .await?;
                        if let Some(deed) = hand {
                            (*transaction).leave(&deed).await;
                        }
                        match end {
                            End::Commit => transaction.commit().await?,
                            End::Rollback => transaction.rollback().await?,
                            End::Drop => drop(transaction),
                            End::Forget => std::mem::forget(transaction),
                            End::Fail => return Err(failed()),
                            End::Nested => {
                                let mut inner = (*transaction).begin().await?;
                                sqlx::raw_sql(AssertSqlSafe(sql))
                                    .execute(&mut *inner)
                                    .await?;
                                inner.rollback().await?;
                                transaction.commit().await?;
                            }
                            End::Leaked => {
                                std::mem::forget((*transaction).begin().await?);
                                transaction.commit().await?;
                            }
                            End::Careless => {
                                let _ = sqlx::raw_sql("SELECT no_such_column")
                                    .execute(&mut *transaction)
                                    .await;
                                transaction.commit().await?;
                            }
                        }
                        Value::Null
                    }
                    Step::Escape { sql, ms } => {
                        let escaped = db.clone();
                        tokio::spawn(async move {
                            sleep(Duration::from_millis(ms)).await;
                            let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&escaped).await;
                            if let Err(error) = done {
                                let error = Error::from(error);
                                tracing::info!(escaped = error.error_type(), "the clone: {error}");
                            }
                        });
                        Value::Null
                    }
                    other => common(other).await?,
                });
            }
            Ok(json!(answers))
        }
    };
}

/// An annotated handler, or a wrapper that drops it. One type for all of them, so that `run` is compiled once.
type Caller = fn(LambdaEvent<Vec<Step>>) -> BoxFuture<'static, Result<Value, Error>>;

macro_rules! database {
    ($module:ident: $database:ident, $pool:ident, $connection:ident, $transaction:ident) => {
        mod $module {
            use super::*;
            use db_handler::sqlx::{$connection, $pool, $transaction};

            shared!(with_db, Db<$database>);
            shared!(with_pool, $pool);

            async fn with_connection(
                steps: Vec<Step>,
                db: &mut $connection,
            ) -> Result<Value, Error> {
                let mut answers = Vec::new();
                for step in steps {
                    answers.push(match step {
                        Step::Run(sql) => {
                            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *db).await?;
                            Value::Null
                        }
                        Step::Ask(sql) => {
                            let answer: Option<String> = sqlx::query_scalar(AssertSqlSafe(sql))
                                .fetch_one(&mut *db)
                                .await?;
                            json!(answer)
                        }
                        Step::GiveUp { sql, ms } => {
                            let query = sqlx::query_scalar(AssertSqlSafe(sql));
                            within(ms, query.fetch_one(&mut *db)).await?
                        }
                        Step::FirstRow(sql) => {
                            let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(&mut *db);
                            json!(rows.try_next().await?.is_some())
                        }
                        Step::Hand(deed) => {
                            db.leave(&deed).await;
                            Value::Null
                        }
                        Step::Caught(sql) => {
                            let answer =
                                sqlx::query_scalar::<_, Option<String>>(AssertSqlSafe(sql));
                            json!(answer.fetch_one(&mut *db).await.is_ok())
                        }
                        Step::InnerCaught(sql) => {
                            let mut inner = db.begin().await?;
                            let answer =
                                sqlx::query_scalar::<_, Option<String>>(AssertSqlSafe(sql));
                            let answered = answer.fetch_one(&mut *inner).await.is_ok();
                            inner.rollback().await?;
                            json!(answered)
                        }
                        Step::Transaction { sql, hand, end } => {
                            let mut transaction = db.begin().await?;
                            sqlx::raw_sql(AssertSqlSafe(sql))
                                .execute(&mut *transaction)
                                .await?;
                            if let Some(deed) = hand {
                                (*transaction).leave(&deed).await;
                            }
                            match end {
                                End::Commit => transaction.commit().await?,
                                End::Rollback => transaction.rollback().await?,
                                End::Drop => drop(transaction),
                                End::Forget => std::mem::forget(transaction),
                                _ => return Err(failed()),
                            }
                            Value::Null
                        }
                        other => common(other).await?,
                    });
                }
                Ok(json!(answers))
            }

            async fn with_transaction(
                steps: Vec<Step>,
                db: &mut $transaction<'_>,
            ) -> Result<Value, Error> {
                with_connection(steps, &mut **db).await
            }

            database!(@handlers db, with_db, &Db<$database>);
            database!(@handlers pool, with_pool, &$pool);
            database!(@handlers single, with_connection, &mut $connection);
            database!(@handlers transaction, with_transaction, &mut $transaction<'_>);

            pub(super) fn caller(kind: &str, close: &str) -> Result<Caller, Error> {
                match kind {
                    "db" => db::caller(close),
                    "pool" => pool::caller(close),
                    "single" => single::caller(close),
                    "transaction" => transaction::caller(close),
                    other => Err(Error::other(format!("no kind {other}"))),
                }
            }
        }
    };
    (@handlers $kind:ident, $with:ident, $($resource:tt)+) => {
        mod $kind {
            use super::*;

            #[db_handler(close = "always", pool(acquire_ms = 1_500))]
            async fn always(event: LambdaEvent<Vec<Step>>, db: $($resource)+) -> Result<Value, Error> {
                $with(event.payload, db).await
            }

            #[db_handler(close = "on_error", pool(acquire_ms = 1_500))]
            async fn on_error(event: LambdaEvent<Vec<Step>>, db: $($resource)+) -> Result<Value, Error> {
                $with(event.payload, db).await
            }

            #[db_handler(close = "never", pool(acquire_ms = 1_500))]
            async fn never(event: LambdaEvent<Vec<Step>>, db: $($resource)+) -> Result<Value, Error> {
                $with(event.payload, db).await
            }

            /// With time to acquire and to cancel on a busy machine.
            #[db_handler(close = "always", pool(acquire_ms = 5_000), deadline(reserve_ms = 5_000))]
            async fn patient_always(event: LambdaEvent<Vec<Step>>, db: $($resource)+) -> Result<Value, Error> {
                $with(event.payload, db).await
            }

            #[db_handler(close = "never", pool(acquire_ms = 5_000), deadline(reserve_ms = 5_000))]
            async fn patient_never(event: LambdaEvent<Vec<Step>>, db: $($resource)+) -> Result<Value, Error> {
                $with(event.payload, db).await
            }

            /// Loses no connection on a busy machine: none is pinged, and a reset has seconds.
            #[db_handler(
                close = "never",
                pool(acquire_ms = 5_000),
                check(trust_ms = 60_000, ping_ms = 5_000),
                deadline(reserve_ms = 5_000)
            )]
            async fn steady_never(event: LambdaEvent<Vec<Step>>, db: $($resource)+) -> Result<Value, Error> {
                $with(event.payload, db).await
            }

            /// With connections for many concurrent invocations.
            #[db_handler(close = "always", pool(max = 16, acquire_ms = 10_000), deadline(reserve_ms = 5_000))]
            async fn wide_always(event: LambdaEvent<Vec<Step>>, db: $($resource)+) -> Result<Value, Error> {
                $with(event.payload, db).await
            }

            #[db_handler(close = "never", pool(max = 16, acquire_ms = 10_000), deadline(reserve_ms = 5_000))]
            async fn wide_never(event: LambdaEvent<Vec<Step>>, db: $($resource)+) -> Result<Value, Error> {
                $with(event.payload, db).await
            }

            pub(super) fn caller(close: &str) -> Result<Caller, Error> {
                match close {
                    "steady_never" => Ok(database!(@caller steady_never)),
                    "wide_always" => Ok(database!(@caller wide_always)),
                    "wide_never" => Ok(database!(@caller wide_never)),
                    "patient_always" => Ok(database!(@caller patient_always)),
                    "patient_never" => Ok(database!(@caller patient_never)),
                    "always" => Ok(database!(@caller always)),
                    "on_error" => Ok(database!(@caller on_error)),
                    "never" => Ok(database!(@caller never)),
                    other => Err(Error::other(format!("no close {other}"))),
                }
            }
        }
    };
    (@caller $handler:ident) => {{
        async fn caller(event: LambdaEvent<Vec<Step>>) -> Result<Value, Error> {
            let [Step::Dropped { steps, ms }] = event.payload.as_slice() else {
                return $handler(event).await;
            };
            let inner = LambdaEvent::new(steps.clone(), Context::default());
            match timeout(Duration::from_millis(*ms), $handler(inner)).await {
                Ok(answer) => answer,
                Err(_) => Ok(json!([DROPPED])),
            }
        }
        |event| Box::pin(caller(event))
    }};
}

/// Calls a handler without `run`, and drops it.
async fn alone(handler: impl Future<Output = Result<Value, Error>>) -> Result<(), Error> {
    let _ = timeout(Duration::from_secs(2), handler).await;
    println!("dropped");
    sleep(Duration::from_secs(20)).await;
    Ok(())
}

database!(postgres: Postgres, PgPool, PgConnection, PgTransaction);
database!(mariadb: MySql, MySqlPool, MySqlConnection, MySqlTransaction);
database!(sqlite: Sqlite, SqlitePool, SqliteConnection, SqliteTransaction);

/// Logs everything to the file `LOG`.
fn log() -> Result<(), Error> {
    if let Some(path) = env::var_os("LOG") {
        let file = File::options().create(true).append(true).open(path)?;
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(Mutex::new(file))
            .init();
    }
    Ok(())
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Error> {
    log()?;
    let handler = env::var("HANDLER").map_err(Error::other)?;
    let parts: Vec<&str> = handler.split('/').collect();
    let caller = match parts.as_slice() {
        ["postgres", kind, close] => postgres::caller(kind, close),
        ["mariadb", kind, close] => mariadb::caller(kind, close),
        ["sqlite", kind, close] => sqlite::caller(kind, close),
        _ => Err(Error::other("HANDLER is database/kind/close")),
    }?;
    if let Ok(steps) = env::var("ALONE") {
        let steps = serde_json::from_str(&steps)?;
        return alone(caller(LambdaEvent::new(steps, Context::default()))).await;
    }
    db_handler::run(caller).await
}
