//! Phase 3: runs the handler until its deadline, and catches its panics.

use super::{
    acquire,
    background::Background,
    cleanup::{Cleanup, ExitStatus, HeldLease, Release},
    scope::InvocationScope,
    site::Site,
    timeline::Phase,
};
use crate::{
    error::{Error, ErrorKind, Stage},
    event::Invocation,
    resource::{
        AcquireContext, Handle, Resource, Symptom, Usage,
        running::{Running, in_handler},
    },
    util::{catch_panic::log_panic, lock::lock},
};
use futures_util::future::{BoxFuture, FutureExt, join_all};
use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};
use tokio::{
    task::coop::{Unconstrained, unconstrained},
    time::{Instant, Sleep, sleep_until},
};

/// The resources of one invocation, while its handler runs.
#[derive(Clone, Default)]
struct Injected {
    handler: &'static str,
    /// The handler's work is being committed.
    committing: Arc<AtomicBool>,
    /// In the order of the parameters, not in that of their opening.
    resources: Vec<(usize, Arc<dyn Probe>)>,
}

impl Injected {
    fn explain(&self, symptom: Symptom) -> Option<Error> {
        self.resources
            .iter()
            .find_map(|(_, resource)| resource.explain(symptom))
            .map(|error| error.at(Stage::Acquire).in_handler(self.handler))
    }

    fn stop(&self) {
        for (_, resource) in &self.resources {
            resource.stop();
        }
    }

    fn add(&mut self, parameter: usize, resource: Arc<dyn Probe>) {
        let before = self
            .resources
            .iter()
            .filter(|(other, _)| *other < parameter);
        self.resources.insert(before.count(), (parameter, resource));
    }
}

impl Running for Injected {
    fn explain(&self, symptom: Symptom) -> Option<Error> {
        self.explain(symptom)
    }

    fn user_of(&self, resource: usize) -> Option<u64> {
        self.resources
            .iter()
            .find_map(|(_, one)| one.user_of(resource))
    }

    fn set_committing(&self, committing: bool) {
        self.committing.store(committing, Ordering::Relaxed);
    }
}

/// Abandons the injected resources on drop, unless it is forgotten.
struct StopOnDrop<'a>(&'a Injected);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// The view of a resource while the handler uses it.
trait Probe: Send + Sync {
    fn name(&self) -> &'static str;
    fn usage(&self) -> Usage;
    fn explain(&self, symptom: Symptom) -> Option<Error>;
    fn watch(&self) -> Option<BoxFuture<'_, ()>>;
    fn user_of(&self, resource: usize) -> Option<u64>;
    fn stop(&self);
}

impl<H: Handle> Probe for H {
    fn name(&self) -> &'static str {
        H::Resource::NAME
    }

    fn usage(&self) -> Usage {
        H::usage(self)
    }

    fn explain(&self, symptom: Symptom) -> Option<Error> {
        H::explain(self, symptom)
    }

    fn watch(&self) -> Option<BoxFuture<'_, ()>> {
        let watching = H::watch(self)?;
        // Watching only provides explanations: a panic in it must not affect the handler.
        let watching = AssertUnwindSafe(watching).catch_unwind();
        Some(Box::pin(watching.map(drop)))
    }

    fn user_of(&self, resource: usize) -> Option<u64> {
        H::user_of(self, resource)
    }

    fn stop(&self) {
        log_panic(H::Resource::NAME, "stop", || H::stop(self));
    }
}

/// One invocation of one handler.
#[allow(missing_debug_implementations, reason = "seen by the expansion only")]
pub struct HandlerCall {
    site: &'static Site,
    started: Instant,
    deadline: Option<Instant>,
    stop_at: Option<Instant>,
    injected: Mutex<Injected>,
    to_commit: Mutex<Vec<(usize, Commit)>>,
    committing: Arc<AtomicBool>,
    cleanup: Arc<Cleanup>,
    scope: Option<Arc<InvocationScope>>,
    over: bool,
}

/// Commits the handler's work with one parameter (`true`), or rolls it back (`false`).
pub(super) type Commit = Box<dyn FnOnce(bool) -> BoxFuture<'static, Result<(), Error>> + Send>;

/// Why a handler did not end normally.
pub(super) enum Stopped {
    Panic(Box<dyn Any + Send>),
    Deadline(Error),
}

impl HandlerCall {
    pub(super) async fn begin(site: &'static Site, invocation: &Invocation) -> Self {
        let scope = InvocationScope::current();
        if let Some(scope) = &scope {
            // A handler may be called several times for one event: the deferred cleanup of the call before
            // would delay this one.
            Box::pin(scope.finish_ended()).await;
        } else if !invocation.request_id.is_empty() {
            InvocationScope::advise(site.name());
        }
        let started = Instant::now();
        let stop_at = stop_at(site, started, invocation.deadline);
        let cleanup = Arc::new(Cleanup::new(site, invocation.deadline, stop_at));
        if let Some(scope) = &scope {
            scope.defer(Arc::clone(&cleanup));
        }
        tracing::trace!(
            handler = site.name(),
            request_id = invocation.request_id,
            "begin"
        );
        let committing = Arc::new(AtomicBool::new(false));
        Self {
            site,
            started,
            deadline: invocation.deadline,
            stop_at,
            injected: Mutex::new(Injected {
                handler: site.name(),
                committing: Arc::clone(&committing),
                resources: Vec::new(),
            }),
            to_commit: Mutex::default(),
            committing,
            cleanup,
            scope,
            over: false,
        }
    }

    /// Leases the resource of parameter number `parameter`, opened or reset. The cleanup calls `release`.
    pub(super) async fn lease<H: Handle>(
        &self,
        parameter: usize,
        release: Release<H>,
    ) -> Result<(Arc<H>, AcquireContext), Error> {
        let settings = self.site.settings::<H::Resource>(parameter);
        let acquire = AcquireContext::new(self.site.name(), settings, self.stop_at);
        let slot = self.site.slot::<H::Resource>(parameter);
        let timeline = self.scope.as_ref().and_then(|scope| scope.timeline());
        let mut retired = Vec::new();
        let leased = Box::pin(acquire::lease(&slot, &acquire, timeline, &mut retired)).await;
        let leased = leased.map(|lease| {
            let handle = Arc::new(H::new(lease.share()));
            (lease, handle)
        });
        let handle = match &leased {
            Ok((_, handle)) => Ok(Arc::clone(handle)),
            Err(error) => Err(error.clone()),
        };
        self.cleanup.hold(HeldLease {
            settings,
            leased: leased.ok(),
            release,
            retired,
        });
        let handle = handle?;
        lock(&self.injected).add(parameter, Arc::clone(&handle) as Arc<dyn Probe>);
        Ok((handle, acquire))
    }

    /// Registers work of parameter number `parameter`, to be committed or rolled back after the handler.
    pub(super) fn must_commit(&self, parameter: usize, commit: Commit) {
        lock(&self.to_commit).push((parameter, commit));
    }

    /// Commits the handler's work, parameter by parameter. Rolls it back if the handler has not `succeeded`,
    /// and once a commit has failed.
    pub(super) async fn commit_or_roll_back(
        &self,
        mut succeeded: bool,
    ) -> (Result<(), Error>, ExitStatus) {
        let mut all = std::mem::take(&mut *lock(&self.to_commit));
        all.sort_by_key(|(parameter, _)| *parameter);
        let mut committed = Ok(());
        let mut panicked = false;
        for (done, (_, commit)) in all.into_iter().enumerate() {
            self.committing.store(succeeded, Ordering::Relaxed);
            let Err(error) = commit(succeeded).await else {
                continue;
            };
            panicked |= error.kind() == ErrorKind::Panicked;
            if succeeded {
                succeeded = false;
                let error = match done {
                    0 => error,
                    _ => error.adding(&format!("; {done} before it had been committed")),
                };
                committed = Err(error.at(Stage::Commit).in_handler(self.site.name()));
            }
        }
        self.committing.store(false, Ordering::Relaxed);
        let exit = if panicked {
            ExitStatus::Panicked
        } else if succeeded {
            ExitStatus::Succeeded
        } else {
            ExitStatus::Failed
        };
        (committed, exit)
    }

    /// Returns the invocation's background tasks.
    pub(super) fn background(&self) -> Background {
        self.cleanup.background()
    }

    /// Runs the handler until it ends, panics or reaches its deadline.
    pub(super) async fn drive<F: Future>(&self, handler: F) -> Result<F::Output, Stopped> {
        let from = Instant::now();
        let stop_at = self.stop_at;
        let injected = Arc::new(lock(&self.injected).clone());
        let mut watching = watching(&injected.resources);
        let outcome = {
            let mut handler = pin!(AssertUnwindSafe(handler).catch_unwind());
            // A handler that is always ready uses up tokio's cooperative budget. A timer that shares the budget
            // would never fire.
            let mut alarm: Option<Pin<Box<Unconstrained<Sleep>>>> = None;
            let racing = poll_fn(|cx| {
                if let Poll::Ready(outcome) = handler.as_mut().poll(cx) {
                    return Poll::Ready(Some(outcome));
                }
                // Its output is empty: resources store what they find out.
                watching.take_if(|watching| watching.poll_unpin(cx).is_ready());
                let Some(stop_at) = stop_at else {
                    return Poll::Pending;
                };
                let alarm =
                    alarm.get_or_insert_with(|| Box::pin(unconstrained(sleep_until(stop_at))));
                alarm.as_mut().poll(cx).map(|()| None)
            });
            // Dropped before the handler's future, so that no connection that the handler holds is reused. (A
            // panic has already unwound the handler.)
            let unless_it_ends = StopOnDrop(&injected);
            let outcome = in_handler(Arc::clone(&injected) as Arc<dyn Running>, racing).await;
            if let Some(Ok(_)) = outcome {
                std::mem::forget(unless_it_ends);
            }
            // Built before the handler's future is dropped, because it describes what the handler holds and
            // waits for.
            outcome.ok_or_else(|| self.deadline_error())
        };
        if let Some(timeline) = self.scope.as_ref().and_then(|scope| scope.timeline()) {
            let how = match &outcome {
                Ok(Ok(_)) => "ran",
                Ok(Err(_)) => "panicked",
                Err(_) => "stopped before the deadline",
            };
            timeline.add(Phase::Handler, from, how.to_owned());
        }
        match outcome {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(panic)) => Err(Stopped::Panic(panic)),
            Err(deadline) => Err(Stopped::Deadline(deadline)),
        }
    }

    pub(super) fn explain(&self, symptom: Symptom) -> Option<Error> {
        lock(&self.injected).explain(symptom)
    }

    /// Ends the invocation. With a scope, the cleanup is deferred, otherwise it runs now.
    pub(super) async fn end(mut self, exit: ExitStatus) {
        self.over = true;
        self.cleanup.ended(exit);
        lock(&self.injected).resources.clear();
        if self.scope.is_none() {
            // Boxed, like opening, to keep the handler's future small.
            Box::pin(self.cleanup.run(None)).await;
        }
    }

    fn deadline_error(&self) -> Error {
        let waiting = self
            .explain(Symptom::TimedOut)
            .map_or_else(String::new, |cause| {
                format!("; it was waiting: {}", cause.message())
            });
        let half_way = if self.committing.load(Ordering::Relaxed) {
            "; the deadline passed during COMMIT: the transaction may or may not have been committed"
        } else {
            ""
        };
        let usage: Vec<String> = lock(&self.injected)
            .resources
            .iter()
            .map(|(_, resource)| format!("{} {}", resource.name(), resource.usage()))
            .collect();
        Error::new(
            ErrorKind::DeadlineExceeded,
            format!(
                "stopped after {} ms, {} ms before the deadline ({}){waiting}{half_way}: raise the function's timeout, or do less per event",
                self.started.elapsed().as_millis(),
                self.deadline
                    .map(|deadline| deadline.saturating_duration_since(Instant::now()))
                    .unwrap_or_default()
                    .as_millis(),
                usage.join(", ")
            ),
        )
        .at(Stage::Handler)
        .in_handler(self.site.name())
    }
}

impl Drop for HandlerCall {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        lock(&self.injected).stop();
        self.cleanup.ended(ExitStatus::Dropped);
        if self.scope.is_none() {
            Arc::clone(&self.cleanup).run_detached();
        }
    }
}

/// Returns when the handler is cancelled: its reserve before the deadline, but never in the first half of the
/// time that is left.
pub(super) fn stop_at(site: &Site, started: Instant, deadline: Option<Instant>) -> Option<Instant> {
    let left = deadline?.saturating_duration_since(started);
    Some(started + left.saturating_sub(site.reserve()).max(left / 2))
}

/// Combines the watching futures of all resources; `None` if there is none.
fn watching(resources: &[(usize, Arc<dyn Probe>)]) -> Option<BoxFuture<'_, ()>> {
    let watching: Vec<_> = resources
        .iter()
        .filter_map(|(_, one)| one.watch())
        .collect();
    if watching.is_empty() {
        return None;
    }
    Some(Box::pin(join_all(watching).map(drop)))
}
