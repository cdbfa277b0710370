//! The four phases of an invocation: *init once*, *reset*, *handler*, *cleanup*.
//!
//! The attribute calls [`handle`], which is compiled once per handler and therefore only calls the phases.

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

pub(crate) use cleanup::Cleanup;
pub(crate) use params::Params;
pub use params::default_close;

use crate::{
    error::Error,
    event::{Event, Invocation, response::HandlerResult},
    lifecycle::site::Site,
    resource::Symptom,
};
use cleanup::ExitStatus;
use invocation::{HandlerCall, Stopped};
use std::{future::Future, panic::resume_unwind};

/// What [`handle`] needs of a handler's event and response types.
///
/// A type of its own, because the compiler would report a bound on `handle` a second time, for the opaque
/// future that `handle` returns. This way it reports it once, on the type that the user wrote.
#[derive(Debug)]
pub struct Signature<Ev, Out> {
    invocation: fn(&Ev) -> Invocation,
    failed: fn(Error) -> Out,
    is_failure: fn(&Out) -> bool,
    explained: fn(Out, &dyn Fn(Symptom) -> Option<Error>) -> Out,
}

/// Creates the signature of a handler from `Ev` to `Out`.
#[must_use]
pub const fn signature<Ev: Event, Out: HandlerResult>() -> Signature<Ev, Out> {
    Signature {
        invocation: Ev::invocation,
        failed: Out::failed,
        is_failure: Out::is_failure,
        explained: Out::explained,
    }
}

/// Runs `body` with the resources `P` of `site`: opened or reset before it, reused or closed after it.
///
/// # Panics
/// If `body` panics, after the cleanup.
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
    let call = HandlerCall::begin(site, &(signature.invocation)(&event)).await;
    let guards = match P::inject(&call).await {
        Ok(guards) => guards,
        Err(error) => {
            call.end(ExitStatus::after(&error)).await;
            return (signature.failed)(error);
        }
    };
    let running = async {
        let response = body(event, guards).await;
        let succeeded = !(signature.is_failure)(&response);
        let (committed, exit) = call.commit_or_roll_back(succeeded).await;
        let response = match committed {
            Ok(()) => response,
            Err(error) => (signature.failed)(error),
        };
        (response, exit)
    };
    match call.drive(running).await {
        Ok((response, exit)) => {
            let response = (signature.explained)(response, &|symptom| call.explain(symptom));
            call.end(exit).await;
            response
        }
        Err(Stopped::Panic(panic)) => {
            call.end(ExitStatus::Panicked).await;
            resume_unwind(panic)
        }
        Err(Stopped::Deadline(error)) => {
            call.end(ExitStatus::DeadlinePassed).await;
            (signature.failed)(error)
        }
    }
}
