//! The type of a resource implements the trait.

use db_handler::{Error, LambdaEvent, db_handler};

struct Unknown;

#[db_handler]
async fn shared(_event: LambdaEvent<()>, _db: &Unknown) -> Result<(), Error> {
    Ok(())
}

#[db_handler]
async fn exclusive(_event: LambdaEvent<()>, _db: &mut Unknown) -> Result<(), Error> {
    Ok(())
}

fn main() {}
