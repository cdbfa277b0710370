//! The error takes ours.

use db_handler::sqlx::PgPool;
use db_handler::{LambdaEvent, db_handler};

struct MyError;

#[db_handler]
async fn error(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), MyError> {
    Ok(())
}

#[db_handler]
async fn no_result(_event: LambdaEvent<()>, _db: &PgPool) -> String {
    String::new()
}

fn main() {}
