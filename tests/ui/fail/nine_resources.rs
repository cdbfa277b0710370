//! Eight is the most.

use db_handler::sqlx::PgPool;
use db_handler::{Error, LambdaEvent, db_handler};

#[db_handler]
async fn handler(
    _event: LambdaEvent<()>,
    _r1: &PgPool,
    _r2: &PgPool,
    _r3: &PgPool,
    _r4: &PgPool,
    _r5: &PgPool,
    _r6: &PgPool,
    _r7: &PgPool,
    _r8: &PgPool,
    _r9: &PgPool,
) -> Result<(), Error> {
    Ok(())
}

fn main() {}
