//! What is taken by value is an event.

use db_handler::sqlx::PgPool;
use db_handler::{Error, LambdaEvent, db_handler};

#[db_handler]
async fn handler(_event: LambdaEvent<()>, _db: PgPool, _other: &PgPool) -> Result<(), Error> {
    Ok(())
}

fn main() {}
