//! A constant is checked by the compiler.

use db_handler::sqlx::PgPool;
use db_handler::{Error, LambdaEvent, db_handler};

const RESERVE_MS: u64 = 60_001;

#[db_handler(deadline(reserve_ms = RESERVE_MS))]
async fn handler(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

fn main() {}
