//! A test function: its event says what to do with the database, and the variable `HANDLER` selects the handler.

use db_handler::{Error, LambdaEvent, db_handler, sqlx};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{env, time::Duration};
use tokio::sync::Barrier;
use tokio::time::timeout;

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
enum Deed {
    /// The id of the session that a query runs in.
    Session,
    /// The same for several sequential queries.
    Sessions { count: usize },
    /// The same for two concurrent queries.
    SideBySide,
    /// Does not use the database.
    Nothing,
    /// A query of this duration.
    Sleep { seconds: f64 },
    /// A statement that the server rejects.
    BadStatement,
    /// An error of the handler itself.
    Fail,
    /// A panic.
    Panic,
    /// All connections of the pool, and one more.
    OneTooMany,
}

macro_rules! handlers {
    (
        $module:ident: $pool:ident, $connection:ident,
        session = $session:literal, sleep = $sleep:literal
    ) => {
        mod $module {
            use super::*;
            use db_handler::sqlx::{$connection, $pool};

            async fn with_pool(deed: Deed, db: &$pool) -> Result<Value, Error> {
                let session = || sqlx::query_scalar::<_, i64>($session).fetch_one(db);
                Ok(match deed {
                    Deed::Session => json!(session().await?),
                    Deed::Sessions { count } => {
                        let mut sessions = Vec::new();
                        for _ in 0..count {
                            sessions.push(session().await?);
                        }
                        json!(sessions)
                    }
                    Deed::SideBySide => {
                        // Neither releases its connection before the other one has one.
                        let both = Barrier::new(2);
                        let side = async || {
                            let mut connection = db.acquire().await?;
                            both.wait().await;
                            sqlx::query_scalar::<_, i64>($session)
                                .fetch_one(&mut *connection)
                                .await
                        };
                        json!(tokio::try_join!(side(), side())?)
                    }
                    Deed::Sleep { seconds } => {
                        sqlx::query($sleep).bind(seconds).execute(db).await?;
                        json!("awake")
                    }
                    Deed::BadStatement => {
                        sqlx::query("SELECT no_such_column").execute(db).await?;
                        json!("accepted")
                    }
                    Deed::OneTooMany => {
                        let mut held = Vec::new();
                        for _ in 0..=db.options().get_max_connections() {
                            held.push(db.acquire().await?);
                        }
                        json!(held.len())
                    }
                    other => without(&other)?,
                })
            }

            async fn with_connection(deed: Deed, db: &mut $connection) -> Result<Value, Error> {
                Ok(match deed {
                    Deed::Session => {
                        json!(sqlx::query_scalar::<_, i64>($session).fetch_one(db).await?)
                    }
                    Deed::Sleep { seconds } => {
                        sqlx::query($sleep).bind(seconds).execute(db).await?;
                        json!("awake")
                    }
                    other => without(&other)?,
                })
            }

            #[db_handler(pool(acquire_ms = 2_000))]
            async fn always(event: LambdaEvent<Deed>, db: &$pool) -> Result<Value, Error> {
                with_pool(event.payload, db).await
            }

            #[db_handler(close = "never")]
            async fn never(event: LambdaEvent<Deed>, db: &$pool) -> Result<Value, Error> {
                with_pool(event.payload, db).await
            }

            #[db_handler(close = "on_error", pool(max = 1))]
            async fn on_error(event: LambdaEvent<Deed>, db: &$pool) -> Result<Value, Error> {
                with_pool(event.payload, db).await
            }

            #[db_handler(close = "on_error", connect = "eager", pool(max = 3, min = 2))]
            async fn eager(event: LambdaEvent<Deed>, db: &$pool) -> Result<Value, Error> {
                with_pool(event.payload, db).await
            }

            #[db_handler(pool(max = 1, acquire_ms = 2_000))]
            async fn single(event: LambdaEvent<Deed>, db: &mut $connection) -> Result<Value, Error> {
                with_connection(event.payload, db).await
            }

            #[db_handler(pool(max = 1), close = "never")]
            async fn single_kept(
                event: LambdaEvent<Deed>,
                db: &mut $connection,
            ) -> Result<Value, Error> {
                with_connection(event.payload, db).await
            }

            #[db_handler(connect = "eager")]
            async fn single_eager(
                event: LambdaEvent<Deed>,
                db: &mut $connection,
            ) -> Result<Value, Error> {
                with_connection(event.payload, db).await
            }

            /// The pool is closed after every invocation, the connection is reused.
            #[db_handler]
            async fn both(
                event: LambdaEvent<Deed>,
                db: &$pool,
                #[db(env = "REPLICA_URL", pool(max = 1), close = "never")] replica: &mut $connection,
            ) -> Result<Value, Error> {
                let main = with_pool(event.payload, db).await?;
                let replica = with_connection(Deed::Session, replica).await?;
                Ok(json!({ "main": main, "replica": replica }))
            }

            /// Boxed errors, as in most Lambda functions.
            #[db_handler(pool(acquire_ms = 2_000))]
            async fn boxed(
                event: LambdaEvent<Deed>,
                db: &$pool,
            ) -> Result<Value, lambda_runtime::Error> {
                if let Deed::OneTooMany = event.payload {
                    let mut held = Vec::new();
                    for _ in 0..=db.options().get_max_connections() {
                        held.push(db.acquire().await?);
                    }
                }
                let session: i64 = sqlx::query_scalar($session).fetch_one(db).await?;
                Ok(json!(session))
            }

            /// A plain function that calls an annotated handler several times per event.
            async fn repeated(event: LambdaEvent<usize>) -> Result<Value, Error> {
                let mut sessions = Vec::new();
                for _ in 0..event.payload {
                    let session = LambdaEvent::new(Deed::Session, event.context.clone());
                    sessions.push(single_kept(session).await?);
                    let session = LambdaEvent::new(Deed::Session, event.context.clone());
                    single(session).await?;
                }
                Ok(json!(sessions))
            }

            /// Keeps a pool and a connection open until it is told to shut down.
            async fn kept(event: LambdaEvent<bool>) -> Result<Value, Error> {
                if event.payload {
                    db_handler::shutdown().await;
                    return Ok(json!("shut down"));
                }
                let session = || LambdaEvent::new(Deed::Session, event.context.clone());
                Ok(json!([never(session()).await?, single_kept(session()).await?]))
            }

            /// Drops one of its calls before it completes.
            async fn impatient(event: LambdaEvent<()>) -> Result<Value, Error> {
                let deed = |deed| LambdaEvent::new(deed, event.context.clone());
                let before = single_kept(deed(Deed::Session)).await?;
                let sleeping = single_kept(deed(Deed::Sleep { seconds: 30.0 }));
                if timeout(Duration::from_millis(200), sleeping).await.is_ok() {
                    return Err(Error::other("it did not sleep"));
                }
                let after = single_kept(deed(Deed::Session)).await?;
                Ok(json!([before, after]))
            }

            pub(super) async fn run(handler: &str) -> Result<(), Error> {
                match handler {
                    "always" => db_handler::run(always).await,
                    "never" => db_handler::run(never).await,
                    "on_error" => db_handler::run(on_error).await,
                    "eager" => db_handler::run(eager).await,
                    "single" => db_handler::run(single).await,
                    "single_kept" => db_handler::run(single_kept).await,
                    "repeated" => db_handler::run(repeated).await,
                    "single_eager" => db_handler::run(single_eager).await,
                    "kept" => db_handler::run(kept).await,
                    "impatient" => db_handler::run(impatient).await,
                    "both" => db_handler::run(both).await,
                    "boxed" => db_handler::run(boxed).await,
                    other => Err(Error::other(format!("no handler {other}"))),
                }
            }
        }
    };
}

handlers! {
    postgres: PgPool, PgConnection,
    session = "SELECT pg_backend_pid()::int8", sleep = "SELECT pg_sleep($1)"
}
handlers! {
    mariadb: MySqlPool, MySqlConnection,
    session = "SELECT CAST(connection_id() AS SIGNED)", sleep = "SELECT sleep(?)"
}

/// Deeds that need no database.
fn without(deed: &Deed) -> Result<Value, Error> {
    match deed {
        Deed::Nothing => Ok(json!("nothing")),
        Deed::Fail => Err(Error::other("told to fail")),
        Deed::Panic => panic!("told to panic"),
        _ => Err(Error::other("this handler cannot do that")),
    }
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Error> {
    let handler = env::var("HANDLER").map_err(Error::other)?;
    match handler.split_once('/') {
        Some(("postgres", handler)) => postgres::run(handler).await,
        Some(("mariadb", handler)) => mariadb::run(handler).await,
        _ => Err(Error::other("HANDLER is postgres/.. or mariadb/..")),
    }
}
