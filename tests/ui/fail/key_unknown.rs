//! The known keys are listed, and the nearest one is suggested.

use db_handler::sqlx::PgPool;
use db_handler::{Error, LambdaEvent, db_handler};

#[db_handler(polo(max = 2))]
async fn h1(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(timeout_ms = 3)]
async fn h2(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(pool(maximum = 2))]
async fn h3(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(budget(instance = 1, instances = 1, connections = 100))]
async fn h4(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler("pool")]
async fn h5(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(pool::max = 2)]
async fn h6(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

fn main() {}
