//! One event answered, whatever the handler does: for the platforms that are driven from here.

use super::Handler;
use crate::{host::Host, unwind};
use futures_util::FutureExt;
use lambda_runtime::{Context, Diagnostic};
use std::{any::Any, panic::AssertUnwindSafe, sync::Arc};

/// Answers one event in JSON; a panic is an error like any other.
pub(super) async fn answer<Kind, H: Handler<Kind>>(
    host: &Arc<Host>,
    handler: &H,
    event: &str,
    context: Context,
) -> Result<Vec<u8>, Diagnostic> {
    let answering = AssertUnwindSafe(handler.answer(event, context)).catch_unwind();
    host.drive(answering)
        .await
        .unwrap_or_else(|panic| Err(panicked(&*panic)))
}

/// An error as AWS Lambda shows it to the caller.
pub(super) fn error_body(diagnostic: &Diagnostic) -> Vec<u8> {
    serde_json::json!({
        "errorType": diagnostic.error_type,
        "errorMessage": diagnostic.error_message,
    })
    .to_string()
    .into_bytes()
}

fn panicked(panic: &(dyn Any + Send)) -> Diagnostic {
    let message = unwind::message(panic);
    Diagnostic {
        error_type: "HandlerPanicked".to_owned(),
        error_message: format!("handler: panicked: {message}"),
    }
}
