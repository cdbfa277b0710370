//! One connection per invocation instead of a pool: the simplest and fastest resource.
//!
//! ```sh
//! DATABASE_URL='postgres://user:password@localhost/shop' \
//!     cargo run -p db-handler-examples --example single_connection --features postgres -- '{"name":"Ada"}'
//! ```

use db_handler::{
    Error, LambdaEvent, db_handler,
    sqlx::{self, PgConnection},
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Visitor {
    name: String,
}

#[db_handler(pool(max = 1), close = "never")]
async fn greet(event: LambdaEvent<Visitor>, db: &mut PgConnection) -> Result<String, Error> {
    let greeting = sqlx::query_scalar("SELECT 'Hello, ' || $1 || '!'")
        .bind(event.payload.name)
        .fetch_one(db)
        .await?;
    Ok(greeting)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    db_handler::run(greet).await
}
