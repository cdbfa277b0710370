//! The smallest function with a database, as one writes it by hand: a global pool.

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, postgres::PgPoolOptions};
use std::time::Duration;

#[derive(Deserialize)]
struct Wanted {
    id: i32,
}

#[derive(Serialize)]
struct Item {
    name: String,
}

async fn find(event: LambdaEvent<Wanted>, db: &PgPool) -> Result<Item, Error> {
    let name = sqlx::query_scalar("SELECT name FROM items WHERE id = $1")
        .bind(event.payload.id)
        .fetch_one(db)
        .await?;
    Ok(Item { name })
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("DATABASE_URL")?;
    let pool = PgPoolOptions::new()
        .max_connections(2)
        .acquire_timeout(Duration::from_secs(3))
        .connect_lazy(&url)?;
    let pool = &pool;
    lambda_runtime::run(service_fn(move |event| find(event, pool))).await
}
