//! Phase 4: drains, then reuses or closes. Every step is bounded in time.

use super::{
    background::Background,
    site::Site,
    slot::{Lease, Released, Retired},
    timeline::{Phase, Timeline},
};
use crate::{
    config::{BACKGROUND, BackgroundPolicy, Close, RESPONSE_MARGIN, Settings},
    error::{Error, ErrorKind},
    resource::{Disposition, Handle, Health, Resource, running::in_cleanup},
    util::{
        catch_panic::{self, log_panic},
        lock::lock,
    },
};
use futures_util::future::{BoxFuture, Either, FutureExt, join_all, select};
use std::{
    future::{Future, pending},
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{
    runtime,
    time::{Instant, timeout_at},
};

/// How the handler ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    Succeeded,
    Failed,
    Panicked,
    DeadlinePassed,
    /// Its future was dropped, for example by a caller's own timeout or with its runtime.
    Dropped,
}

impl ExitStatus {
    /// Returns the status of an invocation that ended with `error` of this crate.
    pub(super) fn after(error: &Error) -> Self {
        if error.kind() == ErrorKind::Panicked {
            Self::Panicked
        } else {
            Self::Failed
        }
    }

    /// Returns whether resources must not be reused: a statement may be unfinished.
    fn is_abnormal(self) -> bool {
        matches!(self, Self::Panicked | Self::DeadlinePassed | Self::Dropped)
    }
}

/// Releases what was acquired from a resource through a handle.
pub(crate) type Release<H> =
    Box<dyn for<'a> FnOnce(&'a H, Disposition) -> BoxFuture<'a, ()> + Send>;

/// The cleanup of one invocation of one handler.
pub(crate) struct Cleanup {
    site: &'static Site,
    deadline: Option<Instant>,
    /// When the handler and its background tasks are cancelled.
    stop_at: Option<Instant>,
    state: Mutex<State>,
}

struct State {
    /// `None` while the handler runs.
    exit: Option<ExitStatus>,
    /// `None` if the handler has no `&Background` parameter.
    background: Option<Background>,
    held: Vec<Box<dyn ErasedLease>>,
}

impl Cleanup {
    pub(super) fn new(
        site: &'static Site,
        deadline: Option<Instant>,
        stop_at: Option<Instant>,
    ) -> Self {
        Self {
            site,
            deadline,
            stop_at,
            state: Mutex::new(State {
                exit: None,
                background: None,
                held: Vec::new(),
            }),
        }
    }

    pub(super) fn hold(&self, held: impl ErasedLease + 'static) {
        self.lock().held.push(Box::new(held));
    }

    /// Returns the background tasks of the invocation.
    pub(super) fn background(&self) -> Background {
        let mut state = self.lock();
        let tasks = state
            .background
            .get_or_insert_with(|| Background::new(self.site.name()));
        tasks.clone()
    }

    pub(super) fn ended(&self, exit: ExitStatus) {
        let mut state = self.lock();
        state.exit = Some(exit);
        let mut awaited = false;
        if let Some(background) = &state.background {
            if self.waits_for_tasks(exit) {
                awaited = background.running() > 0;
            } else {
                background.abort();
            }
        }
        for held in &state.held {
            held.ended(exit, awaited);
        }
    }

    fn stop(&self) {
        for held in &self.lock().held {
            held.stop();
        }
    }

    fn waits_for_tasks(&self, exit: ExitStatus) -> bool {
        self.site.background() == BackgroundPolicy::Wait && !exit.is_abnormal()
    }

    pub(crate) fn stop_at(&self) -> Option<Instant> {
        self.stop_at
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.lock().exit.is_some()
    }

    /// Runs the cleanup after a dropped future. A task of its own cancels running queries and closes, within
    /// the same bounds. Without a tokio runtime, everything is dropped.
    pub(super) fn run_detached(self: Arc<Self>) {
        if let Ok(runtime) = runtime::Handle::try_current() {
            runtime.spawn(async move { self.run(None).await });
        } else {
            let held = std::mem::take(&mut self.lock().held);
            drop(held);
        }
    }

    /// Drains, then reuses or closes the resources.
    pub(crate) async fn run(&self, timeline: Option<&Timeline>) {
        if !self.has_ended() {
            // The invocation's future was dropped or forgotten: no connection that it holds is reused.
            self.stop();
            self.ended(ExitStatus::Dropped);
        }
        let (exit, background, held) = {
            let mut state = self.lock();
            let exit = state.exit.unwrap_or(ExitStatus::Dropped);
            let background = state.background.take();
            (exit, background, std::mem::take(&mut state.held))
        };
        // The tasks may be using what is released, drained and closed below.
        if let Some(background) = background {
            self.finish_tasks(&background, exit, timeline).await;
        }
        let step = Step {
            handler: self.site.name(),
            exit,
            until: self.until(&held),
            timeline,
        };
        join_all(held.into_iter().map(|held| step.finish(held))).await;
    }

    /// Waits for the tasks of this invocation, or cancels them.
    async fn finish_tasks(
        &self,
        background: &Background,
        exit: ExitStatus,
        timeline: Option<&Timeline>,
    ) {
        let from = Instant::now();
        let (handler, running) = (self.site.name(), background.running());
        if self.waits_for_tasks(exit) {
            let until = self.stop_at.unwrap_or(from + BACKGROUND);
            background.wait(until).await;
        }
        let stopped = background.abort();
        if stopped > 0 {
            if self.waits_for_tasks(exit) {
                let waited = from.elapsed();
                tracing::warn!(handler, stopped, ?waited, "background tasks took too long");
            }
            // A task that cannot be cancelled must not prevent the rest from being closed.
            let now = Instant::now();
            let half_way = now + self.until(&[]).saturating_duration_since(now) / 2;
            background.wait(half_way).await;
            let unstoppable = background.running();
            if unstoppable > 0 {
                tracing::error!(
                    handler,
                    unstoppable,
                    "background tasks that never yield are still running"
                );
            }
        }
        if let Some(timeline) = timeline
            && running + stopped > 0
        {
            let what = match stopped {
                0 => format!("background tasks done ({running} of them)"),
                _ => format!("background tasks stopped ({stopped} of them)"),
            };
            timeline.add(Phase::Cleanup, from, what);
        }
    }

    /// Returns when everything has to be released, drained and closed.
    fn until(&self, held: &[Box<dyn ErasedLease>]) -> Instant {
        let now = Instant::now();
        let reserve = self.site.reserve();
        let slowest = held.iter().map(|one| one.cleanup_time()).max();
        let longest = now + reserve.max(slowest.unwrap_or_default());
        let Some(deadline) = self.deadline else {
            return longest;
        };
        // Time for posting the response, or for fetching the next event. If there was little time from the
        // beginning, less than the whole reserve is left.
        let kept = self.stop_at.map_or(reserve, |stop_at| {
            deadline.saturating_duration_since(stop_at)
        });
        let margin = RESPONSE_MARGIN.min(reserve.min(kept) / 2);
        deadline.checked_sub(margin).unwrap_or(now).min(longest)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// The parameters of a cleanup that all its resources share.
#[derive(Clone, Copy)]
pub(super) struct Step<'a> {
    handler: &'static str,
    exit: ExitStatus,
    until: Instant,
    timeline: Option<&'a Timeline>,
}

/// A resource that an invocation holds, with its type erased.
pub(super) trait ErasedLease: Send {
    /// Called when the handler has ended; `finish` is called later. With `in_use`, background tasks are still
    /// using the resource.
    fn ended(&self, exit: ExitStatus, in_use: bool);

    /// Called when the handler ended abnormally and its resources have not been abandoned yet.
    fn stop(&self);

    fn cleanup_time(&self) -> Duration;

    fn finish(self: Box<Self>, step: Step<'_>) -> BoxFuture<'_, ()>;
}

/// A resource that an invocation holds, and the generations that it replaced.
pub(super) struct HeldLease<H: Handle> {
    pub(super) settings: Settings,
    pub(super) leased: Option<(Lease<H::Resource>, Arc<H>)>,
    pub(super) release: Release<H>,
    pub(super) retired: Vec<Retired<H::Resource>>,
}

impl<H: Handle> HeldLease<H> {
    /// Whether each connection is cleaned up by the invocation that used it.
    const PER_CONNECTION: bool = H::Resource::PER_CONNECTION;
}

impl<H: Handle> ErasedLease for HeldLease<H> {
    fn ended(&self, exit: ExitStatus, in_use: bool) {
        let Some((lease, handle)) = &self.leased else {
            return;
        };
        let close = must_close(self.settings.close, exit);
        if !Self::PER_CONNECTION {
            // No invocation may join a generation that is about to be closed. With `always`, other invocations
            // may still be using it: then the last lease to end closes it.
            match self.settings.close {
                Close::Always if !exit.is_abnormal() => lease.retire_if_last(),
                _ if close => lease.retire(),
                _ => {}
            }
        }
        let closing = if Self::PER_CONNECTION {
            close
        } else {
            lease.is_retired() && lease.is_last()
        };
        // After a success everything is released, or is about to be, and is closed after the response. After a
        // failure, dropped statements must not be waited for at all, so `closing` is called right away.
        if exit != ExitStatus::Succeeded && !in_use && closing {
            log_panic(H::Resource::NAME, "closing", || handle.closing());
        }
    }

    fn stop(&self) {
        if let Some((_, handle)) = &self.leased {
            log_panic(H::Resource::NAME, "stop", || handle.stop());
        }
    }

    fn cleanup_time(&self) -> Duration {
        let mut time = Duration::ZERO;
        if let Some((_, handle)) = &self.leased {
            log_panic(H::Resource::NAME, "cleanup_time", || {
                time = handle.cleanup_time();
            });
        }
        time
    }

    fn finish(self: Box<Self>, step: Step<'_>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            for retired in self.retired {
                step.close(retired).await;
            }
            let Some((lease, handle)) = self.leased else {
                return;
            };
            let close = must_close(self.settings.close, step.exit);
            let closing = if Self::PER_CONNECTION {
                close || lease.is_retired()
            } else {
                lease.is_retired() && lease.is_last()
            };
            if closing {
                log_panic(H::Resource::NAME, "closing", || handle.closing());
            }
            let disposition = if step.exit.is_abnormal() {
                Disposition::Discard
            } else if closing || lease.is_retired() {
                Disposition::Close
            } else {
                Disposition::Reuse
            };
            let release = self.release;
            let releasing = step.catch_panic(H::Resource::NAME, "release", || {
                release(&handle, disposition)
            });
            if !matches!(timeout_at(step.until, releasing).await, Ok(Some(())))
                && !Self::PER_CONNECTION
            {
                lease.retire();
            }
            let close = lease.is_retired() || close;
            let is_fit = if Self::PER_CONNECTION || lease.is_last() {
                step.clean_up(&lease, &*handle, !close).await
            } else {
                true
            };
            let close = close && handle.may_close();
            if !is_fit && !Self::PER_CONNECTION {
                lease.retire();
            } else if !is_fit && handle.may_close() {
                lease.retire_if_last();
            }
            // Dropping the handle discards what it still owns.
            drop(handle);
            match lease.release(close) {
                Released::Close(retired) => step.close(retired).await,
                Released::Stays => {
                    step.note(Instant::now(), || format!("{} kept", H::Resource::NAME));
                }
            }
        })
    }
}

fn must_close(close: Close, exit: ExitStatus) -> bool {
    match close {
        Close::Always => true,
        Close::OnError => exit != ExitStatus::Succeeded,
        Close::Never | Close::Pressure => exit.is_abnormal(),
    }
}

impl<'a> Step<'a> {
    /// Awaits the method `name` of `resource`. Returns `None` after a panic, which is logged.
    async fn catch_panic<Fut: Future>(
        &self,
        resource: &'static str,
        name: &'static str,
        method: impl FnOnce() -> Fut,
    ) -> Option<Fut::Output> {
        let done = catch_panic::catch_panic(resource, name, method).await;
        done.inspect_err(|panicked| catch_panic::report(panicked, self.handler))
            .ok()
    }

    /// Finishes one resource. A panic in it must not prevent the others from being closed.
    async fn finish(self, held: Box<dyn ErasedLease>) {
        let finishing: BoxFuture<'a, ()> = held.finish(self);
        if AssertUnwindSafe(finishing).catch_unwind().await.is_err() {
            tracing::error!(handler = self.handler, "a resource panicked in its close");
        }
    }

    /// Cleans up. Returns whether everything was released in time and, with `reuse`, can be reused.
    async fn clean_up<H: Handle>(
        &self,
        lease: &Lease<H::Resource>,
        handle: &H,
        reuse: bool,
    ) -> bool {
        let from = Instant::now();
        // A resource that does not drain has to be closed, which takes time, too: a goodbye message, no round
        // trip. A resource that is closed anyway needs less of it.
        let left = self.until.saturating_duration_since(from);
        let most_of_it = from + if reuse { left * 3 / 4 } else { left * 9 / 10 };
        let cleaning = pin!(async {
            let cleaned = self
                .catch_panic(H::Resource::NAME, "clean_up", || handle.clean_up(reuse))
                .await;
            cleaned.unwrap_or(Health::Broken)
        });
        let shared = pin!(async {
            if H::Resource::PER_CONNECTION {
                // What this invocation used is cleaned up while others use the rest.
                pending::<()>().await;
            } else {
                lease.shared().await;
            }
        });
        let cleaned = in_cleanup(most_of_it, select(cleaning, shared));
        let health = match timeout_at(most_of_it, cleaned).await {
            Ok(Either::Left((health, _))) => health,
            // Another invocation is using it now, and cleans it up at its end.
            Ok(Either::Right(((), _))) => Health::Healthy,
            Err(_) => Health::Broken,
        };
        if health == Health::Surplus && reuse {
            self.note(from, || {
                format!("{} given back: the server is full", H::Resource::NAME)
            });
        }
        if health == Health::Broken && reuse {
            let usage = handle.usage();
            tracing::warn!(
                handler = self.handler,
                resource = H::Resource::NAME,
                waited = ?from.elapsed(),
                %usage,
                "closed instead of being reused"
            );
            self.note(from, || {
                format!(
                    "{} closed instead of being reused ({usage})",
                    H::Resource::NAME
                )
            });
        }
        health == Health::Healthy
    }

    async fn close<R: Resource>(&self, retired: Retired<R>) {
        let from = Instant::now();
        let usage = retired.resource().usage();
        let closing = self.catch_panic(R::NAME, "close", || retired.resource().close());
        let closed = matches!(timeout_at(self.until, closing).await, Ok(Some(())));
        if closed {
            tracing::debug!(
                handler = self.handler,
                resource = R::NAME,
                took = ?from.elapsed(),
                "closed"
            );
        } else {
            log_panic(R::NAME, "stop", || retired.resource().stop());
            tracing::warn!(
                handler = self.handler,
                resource = R::NAME,
                waited = ?from.elapsed(),
                usage = %retired.resource().usage(),
                "did not close in time: dropped"
            );
        }
        self.note(from, || {
            let how = if closed { "closed" } else { "dropped" };
            format!("{} {how} ({usage})", R::NAME)
        });
    }

    fn note(&self, from: Instant, what: impl FnOnce() -> String) {
        if let Some(timeline) = self.timeline {
            timeline.add(Phase::Cleanup, from, what());
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        config::{Close, Config},
        fake::{FakeEvent, Script, poll_once, shared},
        lifecycle::{scope::InvocationScope, site::Site},
    };
    use std::{future::pending, time::Duration};
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn cleanup_gets_its_share_however_little_time_there_is() {
        static CONFIGS: [Config; 1] = [Config::new()];
        static SITE: Site = Site::new("cleanup", "share", &CONFIGS);
        for (left, share) in [
            (20, 5),
            (60, 15),
            (99, 24),
            (200, 50),
            (400, 150),
            (2_000, 200),
        ] {
            let (now, left) = (Instant::now(), Duration::from_millis(left));
            let deadline = now + left;
            let stop_at = super::super::invocation::stop_at(&SITE, now, Some(deadline));
            let cleanup = super::Cleanup::new(&SITE, Some(deadline), stop_at);
            tokio::time::advance(stop_at.expect("there is a deadline") - now).await;
            let time = cleanup.until(&[]) - Instant::now();
            assert!(time >= Duration::from_millis(share), "{left:?}: {time:?}");
            assert!(cleanup.until(&[]) < deadline, "{left:?}");
        }
    }

    #[tokio::test]
    async fn a_forgotten_handler_ends_like_a_dropped_one() {
        static CONFIGS: [Config; 1] = [Config::new().close(Close::Never)];
        static SITE: Site = Site::new("cleanup", "forgotten", &CONFIGS);
        let script = Script::of("cleanup::forgotten");
        let scope = InvocationScope::new();
        let call = || {
            shared::<()>(&SITE, FakeEvent::default(), async |_| {
                script.note("ran");
                pending().await
            })
        };
        // Another invocation is using it, too.
        let mut neighbour = Box::pin(call());
        poll_once(&mut neighbour).await;
        scope
            .drive(async {
                let mut forgotten = Box::pin(call());
                poll_once(&mut forgotten).await;
                std::mem::forget(forgotten);
            })
            .await;
        script.log();
        scope.finish().await;
        assert_eq!(script.log(), ["stop"]);

        let mut next = Box::pin(call());
        poll_once(&mut next).await;
        assert_eq!(script.log(), ["open", "ran"], "it has one of its own");
        drop(neighbour);
    }
}
