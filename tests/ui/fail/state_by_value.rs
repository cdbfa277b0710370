//! State is no event, wherever it stands.

use db_handler::sqlx::PgPool;
use db_handler::{Error, LambdaEvent, db_handler};
use std::sync::Arc;

pub struct App;

#[db_handler]
async fn handler(_app: Arc<App>, _event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

fn main() {}
