//! A PostgreSQL pool that is opened for every invocation and closed after the response.
//!
//! ```sh
//! DATABASE_URL='postgres://user:password@localhost/shop' \
//!     cargo run -p db-handler-examples --example postgres --features postgres -- '{"item":"tea","quantity":2}'
//! ```

use db_handler::{
    Error, LambdaEvent, db_handler,
    sqlx::{self, PgPool},
};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct NewOrder {
    item: String,
    quantity: i32,
}

#[derive(Serialize)]
struct Receipt {
    order: i32,
}

// At most 30 environments on a server with 100 connections: the compiler checks the sum.
#[db_handler(pool(max = 2), budget(instances = 30, connections = 100))]
async fn create_order(event: LambdaEvent<NewOrder>, db: &PgPool) -> Result<Receipt, Error> {
    let NewOrder { item, quantity } = event.payload;
    let mut transaction = db.begin().await?;
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS orders (id SERIAL PRIMARY KEY, item TEXT, quantity INT)",
    )
    .execute(&mut *transaction)
    .await?;
    let order =
        sqlx::query_scalar("INSERT INTO orders (item, quantity) VALUES ($1, $2) RETURNING id")
            .bind(item)
            .bind(quantity)
            .fetch_one(&mut *transaction)
            .await?;
    transaction.commit().await?;
    Ok(Receipt { order })
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    db_handler::run(create_order).await
}
