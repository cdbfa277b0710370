//! Who sends the events: AWS Lambda, or a person at a terminal.

mod handler;
mod lambda;
#[cfg(feature = "local")]
mod local;

pub use handler::Handler;

use crate::{error::Error, registry};
use std::env;

/// Set by AWS Lambda: where its interface is.
const LAMBDA_API: &str = "AWS_LAMBDA_RUNTIME_API";

/// Runs `handler` for every event of the platform that this process finds itself on.
///
/// * **AWS Lambda** (`AWS_LAMBDA_RUNTIME_API` is set): through `lambda_runtime`, one event after the
///   other, or several at once on Lambda Managed Instances. The *finally* of an annotated handler
///   runs after the answer has been posted (and a streamed body has been sent), before the next
///   event is asked for: it costs the caller nothing.
/// * **Anywhere else**, with the feature `local`: every argument of the process is an event in JSON;
///   without arguments, every line of the standard input is one. Answers go to the standard output,
///   one line each, and each invocation's phases are drawn on the standard error.
///
/// Before the first event, the handler's environment variables are looked at, and with
/// `connect = "eager"` its connections are opened.
///
/// # Errors
/// When the environment variable of a URL is missing or empty, which the platform is told as an init
/// error; when the platform's interface fails; in the local mode also when a handler failed, so that
/// the process ends with exit code 1. Input that is no JSON ends the process with exit code 2.
///
/// # Examples
/// ```no_run
/// use db_handler::{Error, LambdaEvent};
///
/// async fn hello(event: LambdaEvent<String>) -> Result<String, Error> {
///     Ok(format!("hello, {}", event.payload))
/// }
///
/// #[tokio::main]
/// async fn main() -> Result<(), Error> {
///     db_handler::run(hello).await
/// }
/// ```
pub async fn run<Kind, H: Handler<Kind>>(handler: H) -> Result<(), Error> {
    let ready = registry::prepare(std::any::type_name::<H>()).await;
    // Boxed: what drives a platform is large, and the caller's `main` need not be.
    if env::var_os(LAMBDA_API).is_some_and(|api| !api.is_empty()) {
        return Box::pin(lambda::run(handler, ready)).await;
    }
    Box::pin(elsewhere(handler, ready)).await
}

#[cfg(feature = "local")]
async fn elsewhere<Kind, H: Handler<Kind>>(
    handler: H,
    ready: Result<(), Error>,
) -> Result<(), Error> {
    ready?;
    local::run(handler).await
}

#[cfg(not(feature = "local"))]
#[allow(clippy::unused_async, reason = "the same shape as with the local mode")]
async fn elsewhere<Kind, H: Handler<Kind>>(_: H, ready: Result<(), Error>) -> Result<(), Error> {
    use crate::error::{ErrorKind, Stage};

    ready?;
    Err(Error::new(
        ErrorKind::Platform,
        format!("{LAMBDA_API} is not set, and db-handler's feature `local` is off: there is nowhere to take events from"),
    )
    .at(Stage::Platform))
}
