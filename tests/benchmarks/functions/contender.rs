//! Every contender that is written in Rust. `CONTENDER` says which one it is: `postgres/floor`, `mariadb/pool_always` ...
//!
//! All do the same for an event: so many queries, one after the other, each for one row by its key.

use db_handler::{
    Db, Error, LambdaEvent, db_handler,
    sqlx::{self, ConnectOptions, Connection, Executor},
};
use lambda_runtime::service_fn;
use serde::{Deserialize, Serialize};
use std::{env, time::Duration};
use tokio::sync::Mutex;

/// The guide's own settings, for the pools that are written by hand.
const MAX_CONNECTIONS: u32 = 2;
const ACQUIRE: Duration = Duration::from_millis(3_000);

#[derive(Clone, Copy, Deserialize)]
struct Work {
    /// How many queries, one after the other.
    queries: i32,
    /// How long the server holds the first one, in milliseconds.
    #[serde(default)]
    hold_ms: f64,
}

#[derive(Serialize)]
struct Done {
    /// Characters read: nothing that was asked for may be left out.
    read: usize,
}

macro_rules! contenders {
    (
        $module:ident: $database:ident, $pool:ident, $pool_options:ident, $connection:ident, $connect_options:ident,
        find = $find:literal, hold = $hold:literal
    ) => {
        mod $module {
            use super::*;
            use db_handler::sqlx::{
                $connection, $database,
                $module::{$connect_options, $pool_options},
                $pool,
            };

            /// With what runs queries by shared reference: a pool, or our handle.
            async fn with_shared<D>(work: Work, db: &D) -> Result<Done, sqlx::Error>
            where
                for<'db> &'db D: Executor<'db, Database = $database>,
            {
                if work.hold_ms > 0.0 {
                    sqlx::query($hold)
                        .bind(work.hold_ms / 1000.0)
                        .execute(db)
                        .await?;
                }
                let mut read = 0;
                for id in 1..=work.queries {
                    let name: String = sqlx::query_scalar($find).bind(id).fetch_one(db).await?;
                    read += name.len();
                }
                Ok(Done { read })
            }

            async fn with_connection(
                work: Work,
                db: &mut $connection,
            ) -> Result<Done, sqlx::Error> {
                if work.hold_ms > 0.0 {
                    sqlx::query($hold)
                        .bind(work.hold_ms / 1000.0)
                        .execute(&mut *db)
                        .await?;
                }
                let mut read = 0;
                for id in 1..=work.queries {
                    let name: String = sqlx::query_scalar($find)
                        .bind(id)
                        .fetch_one(&mut *db)
                        .await?;
                    read += name.len();
                }
                Ok(Done { read })
            }

            // --- by hand ---

            fn connect_options() -> Result<$connect_options, Error> {
                let url = env::var("DATABASE_URL").map_err(Error::other)?;
                Ok(url.parse()?)
            }

            fn lazy_pool(options: &$connect_options) -> $pool {
                $pool_options::new()
                    .max_connections(MAX_CONNECTIONS)
                    .acquire_timeout(ACQUIRE)
                    .connect_lazy_with(options.clone())
            }

            /// One raw connection, kept, with no checks: nothing can be faster with this driver.
            async fn floor() -> Result<(), lambda_runtime::Error> {
                let options = connect_options()?;
                let kept: Mutex<Option<$connection>> = Mutex::new(None);
                let (options, kept) = (&options, &kept);
                let handler = async move |event: LambdaEvent<Work>| {
                    let mut kept = kept.lock().await;
                    if kept.is_none() {
                        *kept = Some(options.connect().await?);
                    }
                    let Some(connection) = &mut *kept else {
                        unreachable!("it has just been put there")
                    };
                    Ok::<_, lambda_runtime::Error>(
                        with_connection(event.payload, connection).await?,
                    )
                };
                lambda_runtime::run(service_fn(handler)).await
            }

            /// A global pool, as everybody writes it.
            async fn plain() -> Result<(), lambda_runtime::Error> {
                let pool = lazy_pool(&connect_options()?);
                let pool = &pool;
                let handler = async move |event: LambdaEvent<Work>| {
                    Ok::<_, lambda_runtime::Error>(with_shared(event.payload, pool).await?)
                };
                lambda_runtime::run(service_fn(handler)).await
            }

            /// The guide by hand: a pool for each invocation, closed in its finally.
            async fn plain_per_invocation() -> Result<(), lambda_runtime::Error> {
                let options = connect_options()?;
                let options = &options;
                let handler = async move |event: LambdaEvent<Work>| {
                    let pool = lazy_pool(options);
                    let done = with_shared(event.payload, &pool).await;
                    pool.close().await;
                    Ok::<_, lambda_runtime::Error>(done?)
                };
                lambda_runtime::run(service_fn(handler)).await
            }

            /// A raw connection for each invocation.
            async fn raw_open_close() -> Result<(), lambda_runtime::Error> {
                let options = connect_options()?;
                let options = &options;
                let handler = async move |event: LambdaEvent<Work>| {
                    let mut connection = options.connect().await?;
                    let done = with_connection(event.payload, &mut connection).await;
                    connection.close().await?;
                    Ok::<_, lambda_runtime::Error>(done?)
                };
                lambda_runtime::run(service_fn(handler)).await
            }

            // --- ours ---

            #[db_handler]
            async fn pool_always(event: LambdaEvent<Work>, db: &$pool) -> Result<Done, Error> {
                Ok(with_shared(event.payload, db).await?)
            }

            #[db_handler(close = "never")]
            async fn pool_never(event: LambdaEvent<Work>, db: &$pool) -> Result<Done, Error> {
                Ok(with_shared(event.payload, db).await?)
            }

            #[db_handler(close = "on_error")]
            async fn pool_on_error(event: LambdaEvent<Work>, db: &$pool) -> Result<Done, Error> {
                Ok(with_shared(event.payload, db).await?)
            }

            #[db_handler]
            async fn connection_always(
                event: LambdaEvent<Work>,
                db: &mut $connection,
            ) -> Result<Done, Error> {
                Ok(with_connection(event.payload, db).await?)
            }

            #[db_handler(close = "never")]
            async fn connection_never(
                event: LambdaEvent<Work>,
                db: &mut $connection,
            ) -> Result<Done, Error> {
                Ok(with_connection(event.payload, db).await?)
            }

            #[db_handler(close = "on_error")]
            async fn connection_on_error(
                event: LambdaEvent<Work>,
                db: &mut $connection,
            ) -> Result<Done, Error> {
                Ok(with_connection(event.payload, db).await?)
            }

            #[db_handler(close = "pressure")]
            async fn pool_pressure(event: LambdaEvent<Work>, db: &$pool) -> Result<Done, Error> {
                Ok(with_shared(event.payload, db).await?)
            }

            #[db_handler]
            async fn db_always(
                event: LambdaEvent<Work>,
                db: &Db<$database>,
            ) -> Result<Done, Error> {
                Ok(with_shared(event.payload, db).await?)
            }

            #[db_handler(close = "never")]
            async fn db_never(event: LambdaEvent<Work>, db: &Db<$database>) -> Result<Done, Error> {
                Ok(with_shared(event.payload, db).await?)
            }

            #[db_handler(close = "on_error")]
            async fn db_on_error(
                event: LambdaEvent<Work>,
                db: &Db<$database>,
            ) -> Result<Done, Error> {
                Ok(with_shared(event.payload, db).await?)
            }

            #[db_handler(close = "pressure")]
            async fn db_pressure(
                event: LambdaEvent<Work>,
                db: &Db<$database>,
            ) -> Result<Done, Error> {
                Ok(with_shared(event.payload, db).await?)
            }

            pub(super) async fn run(contender: &str) -> Result<(), lambda_runtime::Error> {
                match contender {
                    "floor" => floor().await,
                    "plain" => plain().await,
                    "plain_per_invocation" => plain_per_invocation().await,
                    // The second is the first with a library in `LD_PRELOAD`.
                    "raw_open_close" | "raw_open_close_nodelay" => raw_open_close().await,
                    "pool_always" => Ok(db_handler::run(pool_always).await?),
                    "pool_never" => Ok(db_handler::run(pool_never).await?),
                    "pool_on_error" => Ok(db_handler::run(pool_on_error).await?),
                    "connection_always" => Ok(db_handler::run(connection_always).await?),
                    "connection_never" => Ok(db_handler::run(connection_never).await?),
                    "connection_on_error" => Ok(db_handler::run(connection_on_error).await?),
                    "pool_pressure" => Ok(db_handler::run(pool_pressure).await?),
                    "db_always" => Ok(db_handler::run(db_always).await?),
                    "db_never" => Ok(db_handler::run(db_never).await?),
                    "db_on_error" => Ok(db_handler::run(db_on_error).await?),
                    "db_pressure" => Ok(db_handler::run(db_pressure).await?),
                    other => Err(format!("no contender {other}").into()),
                }
            }
        }
    };
}

contenders! {
    postgres: Postgres, PgPool, PgPoolOptions, PgConnection, PgConnectOptions,
    find = "SELECT name FROM items WHERE id = $1", hold = "SELECT pg_sleep($1)"
}
contenders! {
    mysql: MySql, MySqlPool, MySqlPoolOptions, MySqlConnection, MySqlConnectOptions,
    find = "SELECT name FROM items WHERE id = ?", hold = "SELECT sleep(?)"
}

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    let contender = env::var("CONTENDER")?;
    match contender.split_once('/') {
        Some(("postgres", contender)) => postgres::run(contender).await,
        Some(("mariadb", contender)) => mysql::run(contender).await,
        _ => Err("CONTENDER is postgres/.. or mariadb/..".into()),
    }
}
