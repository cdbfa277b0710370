//! Stores a document in MongoDB and reads it, with a client that is reused between invocations.
//!
//! ```sh
//! MONGODB_URI='mongodb://user:password@localhost/shop?authSource=admin' \
//!     cargo run -p db-handler-examples --example mongodb --features mongodb -- '{"item":"tea","quantity":2}'
//! ```

use db_handler::{
    Error, LambdaEvent, db_handler,
    mongodb::{
        Database,
        bson::{Bson, doc},
    },
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Order {
    item: String,
    quantity: i32,
}

#[derive(Serialize)]
struct Receipt {
    order: Bson,
    quantity_ordered_so_far: i32,
}

// The URL names the database. By default a MongoDB client is reused (`close = "never"`).
#[db_handler(pool(max = 2, acquire_ms = 3000))]
async fn create_order(event: LambdaEvent<Order>, db: &Database) -> Result<Receipt, Error> {
    let orders = db.collection::<Order>("orders");
    let item = event.payload.item.clone();
    let stored = orders.insert_one(event.payload).await?;

    let mut quantity_ordered_so_far = 0;
    let mut found = orders.find(doc! { "item": item }).await?;
    while found.advance().await? {
        quantity_ordered_so_far += found.deserialize_current()?.quantity;
    }
    Ok(Receipt {
        order: stored.inserted_id,
        quantity_ordered_so_far,
    })
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    db_handler::run(create_order).await
}
