//! `max x instances` must stay under `share x connections`; the sum is done, and what fits is named.

use db_handler::sqlx::PgPool;
use db_handler::{Error, LambdaEvent, db_handler};

#[db_handler(budget(instances = 60, connections = 100))]
async fn h1(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(pool(max = 1), budget(instances = 80, connections = 100))]
async fn h2(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(pool(max = 5), budget(instances = 3, connections = 100, share = 0.1))]
async fn h3(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(budget(instances = 200, connections = 100, share = 1))]
async fn h4(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(budget(instances = 30, connections = 100))]
async fn sum(_event: LambdaEvent<()>, _db: &PgPool, _other: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(pool(max = 5))]
async fn own(
    _event: LambdaEvent<()>,
    #[db(env = "REPLICA_URL", budget(instances = 20, connections = 100))] _replica: &PgPool,
) -> Result<(), Error> {
    Ok(())
}

fn main() {}
