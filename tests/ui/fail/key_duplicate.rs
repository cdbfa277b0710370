//! The second one is marked, and the first one is quoted.

use db_handler::sqlx::PgPool;
use db_handler::{Error, LambdaEvent, db_handler};

#[db_handler(pool(max = 2), pool(max = 3))]
async fn h1(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(pool(max = 2, max = 3))]
async fn h2(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(close = "never", close = "never")]
async fn h3(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(env = "A", connect = "lazy", env = "B")]
async fn h4(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler]
async fn h5(
    _event: LambdaEvent<()>,
    #[db(env = "A")]
    #[db(env = "B")]
    _db: &PgPool,
) -> Result<(), Error> {
    Ok(())
}

fn main() {}
