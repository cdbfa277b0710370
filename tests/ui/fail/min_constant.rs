//! Constants are checked by the compiler.

use db_handler::sqlx::PgPool;
use db_handler::{Error, LambdaEvent, db_handler};

const MIN: u32 = 3;

#[db_handler(pool(min = MIN), close = "never")]
async fn handler(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

fn main() {}
