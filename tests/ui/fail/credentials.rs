//! The path of a provider, and of nothing else.

use db_handler::credentials::Environment;
use db_handler::sqlx::PgPool;
use db_handler::{Error, LambdaEvent, db_handler};

#[db_handler(credentials = "DB_PASSWORD")]
async fn h1(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(credentials = Environment::prefix("DB"))]
async fn h2(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

static NO_PROVIDER: u32 = 3;

#[db_handler(credentials = NO_PROVIDER)]
async fn h3(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

async fn returns_no_secret() -> Result<String, Error> {
    Ok(String::new())
}

#[db_handler(credentials = returns_no_secret)]
async fn h4(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

static _USED: Environment = Environment::prefix("DB");

fn main() {}
