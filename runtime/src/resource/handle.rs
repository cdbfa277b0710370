//! One invocation's hold on a resource.

use super::{Health, Resource, Symptom, Usage};
use crate::{
    config::{CLEANUP_ROUND_TRIPS, MAX_ROUND_TRIP},
    error::Error,
};
use futures_util::future::BoxFuture;
use std::{
    fmt,
    future::{Future, ready},
    sync::Arc,
    time::Duration,
};

/// One invocation's hold on a resource. It tracks what this invocation used, and cleans up only that.
///
/// A client of your own needs no handle: it is shared as a whole through [`SharedHandle`].
///
/// Every method call is bounded in time, and its future may be dropped at any `.await`.
pub trait Handle: Send + Sync + Sized + 'static {
    /// The resource of this handle.
    type Resource: Resource;

    /// Creates the handle of another invocation.
    fn new(resource: Arc<Self::Resource>) -> Self;

    /// The resource of this handle.
    fn resource(&self) -> &Self::Resource;

    /// Returns a future that is polled beside the handler to find out why it waits, or `None` if there is
    /// nothing to watch.
    fn watch(&self) -> Option<BoxFuture<'_, ()>> {
        None
    }

    /// Returns the cause of a symptom that the driver does not explain, if it is known.
    fn explain(&self, symptom: Symptom) -> Option<Error> {
        let _ = symptom;
        None
    }

    /// Called when the invocation ended abnormally (panic, deadline, dropped future): connections that are
    /// still checked out must not be reused. Called before the handler's future is dropped, but after a panic
    /// has unwound it. Must not block.
    fn stop(&self) {}

    /// Called when the handler has ended and what it used is about to be closed: connections that are released
    /// from now on need not be reusable. Called at the end of a failed handler, before anything else can run,
    /// and again before the cleanup. Must not block.
    fn closing(&self) {}

    /// Drains what this invocation checked out: waits until it is released, and cancels what does not end by
    /// itself. With `reuse`, resets what the invocation used; otherwise closes it.
    ///
    /// [`Health::Broken`] retires the whole resource, which no other invocation is using then.
    fn clean_up(&self, reuse: bool) -> impl Future<Output = Health> + Send {
        let _ = reuse;
        ready(Health::Healthy)
    }

    /// Returns whether the resource may be closed after its last handle. A query that still runs on the server
    /// counts against `max` for as long as the resource lives.
    fn may_close(&self) -> bool {
        true
    }

    /// Returns the number of this invocation among the users of `resource`, if this is a handle on it. For a
    /// driver whose connections are acquired without a handle.
    #[doc(hidden)]
    fn user_of(&self, resource: usize) -> Option<u64> {
        let _ = resource;
        None
    }

    /// Returns how many connections are open and in use.
    fn usage(&self) -> Usage {
        self.resource().usage()
    }

    /// Returns how long the cleanup may take, if that is longer than `reserve_ms` and the deadline leaves the
    /// time.
    fn cleanup_time(&self) -> Duration {
        self.resource().round_trip().min(MAX_ROUND_TRIP) * CLEANUP_ROUND_TRIPS
    }
}

/// The handle on a resource that invocations share as a whole.
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
        self.0.stop();
    }

    fn closing(&self) {
        self.0.closing();
    }

    async fn clean_up(&self, reuse: bool) -> Health {
        self.0.recycle(reuse).await
    }
}

impl<R: Resource> fmt::Debug for SharedHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedHandle").field(&R::NAME).finish()
    }
}
