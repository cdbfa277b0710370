//! A closed set of words.

use db_handler::sqlx::PgPool;
use db_handler::{Error, LambdaEvent, db_handler};

#[db_handler(proxy = "pgbouncr")]
async fn h1(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler]
async fn h2(
    _event: LambdaEvent<()>,
    #[db(proxy = rds)] _db: &PgPool,
) -> Result<(), Error> {
    Ok(())
}

fn main() {}
