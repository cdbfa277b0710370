//! RDS Proxy serves no SQLite, and knows nothing of a client of one's own.

use db_handler::config::Defaults;
use db_handler::resource::{AcquireContext, Resource};
use db_handler::sqlx::SqlitePool;
use db_handler::{Error, LambdaEvent, db_handler};

struct Own;

impl Resource for Own {
    const NAME: &'static str = "own";
    const DEFAULTS: Defaults = Defaults::KEPT;

    async fn open(_: &AcquireContext) -> Result<Self, Error> {
        Ok(Self)
    }
}

#[db_handler(proxy = "rds")]
async fn handler(_event: LambdaEvent<()>, _db: &SqlitePool, _own: &Own) -> Result<(), Error> {
    Ok(())
}

fn main() {}
