//! Turns a handler's panic into an error of its invocation, on every platform.

use crate::util::catch_panic;
use futures_util::FutureExt;
use lambda_runtime::Diagnostic;
use std::{any::Any, future::Future, panic::AssertUnwindSafe};

#[cfg(any(feature = "local", feature = "scf"))]
pub(super) use driven::{error_body, respond};

/// Awaits `responding`. A panic becomes an error.
pub(super) async fn serve<T>(
    responding: impl Future<Output = Result<T, Diagnostic>>,
) -> Result<T, Diagnostic> {
    let responding = AssertUnwindSafe(responding).catch_unwind();
    responding
        .await
        .unwrap_or_else(|panic| Err(panicked(&*panic)))
}

fn panicked(panic: &(dyn Any + Send)) -> Diagnostic {
    let message = catch_panic::message(panic);
    Diagnostic {
        error_type: "HandlerPanicked".to_owned(),
        error_message: format!("handler: panicked: {message}"),
    }
}

/// For the platforms whose event loop is part of this crate.
#[cfg(any(feature = "local", feature = "scf"))]
mod driven {
    use super::serve;
    use crate::lifecycle::scope::InvocationScope;
    use crate::platform::Handler;
    use lambda_runtime::{Context, Diagnostic};
    use std::sync::Arc;

    /// Handles one event in JSON. A panic becomes an error.
    pub(in super::super) async fn respond<Kind, H: Handler<Kind>>(
        scope: &Arc<InvocationScope>,
        handler: &H,
        event: &str,
        context: Context,
    ) -> Result<Vec<u8>, Diagnostic> {
        scope.drive(serve(handler.respond(event, context))).await
    }

    /// Formats an error as AWS Lambda shows it to the caller.
    pub(in super::super) fn error_body(diagnostic: &Diagnostic) -> Vec<u8> {
        serde_json::json!({
            "errorType": diagnostic.error_type,
            "errorMessage": diagnostic.error_message,
        })
        .to_string()
        .into_bytes()
    }
}
