//! Mismatches in the body read as in a plain function.

use db_handler::sqlx::PgPool;
use db_handler::{Error, LambdaEvent, db_handler};

#[db_handler]
async fn tail(event: LambdaEvent<()>, _db: &PgPool) -> Result<u32, Error> {
    Ok("text")
}

#[db_handler]
async fn early(event: LambdaEvent<()>, _db: &PgPool) -> Result<u32, Error> {
    if true {
        return "text";
    }
    event.payloat
}

fn main() {}
