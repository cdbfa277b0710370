//! Phase 3: the handler, raced against its deadline, with its panics caught.

use super::{
    acquire,
    background::Background,
    cleanup::{Ending, Finally, Holding, Release},
    scope::Host,
    site::Site,
    timeline::Phase,
};
use crate::{
    error::{Error, ErrorKind, Stage},
    event::Invocation,
    resource::{
        Acquire, Handle, Outcome, Resource, Symptom, Usage,
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

/// The resources of one invocation, for as long as its handler runs.
#[derive(Clone, Default)]
struct Lent {
    handler: &'static str,
    /// What the handler did is being made to last.
    concluding: Arc<AtomicBool>,
    /// In the order of the parameters, whoever was there first.
    resources: Vec<(usize, Arc<dyn Probe>)>,
}

impl Lent {
    fn explain(&self, symptom: Symptom) -> Option<Error> {
        self.resources
            .iter()
            .find_map(|(_, resource)| resource.explain(symptom))
            .map(|error| error.at(Stage::Acquire).in_handler(self.handler))
    }

    fn abandon(&self) {
        for (_, resource) in &self.resources {
            resource.abandon();
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

impl Running for Lent {
    fn explain(&self, symptom: Symptom) -> Option<Error> {
        self.explain(symptom)
    }

    fn user_of(&self, resource: usize) -> Option<u64> {
        self.resources
            .iter()
            .find_map(|(_, one)| one.user_of(resource))
    }

    fn set_committing(&self, committing: bool) {
        self.concluding.store(committing, Ordering::Relaxed);
    }
}

/// Abandons what was lent, unless it is forgotten.
struct AbandonOnDrop<'a>(&'a Lent);

impl Drop for AbandonOnDrop<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// What can be asked of a resource while the handler has it.
trait Probe: Send + Sync {
    fn name(&self) -> &'static str;
    fn usage(&self) -> Usage;
    fn explain(&self, symptom: Symptom) -> Option<Error>;
    fn watch(&self) -> Option<BoxFuture<'_, ()>>;
    fn user_of(&self, resource: usize) -> Option<u64>;
    fn abandon(&self);
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
        // It watches for explanations: without them the handler does as well.
        let watching = AssertUnwindSafe(watching).catch_unwind();
        Some(Box::pin(watching.map(drop)))
    }

    fn user_of(&self, resource: usize) -> Option<u64> {
        H::user_of(self, resource)
    }

    fn abandon(&self) {
        log_panic(H::Resource::NAME, "stop", || H::stop(self));
    }
}

/// One invocation of one handler.
#[allow(missing_debug_implementations, reason = "seen by the expansion only")]
pub struct Session {
    site: &'static Site,
    started: Instant,
    deadline: Option<Instant>,
    stop_at: Option<Instant>,
    lent: Mutex<Lent>,
    to_conclude: Mutex<Vec<(usize, Conclude)>>,
    concluding: Arc<AtomicBool>,
    finally: Arc<Finally>,
    host: Option<Arc<Host>>,
    over: bool,
}

/// Makes what the handler did with one parameter last, or undoes it.
pub(super) type Conclude = Box<dyn FnOnce(Outcome) -> BoxFuture<'static, Result<(), Error>> + Send>;

/// Why a handler did not end by itself.
pub(super) enum Stopped {
    Panic(Box<dyn Any + Send>),
    Deadline(Error),
}

impl Session {
    pub(super) async fn begin(site: &'static Site, invocation: &Invocation) -> Self {
        let host = Host::current();
        if let Some(host) = &host {
            // A handler may be called several times for one event: what the last call left to be
            // done after the answer is in the way of the next.
            Box::pin(host.finish_ended()).await;
        } else if !invocation.request_id.is_empty() {
            Host::advise(site.name());
        }
        let started = Instant::now();
        let stop_at = stop_at(site, started, invocation.deadline);
        let finally = Arc::new(Finally::new(site, invocation.deadline, stop_at));
        if let Some(host) = &host {
            host.defer(Arc::clone(&finally));
        }
        tracing::trace!(
            handler = site.name(),
            request_id = invocation.request_id,
            "begin"
        );
        let concluding = Arc::new(AtomicBool::new(false));
        Self {
            site,
            started,
            deadline: invocation.deadline,
            stop_at,
            lent: Mutex::new(Lent {
                handler: site.name(),
                concluding: Arc::clone(&concluding),
                resources: Vec::new(),
            }),
            to_conclude: Mutex::default(),
            concluding,
            finally,
            host,
            over: false,
        }
    }

    /// Gets a handle on resource number `parameter`, opened or reset; `release` is called in the cleanup.
    pub(super) async fn lease<H: Handle>(
        &self,
        parameter: usize,
        release: Release<H>,
    ) -> Result<(Arc<H>, Acquire), Error> {
        let settings = self.site.settings::<H::Resource>(parameter);
        let acquire = Acquire::new(self.site.name(), settings, self.stop_at);
        let slot = self.site.slot::<H::Resource>(parameter);
        let timeline = self.host.as_ref().and_then(|host| host.timeline());
        let mut outdated = Vec::new();
        let leased = Box::pin(acquire::lease(&slot, &acquire, timeline, &mut outdated)).await;
        let leased = leased.map(|lease| {
            let handle = Arc::new(H::new(lease.share()));
            (lease, handle)
        });
        let handle = match &leased {
            Ok((_, handle)) => Ok(Arc::clone(handle)),
            Err(error) => Err(error.clone()),
        };
        self.finally.hold(Holding {
            settings,
            leased: leased.ok(),
            release,
            outdated,
        });
        let handle = handle?;
        lock(&self.lent).add(parameter, Arc::clone(&handle) as Arc<dyn Probe>);
        Ok((handle, acquire))
    }

    /// Parameter number `parameter` has something to do between the handler's end and its answer.
    pub(super) fn concludes(&self, parameter: usize, conclude: Conclude) {
        lock(&self.to_conclude).push((parameter, conclude));
    }

    /// The handler has returned: concludes what it was lent, one after the other.
    pub(super) async fn conclude(&self, mut outcome: Outcome) -> (Result<(), Error>, Ending) {
        let mut all = std::mem::take(&mut *lock(&self.to_conclude));
        all.sort_by_key(|(parameter, _)| *parameter);
        let mut concluded = Ok(());
        let mut panicked = false;
        for (done, (_, conclude)) in all.into_iter().enumerate() {
            self.concluding
                .store(outcome == Outcome::Succeeded, Ordering::Relaxed);
            let Err(error) = conclude(outcome).await else {
                continue;
            };
            panicked |= error.kind() == ErrorKind::Panicked;
            if outcome == Outcome::Succeeded {
                outcome = Outcome::Failed;
                let error = match done {
                    0 => error,
                    _ => error.adding(&format!("; {done} before it had been committed")),
                };
                concluded = Err(error.at(Stage::Commit).in_handler(self.site.name()));
            }
        }
        self.concluding.store(false, Ordering::Relaxed);
        let ending = match outcome {
            _ if panicked => Ending::Panicked,
            Outcome::Succeeded => Ending::Succeeded,
            Outcome::Failed => Ending::Failed,
        };
        (concluded, ending)
    }

    /// The invocation's tasks.
    pub(super) fn background(&self) -> Background {
        self.finally.background()
    }

    /// Runs the handler.
    pub(super) async fn drive<F: Future>(&self, handler: F) -> Result<F::Output, Stopped> {
        let from = Instant::now();
        let stop_at = self.stop_at;
        let lent = Arc::new(lock(&self.lent).clone());
        let mut watching = watching(&lent.resources);
        let outcome = {
            let mut handler = pin!(AssertUnwindSafe(handler).catch_unwind());
            // A handler that is always ready uses up tokio's budget, and would be stopped by no alarm
            // that has to share it.
            let mut alarm: Option<Pin<Box<Unconstrained<Sleep>>>> = None;
            let racing = poll_fn(|cx| {
                if let Poll::Ready(outcome) = handler.as_mut().poll(cx) {
                    return Poll::Ready(Some(outcome));
                }
                // It has nothing to say: what it finds out, the handler sees.
                watching.take_if(|watching| watching.poll_unpin(cx).is_ready());
                let Some(stop_at) = stop_at else {
                    return Poll::Pending;
                };
                let alarm =
                    alarm.get_or_insert_with(|| Box::pin(unconstrained(sleep_until(stop_at))));
                alarm.as_mut().poll(cx).map(|()| None)
            });
            // Goes before the handler's future does, so that nothing it held comes back. (A panic has
            // unwound the handler by then.)
            let unless_it_ends = AbandonOnDrop(&lent);
            let outcome = in_handler(Arc::clone(&lent) as Arc<dyn Running>, racing).await;
            if let Some(Ok(_)) = outcome {
                std::mem::forget(unless_it_ends);
            }
            // Before the handler goes, and with it what it held and waited for.
            outcome.ok_or_else(|| self.deadline_error())
        };
        if let Some(timeline) = self.host.as_ref().and_then(|host| host.timeline()) {
            let how = match &outcome {
                Ok(Ok(_)) => "ran",
                Ok(Err(_)) => "panicked",
                Err(_) => "stopped before the deadline",
            };
            timeline.add(Phase::Handler, from, how.to_owned());
        }
        match outcome {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(panic)) => Err(Stopped::Panic(panic)),
            Err(deadline) => Err(Stopped::Deadline(deadline)),
        }
    }

    pub(super) fn explain(&self, symptom: Symptom) -> Option<Error> {
        lock(&self.lent).explain(symptom)
    }

    /// The handler has ended: with a host the *finally* comes later, otherwise it comes now.
    pub(super) async fn end(mut self, ending: Ending) {
        self.over = true;
        self.finally.ended(ending);
        lock(&self.lent).resources.clear();
        if self.host.is_none() {
            // Boxed, like the opening: the future of a handler is no larger than it needs to be.
            Box::pin(self.finally.run(None)).await;
        }
    }

    fn deadline_error(&self) -> Error {
        let waiting = self
            .explain(Symptom::TimedOut)
            .map_or_else(String::new, |cause| {
                format!("; it was waiting: {}", cause.message())
            });
        let half_way = if self.concluding.load(Ordering::Relaxed) {
            "; it was being committed, and nobody knows whether it was"
        } else {
            ""
        };
        let usage: Vec<String> = lock(&self.lent)
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

impl Drop for Session {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        lock(&self.lent).abandon();
        self.finally.ended(Ending::Dropped);
        if self.host.is_none() {
            Arc::clone(&self.finally).run_detached();
        }
    }
}

/// When the handler is stopped: its reserve before the deadline, but never in the first half of the
/// time that there is.
pub(super) fn stop_at(site: &Site, started: Instant, deadline: Option<Instant>) -> Option<Instant> {
    let left = deadline?.saturating_duration_since(started);
    Some(started + left.saturating_sub(site.reserve()).max(left / 2))
}

/// All that the resources want to watch, or `None`.
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
