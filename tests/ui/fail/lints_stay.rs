//! Unused functions, parameters, `mut`s and results are reported as without the attribute.

#![deny(warnings)]

use db_handler::sqlx::PgPool;
use db_handler::{Error, LambdaEvent, db_handler};

#[db_handler]
async fn handler(mut event: LambdaEvent<()>, db: &PgPool) -> Result<(), Error> {
    Ok::<(), Error>(());
    Ok(())
}

fn main() {}
