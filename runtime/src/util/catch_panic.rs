//! Catches panics of foreign code: a resource's methods, a background task.

use crate::error::{Error, ErrorKind};
use futures_util::FutureExt;
use std::{
    any::Any,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Returns the message of a panic.
pub(crate) fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("with no message")
}

/// Calls the method `name` of `resource` and awaits its future. A panic becomes an error: the resource's state
/// is unknown, and it must not be used again.
pub(crate) async fn catch_panic<Fut: Future>(
    resource: &'static str,
    name: &'static str,
    method: impl FnOnce() -> Fut,
) -> Result<Fut::Output, Error> {
    // Inside the future, because the method may panic before it returns one.
    let calling = AssertUnwindSafe(async { method().await }).catch_unwind();
    calling
        .await
        .map_err(|panic| panicked(resource, name, &*panic))
}

/// Like [`catch_panic`], for a method that is not async and whose caller takes no error: logs the panic.
pub(crate) fn log_panic(resource: &'static str, name: &'static str, method: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(method)) {
        report(&panicked(resource, name, &*panic), "");
    }
}

/// Logs a panic that does not fail the invocation.
pub(crate) fn report(error: &Error, handler: &str) {
    tracing::error!(handler, error = error.message(), "a resource panicked");
}

fn panicked(resource: &'static str, name: &'static str, panic: &(dyn Any + Send)) -> Error {
    let text = format!("{resource} panicked in its `{name}`: {}", message(panic));
    Error::new(ErrorKind::Panicked, text)
}
