//! Keys that are planned are as unknown as any other.

use db_handler::sqlx::PgPool;
use db_handler::{Error, LambdaEvent, db_handler};

#[db_handler(check(trust_ms = 1000))]
async fn h1(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(deadline(reserve_ms = 250))]
async fn h2(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(background = "wait")]
async fn h3(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(proxy = "rds")]
async fn h4(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

fn main() {}
