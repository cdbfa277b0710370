//! A resource is always there, or never.

use db_handler::sqlx::PgPool;
use db_handler::{Error, LambdaEvent, db_handler};

#[db_handler]
async fn handler(_event: LambdaEvent<()>, #[cfg(all())] _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler]
async fn absent(_event: LambdaEvent<()>, #[cfg(any())] _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

fn main() {}
