//! A handler has an event.

use db_handler::sqlx::PgPool;
use db_handler::{Error, db_handler};

#[db_handler]
async fn handler(_db: &PgPool) -> Result<(), Error> {
    Ok(())
}

fn main() {}
