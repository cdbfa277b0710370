//! At most one day.

use db_handler::sqlx::PgPool;
use db_handler::{Error, LambdaEvent, db_handler};

#[db_handler(pool(idle_ms = 86400001))]
async fn h1(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(pool(idle_ms = -1))]
async fn h2(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(pool(idle_ms = "5 min"))]
async fn h3(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

fn main() {}
