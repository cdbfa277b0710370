//! Stores an order in SQLite and returns a receipt. Needs no server.
//!
//! ```sh
//! DATABASE_URL='sqlite:///tmp/orders.db?mode=rwc' \
//!     cargo run -p db-handler-examples --example orders -- '{"item":"tea","quantity":2}' '{"item":"cups","quantity":4}'
//! ```

use db_handler::{
    Error, LambdaEvent, db_handler,
    sqlx::{self, SqlitePool},
};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct NewOrder {
    item: String,
    quantity: u32,
}

#[derive(Serialize)]
struct Receipt {
    order: i64,
    item: String,
    items_ordered_so_far: i64,
}

#[db_handler(pool(max = 2, acquire_ms = 3000), close = "always")]
async fn create_order(event: LambdaEvent<NewOrder>, db: &SqlitePool) -> Result<Receipt, Error> {
    let NewOrder { item, quantity } = event.payload;
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, item TEXT, quantity INT)",
    )
    .execute(db)
    .await?;
    let order = sqlx::query("INSERT INTO orders (item, quantity) VALUES (?, ?)")
        .bind(&item)
        .bind(quantity)
        .execute(db)
        .await?
        .last_insert_rowid();
    let items_ordered_so_far =
        sqlx::query_scalar("SELECT sum(quantity) FROM orders WHERE item = ?")
            .bind(&item)
            .fetch_one(db)
            .await?;
    Ok(Receipt {
        order,
        item,
        items_ordered_so_far,
    })
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    db_handler::run(create_order).await
}
