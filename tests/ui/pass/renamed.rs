//! `crate = ...` finds the runtime behind a re-export.

#![deny(warnings)]

mod facade {
    pub mod database {
        pub use db_handler::*;
    }
}

use facade::database::sqlx::PgPool;
use facade::database::{Context, Error, LambdaEvent, db_handler};

#[db_handler(crate = crate::renamed::facade::database, pool(max = 1), close = "never")]
async fn handler(_: LambdaEvent<()>, db: &PgPool) -> Result<(), Error> {
    let _ = db;
    Ok(())
}

pub(crate) fn main() {
    drop(handler(LambdaEvent::new((), Context::default())));
}
