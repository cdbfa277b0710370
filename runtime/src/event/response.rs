//! A handler's return type: results, and their errors.

use crate::{
    drivers,
    error::{Error, ErrorKind},
    resource::Symptom,
};
use lambda_runtime::Diagnostic;
use std::{any::Any, error::Error as StdError};

/// The return type of a handler: a `Result` whose error can report a database failure.
#[diagnostic::on_unimplemented(
    message = "a handler must return a `Result`, not `{Self}`",
    label = "not a `Result`",
    note = "write `-> Result<{Self}, db_handler::Error>`"
)]
pub trait HandlerResult: Sized {
    /// Creates the response of a handler that could not run, or was cancelled.
    fn failed(error: Error) -> Self;

    /// Returns whether this is an error.
    fn is_failure(&self) -> bool;

    /// Replaces a driver's vague error with its cause, if `explain` knows the cause and the error type exposes
    /// the driver's error.
    #[must_use]
    fn explained(self, explain: &dyn Fn(Symptom) -> Option<Error>) -> Self;
}

impl<T, E: HandlerError> HandlerResult for Result<T, E> {
    fn failed(error: Error) -> Self {
        Err(E::report(error))
    }

    fn is_failure(&self) -> bool {
        self.is_err()
    }

    fn explained(self, explain: &dyn Fn(Symptom) -> Option<Error>) -> Self {
        self.map_err(|error| {
            if let Some(symptom) = what_it_shows(&error) {
                explain(symptom);
            }
            let cause = boxed(&error).and_then(|boxed| {
                drivers::ours(boxed).or_else(|| drivers::symptom(boxed).and_then(explain))
            });
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
    /// Converts the lifecycle's error to the handler's own.
    fn report(error: Error) -> Self;
}

#[diagnostic::do_not_recommend]
impl<E: From<Error> + 'static> HandlerError for E {
    fn report(error: Error) -> Self {
        Self::from(error)
    }
}

/// Returns the error in a box, if `error` is one: `lambda_runtime::Error` or `anyhow::Error`.
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

/// Converts a handler's error to what is reported to the platform. A boxed error gets a readable type and its
/// whole chain of causes; `lambda_runtime` alone would report the box's type and the outermost text.
pub(crate) fn diagnose<E: Into<Diagnostic> + 'static>(error: E) -> Diagnostic {
    if let Some(boxed) = boxed(&error) {
        return describe(boxed);
    }
    let wrapped: &dyn Any = &error;
    if let Some(ours) = wrapped.downcast_ref::<Error>() {
        return describe(ours);
    }
    let diagnostic: Diagnostic = error.into();
    // `lambda_runtime` uses the name of a reference type for an error that it does not know.
    if diagnostic.error_type.starts_with('&') {
        return Diagnostic {
            error_type: ErrorKind::Handler.error_type().to_owned(),
            ..diagnostic
        };
    }
    diagnostic
}

/// Reports the kind of the first known error in the chain, and the texts of the chain.
pub(crate) fn describe(error: &(dyn StdError + 'static)) -> Diagnostic {
    let kind = causes(error).find_map(known_kind);
    Diagnostic {
        error_type: kind.unwrap_or(ErrorKind::Handler).error_type().to_owned(),
        error_message: chain(error),
    }
}

/// Returns the kind of `error`, if it is more specific than [`ErrorKind::Handler`].
fn known_kind(error: &(dyn StdError + 'static)) -> Option<ErrorKind> {
    let kind = match error.downcast_ref::<Error>() {
        Some(ours) => ours.kind(),
        None => drivers::kind(error)?,
    };
    (kind != ErrorKind::Handler).then_some(kind)
}

/// Joins the texts of `error` and of its causes. A cause that its error's text already contains is left out.
///
/// Ends with the first [`Error`] that is more than a wrapper: its text is complete, and its causes may be as
/// long as a driver's topology description of a whole cluster.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    let mut said = String::new();
    for cause in causes(error) {
        let own = cause.to_string();
        let ours = cause.downcast_ref::<Error>();
        if !said.contains(ours.map_or(own.as_str(), Error::message)) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(own.trim_end());
        }
        said = own;
        if ours.is_some_and(|ours| ours.kind() != ErrorKind::Handler) {
            break;
        }
    }
    text
}

fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// Returns what `error` shows about the connections: [`Symptom::Outdated`], [`Symptom::Unknown`] if it shows
/// nothing, or `None` if they are not the cause. The error may come from a task of its own, in which its
/// connections' owner is unknown.
fn what_it_shows(error: &dyn Any) -> Option<Symptom> {
    let ours = error.downcast_ref::<Error>();
    let mut next = boxed(error).or(ours.map(|ours| ours as &(dyn StdError + 'static)));
    let mut by_the_driver = false;
    let mut by_the_commit = false;
    while let Some(cause) = next {
        if drivers::symptom(cause) == Some(Symptom::Outdated) {
            return Some(Symptom::Outdated);
        }
        by_the_driver |= drivers::kind(cause).is_some();
        by_the_commit |= is_of_a_commit(cause);
        next = cause.source();
    }
    // A driver's error that was turned into text shows as little as a type that only the handler knows. A
    // commit that PostgreSQL refuses does not show which statement failed before it.
    (by_the_commit || !by_the_driver).then_some(Symptom::Unknown)
}

/// Returns whether `error` is that of a transaction that was not committed.
fn is_of_a_commit(error: &(dyn StdError + 'static)) -> bool {
    let ours = error.downcast_ref::<Error>();
    ours.is_some_and(|ours| ours.kind() == ErrorKind::CommitFailed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fmt, io};

    type BoxError = Box<dyn StdError + Send + Sync>;

    #[derive(Debug)]
    struct Context(&'static str, BoxError);

    impl fmt::Display for Context {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl StdError for Context {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&*self.1)
        }
    }

    fn context(text: &'static str, cause: impl Into<BoxError>) -> BoxError {
        Box::new(Context(text, cause.into()))
    }

    #[test]
    fn boxed_error_has_its_chain_and_a_readable_type() {
        let diagnostic = diagnose(context("cannot save", io::Error::other("disk full")));
        assert_eq!(diagnostic.error_type, "Handler");
        assert_eq!(diagnostic.error_message, "cannot save: disk full");
    }

    #[test]
    fn the_kind_of_the_cause_is_the_type() {
        let cause =
            Error::new(ErrorKind::ConnectionRefused, "nobody listens").caused_by("a long story");
        let diagnostic = diagnose(context("cannot save", cause.clone()));
        assert_eq!(diagnostic.error_type, "ConnectionRefused");
        assert_eq!(
            diagnostic.error_message,
            "cannot save: handler: nobody listens"
        );
        // The same in an [`Error`] that wraps any other.
        let diagnostic = diagnose(Error::other(context("cannot save", cause)));
        assert_eq!(diagnostic.error_type, "ConnectionRefused");
        assert_eq!(
            diagnostic.error_message,
            "handler: cannot save: handler: nobody listens"
        );
    }

    #[cfg(feature = "anyhow")]
    #[test]
    fn context_of_anyhow_does_not_hide_the_cause() {
        let error = anyhow::Error::new(Error::new(ErrorKind::PoolExhausted, "2 of 2 in use"));
        let diagnostic = diagnose(error.context("cannot save"));
        assert_eq!(diagnostic.error_type, "PoolExhausted");
        assert_eq!(
            diagnostic.error_message,
            "cannot save: handler: 2 of 2 in use"
        );
    }

    #[test]
    fn texts_have_a_readable_type() {
        assert_eq!(diagnose("no luck".to_owned()).error_type, "Handler");
        assert_eq!(diagnose("no luck").error_message, "no luck");
    }
}
