//! What a handler returns.

use crate::{
    error::{Error, ErrorKind},
    resource::Symptom,
};
use std::{any::Any, error::Error as StdError};

/// The return type of a handler: a `Result` whose error can report a database failure.
#[diagnostic::on_unimplemented(
    message = "a handler must return a `Result`, not `{Self}`",
    label = "not a `Result`",
    note = "write `-> Result<{Self}, db_handler::Error>`"
)]
pub trait Answer: Sized {
    /// The answer when the handler could not run, or was stopped.
    fn failed(error: Error) -> Self;

    /// Whether this is an error.
    fn is_failure(&self) -> bool;

    /// Replaces a driver's vague error by the cause, where `explain` knows it and the error type
    /// shows what it holds.
    #[must_use]
    fn explained(self, explain: &dyn Fn(Symptom) -> Option<Error>) -> Self;
}

impl<T, E: HandlerError> Answer for Result<T, E> {
    fn failed(error: Error) -> Self {
        Err(E::report(error))
    }

    fn is_failure(&self) -> bool {
        self.is_err()
    }

    fn explained(self, explain: &dyn Fn(Symptom) -> Option<Error>) -> Self {
        self.map_err(|error| {
            if is_opaque(&error) {
                explain(Symptom::Unknown);
            } else if is_outdated(&error) {
                explain(Symptom::Outdated);
            }
            let cause = boxed(&error)
                .and_then(|boxed| ours(boxed).or_else(|| driver_symptom(boxed).and_then(explain)));
            match cause {
                Some(cause) => E::report(cause),
                None => error,
            }
        })
    }
}

/// The error type of a handler: anything that implements `From<db_handler::Error>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot report a database failure",
    label = "does not implement `From<db_handler::Error>`",
    note = "return `Result<_, db_handler::Error>`, or implement `From<db_handler::Error>` for `{Self}`"
)]
pub trait HandlerError: 'static {
    /// Turns the lifecycle's error into the handler's own.
    fn report(error: Error) -> Self;
}

#[diagnostic::do_not_recommend]
impl<E: From<Error> + 'static> HandlerError for E {
    fn report(error: Error) -> Self {
        Self::from(error)
    }
}

/// The error in a box, if `error` is one: `lambda_runtime::Error` or `anyhow::Error`.
pub(crate) fn boxed(error: &dyn Any) -> Option<&(dyn StdError + 'static)> {
    if let Some(boxed) = error.downcast_ref::<Box<dyn StdError + Send + Sync>>() {
        return Some(&**boxed);
    }
    #[cfg(feature = "anyhow")]
    if let Some(boxed) = error.downcast_ref::<anyhow::Error>() {
        return Some(&**boxed);
    }
    None
}

/// An error of ours that has gone through a driver.
#[cfg(feature = "_sql")]
fn ours(error: &(dyn StdError + 'static)) -> Option<Error> {
    crate::resource::sql::ours(error.downcast_ref()?).cloned()
}

#[cfg(not(feature = "_sql"))]
fn ours(_: &(dyn StdError + 'static)) -> Option<Error> {
    None
}

/// Whether `error` shows nothing of what is in it.
fn is_opaque(error: &dyn Any) -> bool {
    boxed(error).is_none() && !error.is::<Error>()
}

/// Whether a cause of `error` says that connections are of no more use: see [`Symptom::Outdated`]. It may have
/// come from a task of its own, where nobody knew whose connections those were.
fn is_outdated(error: &dyn Any) -> bool {
    let ours = error.downcast_ref::<Error>();
    let mut next = boxed(error).or(ours.map(|ours| ours as &(dyn StdError + 'static)));
    while let Some(cause) = next {
        if driver_symptom(cause) == Some(Symptom::Outdated) {
            return true;
        }
        next = cause.source();
    }
    false
}

fn driver_symptom(error: &(dyn StdError + 'static)) -> Option<Symptom> {
    #[cfg(feature = "_sql")]
    if let Some(error) = error.downcast_ref() {
        return crate::resource::sql::symptom(error);
    }
    #[cfg(feature = "mongodb")]
    if let Some(error) = error.downcast_ref() {
        return crate::resource::mongodb::symptom(error);
    }
    let _ = error;
    None
}

/// What kind of failure a driver's error is.
pub(crate) fn driver_kind(error: &(dyn StdError + 'static)) -> Option<ErrorKind> {
    #[cfg(feature = "_sql")]
    if let Some(error) = error.downcast_ref() {
        return Some(crate::resource::sql::kind(error));
    }
    #[cfg(feature = "mongodb")]
    if let Some(error) = error.downcast_ref() {
        return Some(crate::resource::mongodb::kind(error));
    }
    let _ = error;
    None
}
