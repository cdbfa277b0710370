//! A function, and nothing else.

use db_handler::{Error, LambdaEvent, db_handler};

#[db_handler]
struct Handler;

#[db_handler]
impl Handler {}

#[db_handler]
const HANDLER: Handler = Handler;

trait Handle {
    #[db_handler]
    async fn handle(&self, _event: LambdaEvent<()>) -> Result<(), Error>;
}

fn main() {}
