//! The type chooses what is injected.

use db_handler::{Error, LambdaEvent, db_handler};

#[db_handler]
async fn h1(_event: LambdaEvent<()>, _db: &impl Sized) -> Result<(), Error> {
    Ok(())
}

#[db_handler]
async fn h2(_event: LambdaEvent<()>, _db: &(dyn Send + Sync)) -> Result<(), Error> {
    Ok(())
}

fn main() {}
