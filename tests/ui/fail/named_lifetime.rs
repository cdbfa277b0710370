//! Resources are injected for one invocation.

use db_handler::sqlx::PgPool;
use db_handler::{Error, LambdaEvent, db_handler};

#[db_handler]
async fn h1<'a>(_event: LambdaEvent<()>, _db: &'a PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler]
async fn h2(_event: LambdaEvent<()>, _db: &'static PgPool) -> Result<(), Error> {
    Ok(())
}

fn main() {}
