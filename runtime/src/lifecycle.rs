//! The four phases of an invocation: *init once*, *reset*, *handler*, *finally*.
//!
//! [`handle`] is what the attribute calls. It is generic and short; what it calls is neither.

mod acquire;
pub(crate) mod background;
mod cleanup;
mod invocation;
mod params;
pub(crate) mod registry;
pub(crate) mod scope;
pub(crate) mod shutdown;
pub(crate) mod site;
mod slot;
#[cfg_attr(
    not(feature = "local"),
    allow(dead_code, reason = "only the local mode looks at it")
)]
pub(crate) mod timeline;

pub(crate) use cleanup::Finally;
pub(crate) use params::Params;
pub use params::default_close;

use crate::{
    error::Error,
    event::{Event, Invocation, response::Answer},
    lifecycle::site::Site,
    resource::{Outcome, Symptom},
};
use cleanup::Ending;
use invocation::{Session, Stopped};
use std::{future::Future, panic::resume_unwind};

/// What [`handle`] needs to know of a handler's event and answer types.
///
/// A bound on `handle` itself would be reported again for the opaque future that it returns: the
/// compiler is to say it once, on the type that the user wrote.
#[derive(Debug)]
pub struct Signature<Ev, Out> {
    invocation: fn(&Ev) -> Invocation,
    failed: fn(Error) -> Out,
    is_failure: fn(&Out) -> bool,
    explained: fn(Out, &dyn Fn(Symptom) -> Option<Error>) -> Out,
}

/// The signature of a handler from `Ev` to `Out`.
#[must_use]
pub const fn signature<Ev: Event, Out: Answer>() -> Signature<Ev, Out> {
    Signature {
        invocation: Ev::invocation,
        failed: Out::failed,
        is_failure: Out::is_failure,
        explained: Out::explained,
    }
}

/// Runs `body` with the resources `P` of `site`: opened or reset before it, closed or kept after it.
///
/// # Panics
/// When `body` does, after the *finally*.
pub async fn handle<P, Out, Ev, F, Fut>(
    site: &'static Site,
    signature: Signature<Ev, Out>,
    event: Ev,
    body: F,
) -> Out
where
    P: Params,
    F: FnOnce(Ev, P::Guards) -> Fut,
    Fut: Future<Output = Out>,
{
    let session = Session::begin(site, &(signature.invocation)(&event)).await;
    let guards = match P::lend(&session).await {
        Ok(guards) => guards,
        Err(error) => {
            session.end(Ending::after(&error)).await;
            return (signature.failed)(error);
        }
    };
    let running = async {
        let answer = body(event, guards).await;
        let outcome = if (signature.is_failure)(&answer) {
            Outcome::Failed
        } else {
            Outcome::Succeeded
        };
        let (concluded, ending) = session.conclude(outcome).await;
        let answer = match concluded {
            Ok(()) => answer,
            Err(error) => (signature.failed)(error),
        };
        (answer, ending)
    };
    match session.drive(running).await {
        Ok((answer, ending)) => {
            let answer = (signature.explained)(answer, &|symptom| session.explain(symptom));
            session.end(ending).await;
            answer
        }
        Err(Stopped::Panic(panic)) => {
            session.end(Ending::Panicked).await;
            resume_unwind(panic)
        }
        Err(Stopped::Deadline(error)) => {
            session.end(Ending::DeadlinePassed).await;
            (signature.failed)(error)
        }
    }
}
