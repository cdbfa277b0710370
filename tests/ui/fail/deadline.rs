//! What is kept free before the deadline, for all of the handler.

use db_handler::sqlx::PgPool;
use db_handler::{Error, LambdaEvent, db_handler};

#[db_handler(deadline(reserve_ms = 0))]
async fn h1(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(deadline(reserve_ms = 60_001))]
async fn h2(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler]
async fn h3(_event: LambdaEvent<()>, #[db(deadline(reserve_ms = 250))] _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(reserve_ms = 250)]
async fn h4(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

fn main() {}
