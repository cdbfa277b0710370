//! An annotated handler is called in a test like any other function.
//!
//! ```sh
//! DATABASE_URL=sqlite::memory: cargo test --example unit_test
//! ```

use db_handler::{
    Error, ErrorKind, LambdaEvent, db_handler,
    sqlx::{self, SqlitePool},
};

#[db_handler(env = "UNIT_TEST_DATABASE_URL")]
async fn double(event: LambdaEvent<i64>, db: &SqlitePool) -> Result<i64, Error> {
    if event.payload < 0 {
        return Err(Error::new(
            ErrorKind::Event,
            format!("{} is negative", event.payload),
        ));
    }
    let doubled = sqlx::query_scalar("SELECT ? * 2")
        .bind(event.payload)
        .fetch_one(db)
        .await?;
    Ok(doubled)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    db_handler::run(double).await
}
