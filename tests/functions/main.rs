//! All test functions in one binary, which links the drivers once. The variable `FUNCTION` selects one.

mod database;
mod echo;
mod iam;
mod mongodb;
mod platform;
mod pressure;
mod scenario;
mod servers;
mod streaming;
mod survival;
mod transaction;

use std::{env, error::Error};

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    match env::var("FUNCTION")?.as_str() {
        "database" => Ok(database::main()?),
        "echo" => echo::main(),
        "iam" => Ok(iam::main()?),
        "mongodb" => Ok(mongodb::main()?),
        "platform" => Ok(platform::main()?),
        "pressure" => Ok(pressure::main()?),
        "scenario" => Ok(scenario::main()?),
        "servers" => {
            servers::main();
            Ok(())
        }
        "streaming" => Ok(streaming::main()?),
        "survival" => Ok(survival::main()?),
        "transaction" => Ok(transaction::main()?),
        other => Err(format!("no function {other}").into()),
    }
}
