//! A key in the wrong list is told where it belongs.

use db_handler::sqlx::PgPool;
use db_handler::{Error, LambdaEvent, db_handler};

#[db_handler(max = 2)]
async fn h1(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(pool(close = "never"))]
async fn h2(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(pool(instances = 3))]
async fn h3(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler]
async fn h4(_event: LambdaEvent<()>, #[db(crate = ::db_handler)] _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

fn main() {}
