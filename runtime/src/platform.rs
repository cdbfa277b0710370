//! Runtimes: AWS Lambda, Tencent SCF and local.

mod handler;
mod lambda;
#[cfg(feature = "local")]
mod local;
mod payload;
#[cfg(feature = "scf")]
mod scf;
mod serve;
mod stream;

pub use handler::Handler;

use crate::{error::Error, lifecycle::registry};
use std::env;

/// Set by AWS Lambda: the address of its interface.
const LAMBDA_API: &str = "AWS_LAMBDA_RUNTIME_API";
/// Set by Tencent SCF: the host of its interface.
const SCF_API: &str = "SCF_RUNTIME_API";
/// Variables that Tencent SCF sets. One of them is enough to detect it.
const SCF: [&str; 2] = [SCF_API, "SCF_RUNTIME_API_PORT"];

/// Runs `handler` for every event of the platform that this process runs on.
///
/// * **AWS Lambda** (`AWS_LAMBDA_RUNTIME_API` is set): through `lambda_runtime`, one event after the other, or
///   several at once on Lambda Managed Instances. The cleanup of an annotated handler runs after the response
///   has been posted (and a streamed body has been sent), before the next event is fetched: it does not add to
///   the response time.
/// * **Tencent SCF** (`SCF_RUNTIME_API` and `SCF_RUNTIME_API_PORT` are set), with the feature `scf`: through
///   its custom runtime, one event after the other. The cleanup runs at the same point. The same handler works
///   unchanged: its [`Context`](crate::Context) has the request ID and the deadline, and in `env_config` the
///   function's name, version and memory, with the namespace as its `log_group`.
/// * **Anywhere else**, with the feature `local`: every argument of the process is an event in JSON. Without
///   arguments, every line of the standard input is one. Responses are written to the standard output, one line
///   each, and each invocation's timeline to the standard error.
///
/// An invocation fails alone, and the process continues, if the handler returns an error or panics, if its
/// response cannot be serialized as JSON, or if the event does not have the expected form (`Event`). For a
/// boxed error the whole chain of causes is reported. A streamed body that fails, panics, or is incomplete
/// shortly before the deadline (`deadline(reserve_ms = ..)`) is an aborted transfer for the caller, and never
/// looks complete. The log has the reason, and the cleanup runs.
///
/// When AWS Lambda ends the process, all open connections are closed ([`shutdown`](crate::shutdown)), unless
/// every resource of the handler has `close = "always"`. Lambda announces the end (SIGTERM) only if an
/// extension is registered: this function registers an internal one that subscribes to no events.
///
/// Before the first event, the handler's environment variables are checked, and with `connect = "eager"` its
/// connections are opened.
///
/// # Errors
/// * If the environment variable of a URL is missing or empty. AWS Lambda receives an init error; on Tencent
///   SCF, which has no call for it, the process ends.
/// * If the platform's interface fails.
/// * In the local mode, if a handler failed: the process ends with exit code 1.
///
/// Input that is not valid JSON ends the process with exit code 2.
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

/// Options of [`run_with`].
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Options {
    shutdown_hook: bool,
}

impl Options {
    /// Creates the options that [`run`] uses.
    pub const fn new() -> Self {
        Self {
            shutdown_hook: true,
        }
    }

    /// Opts out of the shutdown hook. Only one can be registered
    /// (`lambda_runtime::spawn_graceful_shutdown_handler`): call [`shutdown`](crate::shutdown) in your own.
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

/// Like [`run`], with options.
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
/// // With a hook of your own, which calls `db_handler::shutdown().await`:
/// db_handler::run_with(hello, Options::new().without_shutdown_hook()).await
/// # }
/// ```
pub async fn run_with<Kind, H: Handler<Kind>>(handler: H, options: Options) -> Result<(), Error> {
    let name = std::any::type_name::<H>();
    let ready = registry::prepare(name).await;
    // Without anything to close at the end, no hook is needed. Registering one costs a call in every cold
    // start.
    let hook = options.shutdown_hook && registry::keeps(name);
    // Boxed to keep the future of the caller's `main` small.
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    if is_set(LAMBDA_API) {
        return Box::pin(lambda::run(handler, ready, hook)).await;
    }
    if SCF.into_iter().any(is_set) {
        return Box::pin(on_scf(handler, ready)).await;
    }
    Box::pin(run_local(handler, ready)).await
}

#[cfg(feature = "scf")]
async fn on_scf<Kind, H: Handler<Kind>>(handler: H, ready: Result<(), Error>) -> Result<(), Error> {
    scf::run(handler, ready).await
}

#[cfg(not(feature = "scf"))]
#[allow(clippy::unused_async, reason = "the same shape as with the platform")]
async fn on_scf<Kind, H: Handler<Kind>>(_: H, _: Result<(), Error>) -> Result<(), Error> {
    Err(no_platform(format!(
        "{SCF_API} is set, but db-handler's feature `scf` is off: switch it on to run on Tencent SCF"
    )))
}

#[cfg(feature = "local")]
async fn run_local<Kind, H: Handler<Kind>>(
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
async fn run_local<Kind, H: Handler<Kind>>(_: H, ready: Result<(), Error>) -> Result<(), Error> {
    ready?;
    Err(no_platform(format!(
        "{LAMBDA_API} is not set, and db-handler's feature `local` is off: there is nowhere to take events from"
    )))
}

#[cfg(not(all(feature = "local", feature = "scf")))]
fn no_platform(message: String) -> Error {
    use crate::error::{ErrorKind, Stage};

    Error::new(ErrorKind::Platform, message).at(Stage::Platform)
}
