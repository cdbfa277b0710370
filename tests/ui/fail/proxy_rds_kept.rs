//! A connection to RDS Proxy that is kept is not to hold what pins it.

use db_handler::sqlx::{MySqlConnection, PgPool};
use db_handler::{Error, LambdaEvent, db_handler};

#[db_handler(proxy = "rds", close = "never")]
async fn never(_event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

#[db_handler(proxy = "rds")]
async fn on_error(
    _event: LambdaEvent<()>,
    #[db(close = "on_error")] _db: &mut MySqlConnection,
) -> Result<(), Error> {
    Ok(())
}

fn main() {}
