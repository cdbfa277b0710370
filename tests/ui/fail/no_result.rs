//! A handler returns a `Result`.

use db_handler::sqlx::PgPool;
use db_handler::{LambdaEvent, db_handler};

#[db_handler]
async fn nothing(_event: LambdaEvent<()>, _db: &PgPool) {}

#[db_handler]
async fn unit(_event: LambdaEvent<()>, _db: &PgPool) -> () {}

#[db_handler]
async fn never(_event: LambdaEvent<()>, _db: &PgPool) -> ! {
    loop {}
}

fn main() {}
