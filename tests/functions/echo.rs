//! A test function without this crate: AWS's own runtime, and a handler that succeeds or fails as its event says.

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::{Value, json};

async fn echo(event: LambdaEvent<Value>) -> Result<Value, Error> {
    eprintln!("event {}", event.payload);
    match event.payload["fail"].as_str() {
        Some(message) => Err(message.into()),
        None => Ok(json!({ "deadline": event.context.deadline, "id": event.context.request_id })),
    }
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Error> {
    lambda_runtime::run(service_fn(echo)).await
}
