//! Who sends the events: AWS Lambda, Tencent SCF, or a person at a terminal.

mod caught;
mod handler;
mod lambda;
#[cfg(feature = "local")]
mod local;
mod payload;
#[cfg(feature = "scf")]
mod scf;
mod stream;

pub use handler::Handler;

use crate::{error::Error, lifecycle::registry};
use std::env;

/// Set by AWS Lambda: where its interface is.
const LAMBDA_API: &str = "AWS_LAMBDA_RUNTIME_API";
/// Set by Tencent SCF: where its interface is.
const SCF_API: &str = "SCF_RUNTIME_API";
/// Set by Tencent SCF as well. Either of them means it.
const SCF: [&str; 2] = [SCF_API, "SCF_RUNTIME_API_PORT"];

/// Runs `handler` for every event of the platform that this process finds itself on.
///
/// * **AWS Lambda** (`AWS_LAMBDA_RUNTIME_API` is set): through `lambda_runtime`, one event after the
///   other, or several at once on Lambda Managed Instances. The *finally* of an annotated handler
///   runs after the answer has been posted (and a streamed body has been sent), before the next
///   event is asked for: it costs the caller nothing.
/// * **Tencent SCF** (`SCF_RUNTIME_API` and `SCF_RUNTIME_API_PORT` are set), with the feature `scf`: as
///   its custom runtime, one event after the other, the *finally* in the same place. The handler is the
///   same: its [`Context`](crate::Context) has the request's id and deadline, and in `env_config` the
///   function's name, version and memory, with the namespace as its `log_group`.
/// * **Anywhere else**, with the feature `local`: every argument of the process is an event in JSON;
///   without arguments, every line of the standard input is one. Answers go to the standard output,
///   one line each, and each invocation's phases are drawn on the standard error.
///
/// An invocation fails by itself, and the process goes on: when the handler returns an error or panics, when its
/// response cannot be serialized as JSON, or when the event is not what it expects (`InvalidEvent`). Of an error in a
/// box the caller is told the whole chain of causes. A streamed body that fails, panics, or is not complete shortly
/// before the deadline (`deadline(reserve_ms = ..)`) is a broken transfer for the caller, never one that looks
/// complete; the log has the reason, and the cleanup runs.
///
/// When AWS Lambda ends the process, everything that is still open is closed ([`shutdown`](crate::shutdown)),
/// unless all that the handler takes has `close = "always"`. Lambda says so (SIGTERM) only where an
/// extension is registered: this registers an internal one that subscribes to nothing.
///
/// Before the first event, the handler's environment variables are looked at, and with
/// `connect = "eager"` its connections are opened.
///
/// # Errors
/// When the environment variable of a URL is missing or empty, which AWS Lambda is told as an init
/// error, while Tencent SCF, which has no call for it, sees the process end; when the platform's interface fails; in the local mode also when a handler failed, so that
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
    run_with(handler, Options::new()).await
}

/// What [`run_with`] is told besides the handler.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Options {
    shutdown_hook: bool,
}

impl Options {
    /// What [`run`] does.
    pub const fn new() -> Self {
        Self {
            shutdown_hook: true,
        }
    }

    /// AWS Lambda has one shutdown hook to give away (`lambda_runtime::spawn_graceful_shutdown_handler`),
    /// and you take it: call [`shutdown`](crate::shutdown) in it.
    pub const fn without_shutdown_hook(mut self) -> Self {
        self.shutdown_hook = false;
        self
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

/// The same as [`run`], with options.
///
/// # Errors
/// Those of [`run`].
///
/// # Examples
/// ```no_run
/// use db_handler::{Error, LambdaEvent, Options};
///
/// # async fn hello(event: LambdaEvent<String>) -> Result<String, Error> {
/// #     Ok(event.payload)
/// # }
/// # #[tokio::main]
/// # async fn main() -> Result<(), Error> {
/// // Beside a hook of one's own, which calls `db_handler::shutdown().await`:
/// db_handler::run_with(hello, Options::new().without_shutdown_hook()).await
/// # }
/// ```
pub async fn run_with<Kind, H: Handler<Kind>>(handler: H, options: Options) -> Result<(), Error> {
    let name = std::any::type_name::<H>();
    let ready = registry::prepare(name).await;
    // Nothing to close at the end needs no hook, which would cost a call at every cold start.
    let hook = options.shutdown_hook && registry::keeps(name);
    // Boxed: what drives a platform is large, and the caller's `main` need not be.
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    if is_set(LAMBDA_API) {
        return Box::pin(lambda::run(handler, ready, hook)).await;
    }
    if SCF.into_iter().any(is_set) {
        return Box::pin(on_scf(handler, ready)).await;
    }
    Box::pin(elsewhere(handler, ready)).await
}

#[cfg(feature = "scf")]
async fn on_scf<Kind, H: Handler<Kind>>(handler: H, ready: Result<(), Error>) -> Result<(), Error> {
    scf::run(handler, ready).await
}

#[cfg(not(feature = "scf"))]
#[allow(clippy::unused_async, reason = "the same shape as with the platform")]
async fn on_scf<Kind, H: Handler<Kind>>(_: H, _: Result<(), Error>) -> Result<(), Error> {
    Err(nowhere(format!(
        "{SCF_API} is set, but db-handler's feature `scf` is off: switch it on to run on Tencent SCF"
    )))
}

#[cfg(feature = "local")]
async fn elsewhere<Kind, H: Handler<Kind>>(
    handler: H,
    ready: Result<(), Error>,
) -> Result<(), Error> {
    ready?;
    let ran = local::run(handler).await;
    crate::lifecycle::shutdown::shutdown().await;
    ran
}

#[cfg(not(feature = "local"))]
#[allow(clippy::unused_async, reason = "the same shape as with the local mode")]
async fn elsewhere<Kind, H: Handler<Kind>>(_: H, ready: Result<(), Error>) -> Result<(), Error> {
    ready?;
    Err(nowhere(format!(
        "{LAMBDA_API} is not set, and db-handler's feature `local` is off: there is nowhere to take events from"
    )))
}

#[cfg(not(all(feature = "local", feature = "scf")))]
fn nowhere(message: String) -> Error {
    use crate::error::{ErrorKind, Stage};

    Error::new(ErrorKind::Platform, message).at(Stage::Platform)
}
