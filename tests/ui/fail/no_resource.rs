//! A handler has a resource.

use db_handler::{Error, LambdaEvent, db_handler};

#[db_handler]
async fn handler(_event: LambdaEvent<()>) -> Result<(), Error> {
    Ok(())
}

fn main() {}
