//! Every mistake is reported, in the order of the source, and nothing else: callers compile.

use db_handler::sqlx::PgPool;
use db_handler::{Error, LambdaEvent, db_handler};

#[db_handler(
    polo(max = 2),
    pool(max = 0, acquire_ms = "3000", max = 1),
    close = "alwys"
)]
fn handler(
    event: LambdaEvent<u32>,
    #[db(env = "", crate = ::x)] db: &'static PgPool,
    #[cfg(all())] other: &PgPool,
) -> Result<u32, Error> {
    let _: &PgPool = db;
    let _: &PgPool = other;
    Ok(event.payload)
}

async fn caller(event: LambdaEvent<u32>) -> Result<u32, Error> {
    handler(event).await
}

fn main() {}
