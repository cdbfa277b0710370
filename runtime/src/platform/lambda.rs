//! AWS Lambda, through `lambda_runtime`.

use super::{Handler, LAMBDA_API, stream::Transfer};
#[cfg(unix)]
use crate::{config::EXTENSION, event::response::chain};
use crate::{
    config::INIT_REPORT,
    error::{Error, ErrorKind, Stage},
    lifecycle::scope::InvocationScope,
};
use futures_util::future::BoxFuture;
#[cfg(unix)]
use futures_util::{FutureExt, future::select};
#[cfg(unix)]
use lambda_extension::Extension;
use lambda_runtime::{Diagnostic, LambdaInvocation};
use lambda_runtime_api_client::{PooledClient, body::Body, build_request};
#[cfg(unix)]
use std::{convert::Infallible, future::pending, pin::pin, process};
use std::{
    env,
    task::{Context, Poll},
};
#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use tower::{Layer, Service};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Variables that `lambda_runtime` reads besides the address of the interface; it panics without them.
const NEEDED: [&str; 3] = [
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
];

/// Serves events, or reports an init error if the handler is not `ready`.
pub(super) async fn run<Kind, H: Handler<Kind>>(
    handler: H,
    ready: Result<(), Error>,
    hook: bool,
) -> Result<(), Error> {
    if let Some(missing) = NEEDED.iter().find(|name| env::var_os(name).is_none()) {
        return Err(Error::new(
            ErrorKind::Platform,
            format!("{LAMBDA_API} is set, but {missing} is not: is this AWS Lambda?"),
        )
        .at(Stage::Platform));
    }
    if let Err(error) = ready {
        report_init_error(&error).await;
        return Err(error);
    }
    if hook {
        close_on_shutdown().await;
    }
    handler.serve().await
}

/// Closes all connections when the platform ends this process.
///
/// The platform announces the end (SIGTERM) only if an extension is registered. This function does what
/// `lambda_runtime::spawn_graceful_shutdown_handler` does, under the same extension name, so that a process has
/// only one of the two. That function panics, visibly in the log, if the platform does not support extensions
/// or has already registered the name.
#[cfg(unix)]
async fn close_on_shutdown() {
    let registering = Extension::new()
        .with_events(&[])
        .with_extension_name("_lambda-rust-runtime-no-op-graceful-shutdown-helper")
        .register();
    let registered = timeout(EXTENSION, registering).await;
    let registered = registered.unwrap_or_else(|elapsed| Err(elapsed.into()));
    let signals = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    );
    match (registered, signals) {
        (Ok(extension), (Ok(terminated), Ok(interrupted))) => {
            tokio::spawn(async move {
                // The extension has to poll for events, although it subscribes to none.
                let idling = extension.run().then(|_| pending::<Infallible>());
                select(pin!(signalled(terminated, interrupted)), pin!(idling)).await;
                crate::lifecycle::shutdown::shutdown().await;
                process::exit(0);
            });
        }
        (Err(error), _) => no_hook(&*error),
        (_, (Err(error), _) | (_, Err(error))) => no_hook(&error),
    }
}

#[cfg(unix)]
async fn signalled(mut terminated: Signal, mut interrupted: Signal) {
    select(pin!(terminated.recv()), pin!(interrupted.recv())).await;
}

#[cfg(unix)]
fn no_hook(error: &(dyn std::error::Error + 'static)) {
    tracing::warn!(
        error = chain(error),
        "no shutdown hook: idle connections stay open until the server times them out; if there is a hook already, call `db_handler::shutdown()` in it and run with `Options::without_shutdown_hook()`"
    );
}

/// AWS Lambda runs only on Unix.
#[cfg(not(unix))]
#[allow(clippy::unused_async, reason = "the same shape as on Unix")]
async fn close_on_shutdown() {}

/// Reports to the platform why there is no first event. If that fails, too, the error is still written to the
/// standard error when the process ends.
async fn report_init_error(error: &Error) {
    let diagnostic = Diagnostic::from(error.clone());
    let request = serde_json::to_vec(&diagnostic)
        .map_err(BoxError::from)
        .and_then(|body| {
            build_request()
                .method("POST")
                .uri("/2018-06-01/runtime/init/error")
                .header(
                    "lambda-runtime-function-error-type",
                    format!("Runtime.{}", error.error_type()),
                )
                .body(Body::from(body))
                .map_err(BoxError::from)
        });
    let reported = match request {
        Ok(request) => {
            let client = PooledClient::builder().build();
            timeout(INIT_REPORT, client.call(request))
                .await
                .map_err(BoxError::from)
                .and_then(|response| response.map(drop))
        }
        Err(error) => Err(error),
    };
    if let Err(error) = reported {
        tracing::error!(%error, "the init error could not be reported");
    }
}

/// Runs the cleanup of an invocation after its response has been posted.
#[derive(Debug, Clone, Copy)]
pub(super) struct CleanupLayer;

/// See [`CleanupLayer`].
#[derive(Debug, Clone)]
pub(super) struct CleanupService<S>(S);

impl<S> Layer<S> for CleanupLayer {
    type Service = CleanupService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CleanupService(inner)
    }
}

impl<S> Service<LambdaInvocation> for CleanupService<S>
where
    S: Service<LambdaInvocation, Response = (), Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = ();
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<(), BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, invocation: LambdaInvocation) -> Self::Future {
        let scope = InvocationScope::new();
        let transfer = Transfer::new(&invocation.context);
        // The call creates the handler's future; `drive` polls it.
        let responding = self.0.call(invocation);
        Box::pin(async move {
            let posted = transfer.drive(scope.drive(responding)).await;
            scope.finish().await;
            // A failed body fails only its own invocation.
            posted.unwrap_or(Ok(()))
        })
    }
}
