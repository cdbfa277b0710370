//! What happens to background tasks, for all of the handler.

use db_handler::sqlx::PgPool;
use db_handler::{Error, LambdaEvent, db_handler};

#[db_handler(background = "wiat")]
async fn h1(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(background = abort)]
async fn h2(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler]
async fn h3(_event: LambdaEvent<()>, #[db(background = "wait")] _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

fn main() {}
