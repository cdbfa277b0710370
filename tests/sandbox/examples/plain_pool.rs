//! A function with a typical global sqlx pool, to show a run of a function that is not prepared for freezes.

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::{Value, json};
use sqlx::{MySqlPool, PgPool};

enum Pool {
    Postgres(PgPool),
    MySql(MySqlPool),
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("DATABASE_URL")?;
    let pool = if url.starts_with("postgres") {
        Pool::Postgres(PgPool::connect(&url).await?)
    } else {
        Pool::MySql(MySqlPool::connect(&url).await?)
    };
    let pool = &pool;
    lambda_runtime::run(service_fn(move |event| handle(pool, event))).await
}

async fn handle(pool: &Pool, event: LambdaEvent<Value>) -> Result<Value, Error> {
    let ms = event
        .payload
        .get("ms")
        .and_then(Value::as_f64)
        .unwrap_or(0.0);
    match pool {
        Pool::Postgres(pool) => {
            sqlx::query("SELECT pg_sleep($1)")
                .bind(ms / 1000.0)
                .execute(pool)
                .await?;
        }
        Pool::MySql(pool) => {
            sqlx::query("SELECT sleep(?)")
                .bind(ms / 1000.0)
                .execute(pool)
                .await?;
        }
    }
    Ok(json!({"slept": ms}))
}
