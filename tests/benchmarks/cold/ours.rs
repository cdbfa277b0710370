//! The smallest function with a database under the attribute: the twin of `handwritten.rs`.

use db_handler::{
    Error, LambdaEvent, Options, db_handler,
    sqlx::{self, PgPool},
};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Wanted {
    id: i32,
}

#[derive(Serialize)]
struct Item {
    name: String,
}

// Kept, as the pool of the twin is; `local` is on, as it is for everyone who does not turn it off.
#[db_handler(close = "never")]
async fn find(event: LambdaEvent<Wanted>, db: &PgPool) -> Result<Item, Error> {
    let name = sqlx::query_scalar("SELECT name FROM items WHERE id = $1")
        .bind(event.payload.id)
        .fetch_one(db)
        .await?;
    Ok(Item { name })
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    // The hook that closes connections at SIGTERM registers an extension before the first poll: measured with and without.
    let options = match std::env::var_os("WITHOUT_HOOK") {
        Some(_) => Options::new().without_shutdown_hook(),
        None => Options::new(),
    };
    db_handler::run_with(find, options).await
}
