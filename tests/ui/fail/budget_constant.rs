//! Constants are checked by the compiler.

use db_handler::sqlx::PgPool;
use db_handler::{Error, LambdaEvent, db_handler};

const INSTANCES: u32 = 60;

#[db_handler(budget(instances = INSTANCES, connections = 100))]
async fn handler(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

fn main() {}
