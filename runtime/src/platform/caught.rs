//! A panic of a handler is an error of its invocation, on every platform the same.

use crate::util::catch_panic;
use futures_util::FutureExt;
use lambda_runtime::Diagnostic;
use std::{any::Any, future::Future, panic::AssertUnwindSafe};

#[cfg(any(feature = "local", feature = "scf"))]
pub(super) use driven::{answer, error_body};

/// Awaits `responding`; a panic is an error like any other.
pub(super) async fn caught<T>(
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

/// For the platforms that are driven from here.
#[cfg(any(feature = "local", feature = "scf"))]
mod driven {
    use super::caught;
    use crate::lifecycle::scope::Host;
    use crate::platform::Handler;
    use lambda_runtime::{Context, Diagnostic};
    use std::sync::Arc;

    /// Answers one event in JSON, whatever the handler does.
    pub(in super::super) async fn answer<Kind, H: Handler<Kind>>(
        host: &Arc<Host>,
        handler: &H,
        event: &str,
        context: Context,
    ) -> Result<Vec<u8>, Diagnostic> {
        host.drive(caught(handler.answer(event, context))).await
    }

    /// An error as AWS Lambda shows it to the caller.
    pub(in super::super) fn error_body(diagnostic: &Diagnostic) -> Vec<u8> {
        serde_json::json!({
            "errorType": diagnostic.error_type,
            "errorMessage": diagnostic.error_message,
        })
        .to_string()
        .into_bytes()
    }
}
