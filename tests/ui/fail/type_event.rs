//! The event is one that a platform sends.

use db_handler::sqlx::PgPool;
use db_handler::{Error, db_handler};

#[db_handler]
async fn handler(_event: u32, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

fn main() {}
