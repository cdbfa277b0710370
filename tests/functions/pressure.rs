//! A test function with `close = "pressure"`.

use db_handler::{
    Db, Error, LambdaEvent, db_handler,
    sqlx::{self, MySqlConnection, PgConnection, PgPool, Postgres},
};
use std::{env, fs::File, sync::Mutex};

const PG_SESSION: &str = "SELECT pg_backend_pid()::int8";
const MARIADB_SESSION: &str = "SELECT CAST(CONNECTION_ID() AS SIGNED)";

#[db_handler(
    close = "pressure",
    pool(acquire_ms = 10000),
    budget(instances = 9, connections = 40, share = 0.5)
)]
async fn postgres(_event: LambdaEvent<()>, db: &mut PgConnection) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(PG_SESSION).fetch_one(db).await?)
}

#[db_handler(
    close = "pressure",
    pool(acquire_ms = 10000),
    budget(instances = 9, connections = 40, share = 0.5)
)]
async fn pooled(_event: LambdaEvent<()>, db: &PgPool) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(PG_SESSION).fetch_one(db).await?)
}

#[db_handler(
    close = "pressure",
    pool(acquire_ms = 10000),
    budget(instances = 9, connections = 40, share = 0.5)
)]
async fn handle(_event: LambdaEvent<()>, db: &Db<Postgres>) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(PG_SESSION).fetch_one(db).await?)
}

#[db_handler(
    close = "pressure",
    pool(acquire_ms = 10000),
    budget(instances = 9, connections = 40, share = 0.5)
)]
async fn mariadb(_event: LambdaEvent<()>, db: &mut MySqlConnection) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(MARIADB_SESSION).fetch_one(db).await?)
}

/// Handlers whose budgets assume a larger server.
macro_rules! crowded {
    ($($name:ident($resource:ty);)*) => {$(
        #[db_handler(budget(instances = 1000, connections = 10000))]
        async fn $name(_event: LambdaEvent<()>, db: $resource) -> Result<i64, Error> {
            Ok(sqlx::query_scalar(PG_SESSION).fetch_one(db).await?)
        }
    )*};
}

crowded! {
    crowded_single(&mut PgConnection);
    crowded_pool(&PgPool);
    crowded_handle(&Db<Postgres>);
}

/// Logs warnings to the file `LOG`.
fn log() -> Result<(), Error> {
    if let Some(path) = env::var_os("LOG") {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::WARN)
            .with_ansi(false)
            .with_writer(Mutex::new(File::create(path)?))
            .init();
    }
    Ok(())
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Error> {
    log()?;
    let handler = env::var("HANDLER").map_err(Error::other)?;
    match handler.as_str() {
        "postgres" => db_handler::run(postgres).await,
        "pooled" => db_handler::run(pooled).await,
        "handle" => db_handler::run(handle).await,
        "mariadb" => db_handler::run(mariadb).await,
        "crowded_single" => db_handler::run(crowded_single).await,
        "crowded_pool" => db_handler::run(crowded_pool).await,
        "crowded_handle" => db_handler::run(crowded_handle).await,
        other => Err(Error::other(format!("no handler {other}"))),
    }
}
