//! Panics in code that is not this crate's: a resource's own methods, a background task.

use crate::error::{Error, ErrorKind};
use futures_util::FutureExt;
use std::{
    any::Any,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// What a panic says.
pub(crate) fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("with no message")
}

/// Awaits what the method `name` of `resource` returns. A panic in it becomes an error: the resource may be left in
/// the middle of something, and must not be used again.
pub(crate) async fn catch_panic<Fut: Future>(
    resource: &'static str,
    name: &'static str,
    method: impl FnOnce() -> Fut,
) -> Result<Fut::Output, Error> {
    // The method is called in here, too: it may panic before there is a future.
    let calling = AssertUnwindSafe(async { method().await }).catch_unwind();
    calling
        .await
        .map_err(|panic| panicked(resource, name, &*panic))
}

/// The same for a method that is not async and has no caller to return an error to: the panic is logged.
pub(crate) fn log_panic(resource: &'static str, name: &'static str, method: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(method)) {
        report(&panicked(resource, name, &*panic), "");
    }
}

/// Logs a panic that fails no invocation.
pub(crate) fn report(error: &Error, handler: &str) {
    tracing::error!(handler, error = error.message(), "a resource panicked");
}

fn panicked(resource: &'static str, name: &'static str, panic: &(dyn Any + Send)) -> Error {
    let text = format!("{resource} panicked in its `{name}`: {}", message(panic));
    Error::new(ErrorKind::Panicked, text)
}
