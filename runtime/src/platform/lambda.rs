//! AWS Lambda, through the real `lambda_runtime`.

use super::{Handler, LAMBDA_API};
use crate::{
    config::INIT_REPORT,
    error::{Error, ErrorKind, Stage},
    host::Host,
};
#[cfg(unix)]
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lambda_runtime::{Diagnostic, LambdaInvocation};
use lambda_runtime_api_client::{PooledClient, body::Body, build_request};
#[cfg(unix)]
use std::panic::AssertUnwindSafe;
use std::{
    env,
    task::{Context, Poll},
};
use tokio::time::timeout;
use tower::{Layer, Service};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What `lambda_runtime` reads besides the address of the interface, and panics without.
const NEEDED: [&str; 3] = [
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
];

/// Serves events, or reports that the handler is not `ready` for them.
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

/// Has everything closed when the platform ends this process.
#[cfg(unix)]
async fn close_on_shutdown() {
    let hook = lambda_runtime::spawn_graceful_shutdown_handler(crate::shutdown);
    // It panics when there is one already, or the platform knows no extensions.
    if AssertUnwindSafe(hook).catch_unwind().await.is_err() {
        tracing::warn!(
            "no shutdown hook: what is kept stays open on the server for a while after the platform has ended this process; if there is a hook already, call `db_handler::shutdown()` in it and run with `Options::without_shutdown_hook()`"
        );
    }
}

/// AWS Lambda runs on Unix.
#[cfg(not(unix))]
#[allow(clippy::unused_async, reason = "the same shape as on Unix")]
async fn close_on_shutdown() {}

/// Tells the platform why there will be no first event. If that fails, too, the error is still on
/// the standard error stream when the process ends with it.
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
                .and_then(|answer| answer.map(drop))
        }
        Err(error) => Err(error),
    };
    if let Err(error) = reported {
        tracing::error!(%error, "the init error could not be reported");
    }
}

/// Runs the *finally* of an invocation once its answer has been posted.
#[derive(Debug, Clone, Copy)]
pub(super) struct FinallyLayer;

/// See [`FinallyLayer`].
#[derive(Debug, Clone)]
pub(super) struct FinallyService<S>(S);

impl<S> Layer<S> for FinallyLayer {
    type Service = FinallyService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        FinallyService(inner)
    }
}

impl<S> Service<LambdaInvocation> for FinallyService<S>
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
        let host = Host::new();
        // The handler's function is called in here, its body is polled in `drive`.
        let answering = self.0.call(invocation);
        Box::pin(async move {
            let answered = host.drive(answering).await;
            host.finish().await;
            answered
        })
    }
}
