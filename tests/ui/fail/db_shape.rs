//! `#[db(...)]` takes a list of keys.

use db_handler::sqlx::PgPool;
use db_handler::{Error, LambdaEvent, db_handler};

#[db_handler]
async fn h1(_event: LambdaEvent<()>, #[db] _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler]
async fn h2(_event: LambdaEvent<()>, #[db = "A"] _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler]
async fn h3(
    _event: LambdaEvent<()>,
    #[db(envv = "A", pool(max = 0))] _db: &PgPool,
) -> Result<(), Error> {
    Ok(())
}

fn main() {}
