//! `#[db(...)]` belongs on a resource.

use db_handler::sqlx::PgPool;
use db_handler::{Error, LambdaEvent, db_handler};

#[db_handler]
async fn on_event(#[db(env = "A")] _event: LambdaEvent<()>, _db: &PgPool) -> Result<(), Error> {
    Ok(())
}

struct S;

impl S {
    #[db_handler]
    async fn on_self(
        #[db(env = "A")] &self,
        _event: LambdaEvent<()>,
        _db: &PgPool,
    ) -> Result<(), Error> {
        Ok(())
    }
}

fn main() {}
