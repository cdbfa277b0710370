//! One invocation's hold on a resource.

use super::{Fitness, Resource, Symptom, Usage};
use crate::{
    config::{CLEANUP_ROUND_TRIPS, LONGEST_ROUND_TRIP},
    error::Error,
};
use futures_util::future::BoxFuture;
use std::{
    fmt,
    future::{Future, ready},
    sync::Arc,
    time::Duration,
};

/// What one invocation holds of a resource: it knows what this invocation used, and cleans up that alone.
///
/// A client of your own needs none: it is shared as a whole through [`SharedHandle`].
///
/// Every method is called with a bound on its time and may be dropped at any `.await`.
pub trait Handle: Send + Sync + Sized + 'static {
    /// What it is a handle on.
    type Resource: Resource;

    /// A handle for one more invocation.
    fn new(resource: Arc<Self::Resource>) -> Self;

    /// What it is a handle on.
    fn resource(&self) -> &Self::Resource;

    /// Driven beside the handler while it runs, to find out why it has to wait; `None` if there is nothing to
    /// watch.
    fn watch(&self) -> Option<BoxFuture<'_, ()>> {
        None
    }

    /// What is known about a symptom whose cause the driver hides.
    fn explain(&self, symptom: Symptom) -> Option<Error> {
        let _ = symptom;
        None
    }

    /// The invocation ended abnormally (panic, deadline, dropped): nothing that is still checked out may be
    /// used again. Called before the handler's future is dropped, but after a panic has unwound it; must not
    /// block.
    fn stop(&self) {}

    /// The handler has ended, and what it used is going to be closed: what comes back from now on need not be fit
    /// for another invocation. Called at the end of a failed handler, before anything else can run, and again
    /// before the cleanup; must not block.
    fn closing(&self) {}

    /// Waits until everything that this invocation checked out is back, cancels what does not end by itself, and
    /// with `reuse` resets what it used; otherwise closes that.
    ///
    /// [`Fitness::Unfit`] ends the whole resource, which nobody else is using then.
    fn clean_up(&self, reuse: bool) -> impl Future<Output = Fitness> + Send {
        let _ = reuse;
        ready(Fitness::Fit)
    }

    /// Whether the resource may be closed when this was the last handle on it. What still runs on the server
    /// counts against `max` for as long as the resource lives.
    fn may_close(&self) -> bool {
        true
    }

    /// The number of this invocation among the users of `resource`, if this is a handle on that: for a driver whose
    /// connections are acquired without a handle.
    #[doc(hidden)]
    fn user_of(&self, resource: usize) -> Option<u64> {
        let _ = resource;
        None
    }

    /// How many connections are open and in use.
    fn usage(&self) -> Usage {
        self.resource().usage()
    }

    /// How long the cleanup may take, where that is longer than `reserve_ms` and the deadline leaves the time.
    fn cleanup_time(&self) -> Duration {
        self.resource().round_trip().min(LONGEST_ROUND_TRIP) * CLEANUP_ROUND_TRIPS
    }
}

/// A resource that invocations share as a whole.
pub struct SharedHandle<R>(Arc<R>);

impl<R: Resource> Handle for SharedHandle<R> {
    type Resource = R;

    fn new(resource: Arc<R>) -> Self {
        Self(resource)
    }

    fn resource(&self) -> &R {
        &self.0
    }

    fn watch(&self) -> Option<BoxFuture<'_, ()>> {
        self.0.watch()
    }

    fn explain(&self, symptom: Symptom) -> Option<Error> {
        self.0.explain(symptom)
    }

    fn stop(&self) {
        self.0.abandon();
    }

    fn closing(&self) {
        self.0.closing();
    }

    async fn clean_up(&self, reuse: bool) -> Fitness {
        match self.0.settle().await {
            Fitness::Fit if reuse => self.0.refresh().await,
            fitness => fitness,
        }
    }
}

impl<R: Resource> fmt::Debug for SharedHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedHandle").field(&R::NAME).finish()
    }
}
