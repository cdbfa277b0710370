//! At most `max`.

use db_handler::sqlx::PgPool;
use db_handler::{Error, LambdaEvent, db_handler};

#[db_handler(pool(min = 3), close = "never")]
async fn h1(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(pool(min = 3, max = 2), close = "never")]
async fn h2(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(pool(min = -1), close = "never")]
async fn h3(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(pool(min = "1"), close = "never")]
async fn h4(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

fn main() {}
