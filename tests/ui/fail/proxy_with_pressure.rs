//! A server behind a proxy is not ours to fill.

use db_handler::sqlx::PgPool;
use db_handler::{Error, LambdaEvent, db_handler};

#[db_handler(proxy = "rds", close = "pressure")]
async fn h1(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(close = "pressure")]
async fn h2(
    _event: LambdaEvent<()>,
    _direct: &PgPool,
    #[db(proxy = "rds")] _db: &PgPool,
) -> Result<(), Error> {
    Ok(())
}

fn main() {}
