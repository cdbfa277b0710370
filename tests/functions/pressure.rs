//! A function that keeps its connection while the server has room.

use db_handler::{
    Db, Error, LambdaEvent, db_handler,
    sqlx::{self, MySqlConnection, PgConnection, PgPool, Postgres},
};
use std::env;

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

#[tokio::main]
async fn main() -> Result<(), Error> {
    let handler = env::var("HANDLER").map_err(Error::other)?;
    match handler.as_str() {
        "postgres" => db_handler::run(postgres).await,
        "pooled" => db_handler::run(pooled).await,
        "handle" => db_handler::run(handle).await,
        "mariadb" => db_handler::run(mariadb).await,
        other => Err(Error::other(format!("no handler {other}"))),
    }
}
