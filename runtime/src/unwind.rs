//! Panics in code that is not this crate's: a resource's own methods, a background task.

use crate::{
    error::{Error, ErrorKind},
    resource::Resource,
};
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

/// Awaits what `R`'s method `name` returns; a panic in it becomes an error. What has panicked is half-way
/// through something, and must not be used again.
pub(crate) async fn caught<R: Resource, Fut: Future>(
    name: &'static str,
    method: impl FnOnce() -> Fut,
) -> Result<Fut::Output, Error> {
    // The method is called in here, too: it may panic before there is a future.
    let calling = AssertUnwindSafe(async { method().await }).catch_unwind();
    calling.await.map_err(|panic| panicked::<R>(name, &*panic))
}

/// The same for a method that is not async and whose panic nobody can be told of: it is reported.
pub(crate) fn reported<R: Resource>(name: &'static str, method: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(method)) {
        report(&panicked::<R>(name, &*panic), "");
    }
}

/// Logs a panic that fails nobody.
pub(crate) fn report(error: &Error, handler: &str) {
    tracing::error!(handler, error = error.message(), "a resource panicked");
}

fn panicked<R: Resource>(name: &'static str, panic: &(dyn Any + Send)) -> Error {
    let text = format!("{} panicked in its `{name}`: {}", R::NAME, message(panic));
    Error::new(ErrorKind::Panicked, text)
}
