//! Constants are checked by the compiler.

use db_handler::sqlx::PgPool;
use db_handler::{Error, LambdaEvent, db_handler};

const MAX: u32 = 0;

#[db_handler(pool(max = MAX))]
async fn handler(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

fn main() {}
