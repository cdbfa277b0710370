//! A MySQL/MariaDB pool that is reused between invocations and closed after an error.
//!
//! ```sh
//! DATABASE_URL='mysql://user:password@localhost/shop' \
//!     cargo run -p db-handler-examples --example mariadb --features mysql -- '{"item":"tea","quantity":2}'
//! ```

use db_handler::{
    Error, LambdaEvent, db_handler,
    sqlx::{self, MySqlPool},
};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct NewOrder {
    item: String,
    quantity: u32,
}

#[derive(Serialize)]
struct Receipt {
    order: u64,
}

#[db_handler(
    pool(max = 1, idle_ms = 60_000, lifetime_ms = 600_000),
    close = "on_error",
    connect = "eager"
)]
async fn create_order(event: LambdaEvent<NewOrder>, db: &MySqlPool) -> Result<Receipt, Error> {
    let NewOrder { item, quantity } = event.payload;
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS orders (id INT AUTO_INCREMENT PRIMARY KEY, item TEXT, quantity INT)",
    )
    .execute(db)
    .await?;
    let order = sqlx::query("INSERT INTO orders (item, quantity) VALUES (?, ?)")
        .bind(item)
        .bind(quantity)
        .execute(db)
        .await?
        .last_insert_id();
    Ok(Receipt { order })
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    db_handler::run(create_order).await
}
