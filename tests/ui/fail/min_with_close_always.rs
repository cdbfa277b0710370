//! Nothing is kept between invocations, so nothing can be kept open.

use db_handler::sqlx::PgPool;
use db_handler::{Error, LambdaEvent, db_handler};

#[db_handler(pool(min = 1))]
async fn h1(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(pool(min = 1), close = "always")]
async fn h2(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(close = "never")]
async fn h3(
    _event: LambdaEvent<()>,
    #[db(pool(min = 1), close = "always")] _db: &PgPool,
) -> Result<(), Error> {
    Ok(())
}

fn main() {}
