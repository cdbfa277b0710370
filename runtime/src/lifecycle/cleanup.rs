//! Phase 4: settle, then keep or close, bounded in every step.

use super::{
    background::Background,
    site::Site,
    slot::{Lease, Outdated, Released},
    timeline::{Phase, Timeline},
};
use crate::{
    config::{ANSWER_MARGIN, BACKGROUND, Close, Settings, Tasks},
    error::{Error, ErrorKind},
    resource::{Disposition, Fitness, Handle, Resource, running::in_cleanup},
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
pub(crate) enum Ending {
    Succeeded,
    Failed,
    Panicked,
    DeadlinePassed,
    /// Its future was dropped: by a caller's own timeout, or with its runtime.
    Dropped,
}

impl Ending {
    /// Of an invocation that came to its end with an error of ours.
    pub(super) fn after(error: &Error) -> Self {
        if error.kind() == ErrorKind::Panicked {
            Self::Panicked
        } else {
            Self::Failed
        }
    }

    /// After an abnormal end nothing is used again: it may be half-way through a statement.
    fn is_abnormal(self) -> bool {
        matches!(self, Self::Panicked | Self::DeadlinePassed | Self::Dropped)
    }
}

/// Gives a resource back what was acquired from it through a handle.
pub(crate) type Release<H> =
    Box<dyn for<'a> FnOnce(&'a H, Disposition) -> BoxFuture<'a, ()> + Send>;

/// What is left to do for one invocation of one handler.
pub(crate) struct Finally {
    site: &'static Site,
    deadline: Option<Instant>,
    /// When the handler is stopped, and with it its background tasks.
    stop_at: Option<Instant>,
    state: Mutex<State>,
}

struct State {
    /// `None` as long as the handler runs.
    ending: Option<Ending>,
    /// `None` as long as nobody has asked for it.
    background: Option<Background>,
    held: Vec<Box<dyn Held>>,
}

impl Finally {
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
                ending: None,
                background: None,
                held: Vec::new(),
            }),
        }
    }

    pub(super) fn hold(&self, held: impl Held + 'static) {
        self.lock().held.push(Box::new(held));
    }

    /// The tasks of the invocation.
    pub(super) fn background(&self) -> Background {
        let mut state = self.lock();
        let tasks = state
            .background
            .get_or_insert_with(|| Background::new(self.site.name()));
        tasks.clone()
    }

    pub(super) fn ended(&self, ending: Ending) {
        let mut state = self.lock();
        state.ending = Some(ending);
        let mut awaited = false;
        if let Some(background) = &state.background {
            if self.waits_for_tasks(ending) {
                awaited = background.running() > 0;
            } else {
                background.abort();
            }
        }
        for held in &state.held {
            held.ended(ending, awaited);
        }
    }

    fn abandon(&self) {
        for held in &self.lock().held {
            held.abandon();
        }
    }

    fn waits_for_tasks(&self, ending: Ending) -> bool {
        self.site.background() == Tasks::Wait && !ending.is_abnormal()
    }

    pub(crate) fn stop_at(&self) -> Option<Instant> {
        self.stop_at
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.lock().ending.is_some()
    }

    /// For a future that was dropped, where nobody waits for what follows: a task of its own cancels what runs
    /// and closes, within the same bounds. Without a tokio runtime everything is dropped.
    pub(super) fn run_detached(self: Arc<Self>) {
        if let Ok(runtime) = runtime::Handle::try_current() {
            runtime.spawn(async move { self.run(None).await });
        } else {
            let held = std::mem::take(&mut self.lock().held);
            drop(held);
        }
    }

    /// Settles, keeps and closes.
    pub(crate) async fn run(&self, timeline: Option<&Timeline>) {
        if !self.has_ended() {
            // It was dropped with its platform's call, or forgotten: nothing it holds comes back.
            self.abandon();
            self.ended(Ending::Dropped);
        }
        let (ending, background, held) = {
            let mut state = self.lock();
            let ending = state.ending.unwrap_or(Ending::Dropped);
            let background = state.background.take();
            (ending, background, std::mem::take(&mut state.held))
        };
        // The tasks may be using what is put back, settled and closed below.
        if let Some(background) = background {
            self.finish_tasks(&background, ending, timeline).await;
        }
        let step = Step {
            handler: self.site.name(),
            ending,
            until: self.until(&held),
            timeline,
        };
        join_all(held.into_iter().map(|held| step.finish(held))).await;
    }

    /// Sees to it that no task of this invocation is alive.
    async fn finish_tasks(
        &self,
        background: &Background,
        ending: Ending,
        timeline: Option<&Timeline>,
    ) {
        let from = Instant::now();
        let (handler, running) = (self.site.name(), background.running());
        if self.waits_for_tasks(ending) {
            let until = self.stop_at.unwrap_or(from + BACKGROUND);
            background.wait(until).await;
        }
        let stopped = background.abort();
        if stopped > 0 {
            if self.waits_for_tasks(ending) {
                let waited = from.elapsed();
                tracing::warn!(handler, stopped, ?waited, "background tasks took too long");
            }
            // What cannot be stopped must not keep the rest from being closed.
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
            timeline.add(Phase::Finally, from, what);
        }
    }

    /// When everything has to be put back, settled and closed.
    fn until(&self, held: &[Box<dyn Held>]) -> Instant {
        let now = Instant::now();
        let reserve = self.site.reserve();
        let slowest = held.iter().map(|one| one.cleanup_time()).max();
        let longest = now + reserve.max(slowest.unwrap_or_default());
        let Some(deadline) = self.deadline else {
            return longest;
        };
        // For posting the answer, or for asking for the next event. Where there was little time from the
        // beginning, less than the whole reserve has been kept.
        let kept = self.stop_at.map_or(reserve, |stop_at| {
            deadline.saturating_duration_since(stop_at)
        });
        let margin = ANSWER_MARGIN.min(reserve.min(kept) / 2);
        deadline.checked_sub(margin).unwrap_or(now).min(longest)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// What all resources of one *finally* have in common.
#[derive(Clone, Copy)]
pub(super) struct Step<'a> {
    handler: &'static str,
    ending: Ending,
    until: Instant,
    timeline: Option<&'a Timeline>,
}

/// One resource that an invocation holds.
pub(super) trait Held: Send {
    /// The handler has ended; `finish` comes later. With `in_use`, background tasks are still at it.
    fn ended(&self, ending: Ending, in_use: bool);

    /// The handler ended abnormally, and nobody else has said so.
    fn abandon(&self);

    fn cleanup_time(&self) -> Duration;

    fn finish(self: Box<Self>, step: Step<'_>) -> BoxFuture<'_, ()>;
}

/// A resource that an invocation holds, and the generations that it replaced.
pub(super) struct Holding<H: Handle> {
    pub(super) settings: Settings,
    pub(super) leased: Option<(Lease<H::Resource>, Arc<H>)>,
    pub(super) release: Release<H>,
    pub(super) outdated: Vec<Outdated<H::Resource>>,
}

impl<H: Handle> Holding<H> {
    /// Each connection is cleaned up by who used it.
    const PER_CONNECTION: bool = H::Resource::PER_CONNECTION;
}

impl<H: Handle> Held for Holding<H> {
    fn ended(&self, ending: Ending, in_use: bool) {
        let Some((lease, handle)) = &self.leased else {
            return;
        };
        let close = must_close(self.settings.close, ending);
        if !Self::PER_CONNECTION {
            // Nobody may join what is about to be closed. With `always`, others may still be at it: then
            // the last one out closes.
            match self.settings.close {
                Close::Always if !ending.is_abnormal() => lease.retire_if_last(),
                _ if close => lease.retire(),
                _ => {}
            }
        }
        let closing = if Self::PER_CONNECTION {
            close
        } else {
            lease.is_retired() && lease.is_last()
        };
        // After a success everything is back or about to be, and goes when the answer is out. What a
        // failure has given up half-way must not even begin to be waited for.
        if ending != Ending::Succeeded && !in_use && closing {
            log_panic(H::Resource::NAME, "closing", || handle.closing());
        }
    }

    fn abandon(&self) {
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
            for outdated in self.outdated {
                step.close(outdated).await;
            }
            let Some((lease, handle)) = self.leased else {
                return;
            };
            let close = must_close(self.settings.close, step.ending);
            let closing = if Self::PER_CONNECTION {
                close || lease.is_retired()
            } else {
                lease.is_retired() && lease.is_last()
            };
            if closing {
                log_panic(H::Resource::NAME, "closing", || handle.closing());
            }
            let disposition = if step.ending.is_abnormal() {
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
            // Whatever it still owns is discarded by its drop.
            drop(handle);
            match lease.release(close) {
                Released::Close(outdated) => step.close(outdated).await,
                Released::Stays => {
                    step.note(Instant::now(), || format!("{} kept", H::Resource::NAME));
                }
            }
        })
    }
}

fn must_close(close: Close, ending: Ending) -> bool {
    match close {
        Close::Always => true,
        Close::OnError => ending != Ending::Succeeded,
        Close::Never | Close::Pressure => ending.is_abnormal(),
    }
}

impl<'a> Step<'a> {
    /// Awaits what the method `name` of `resource` returns; nothing if it panicked, which is logged.
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

    /// One resource's panic must not keep the others from being closed.
    async fn finish(self, held: Box<dyn Held>) {
        let finishing: BoxFuture<'a, ()> = held.finish(self);
        if AssertUnwindSafe(finishing).catch_unwind().await.is_err() {
            tracing::error!(handler = self.handler, "a resource panicked in its close");
        }
    }

    /// Whether everything came back in time, and with `reuse` is as good as new and still wanted.
    async fn clean_up<H: Handle>(
        &self,
        lease: &Lease<H::Resource>,
        handle: &H,
        reuse: bool,
    ) -> bool {
        let from = Instant::now();
        // What does not become quiet has to be closed, and that takes time, too: a goodbye, no round trip.
        // What is closed anyway can do without that.
        let left = self.until.saturating_duration_since(from);
        let most_of_it = from + if reuse { left * 3 / 4 } else { left * 9 / 10 };
        let cleaning = pin!(async {
            let cleaned = self
                .catch_panic(H::Resource::NAME, "clean_up", || handle.clean_up(reuse))
                .await;
            cleaned.unwrap_or(Fitness::Unfit)
        });
        let joined = pin!(async {
            if H::Resource::PER_CONNECTION {
                // What this invocation used is cleaned up, also while others use the rest.
                pending::<()>().await;
            } else {
                lease.joined().await;
            }
        });
        let cleaned = in_cleanup(most_of_it, select(cleaning, joined));
        let fitness = match timeout_at(most_of_it, cleaned).await {
            Ok(Either::Left((fitness, _))) => fitness,
            // Somebody else is at it now, and will clean it up in the end.
            Ok(Either::Right(((), _))) => Fitness::Fit,
            Err(_) => Fitness::Unfit,
        };
        if fitness == Fitness::Unwanted && reuse {
            self.note(from, || {
                format!("{} given back: the server is full", H::Resource::NAME)
            });
        }
        if fitness == Fitness::Unfit && reuse {
            let usage = handle.usage();
            tracing::warn!(
                handler = self.handler,
                resource = H::Resource::NAME,
                waited = ?from.elapsed(),
                %usage,
                "not fit to be kept: closed"
            );
            self.note(from, || {
                format!("{} not fit to be kept ({usage})", H::Resource::NAME)
            });
        }
        fitness == Fitness::Fit
    }

    async fn close<R: Resource>(&self, outdated: Outdated<R>) {
        let from = Instant::now();
        let usage = outdated.resource().usage();
        let closing = self.catch_panic(R::NAME, "close", || outdated.resource().close());
        let closed = matches!(timeout_at(self.until, closing).await, Ok(Some(())));
        if closed {
            tracing::debug!(
                handler = self.handler,
                resource = R::NAME,
                took = ?from.elapsed(),
                "closed"
            );
        } else {
            log_panic(R::NAME, "abandon", || outdated.resource().abandon());
            tracing::warn!(
                handler = self.handler,
                resource = R::NAME,
                waited = ?from.elapsed(),
                usage = %outdated.resource().usage(),
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
            timeline.add(Phase::Finally, from, what());
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        config::{Close, Config},
        fake::{FakeEvent, Script, poll_once, shared},
        lifecycle::{scope::Host, site::Site},
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
            let finally = super::Finally::new(&SITE, Some(deadline), stop_at);
            tokio::time::advance(stop_at.expect("there is a deadline") - now).await;
            let cleanup = finally.until(&[]) - Instant::now();
            assert!(
                cleanup >= Duration::from_millis(share),
                "{left:?}: {cleanup:?}"
            );
            assert!(finally.until(&[]) < deadline, "{left:?}");
        }
    }

    #[tokio::test]
    async fn a_forgotten_handler_ends_like_a_dropped_one() {
        static CONFIGS: [Config; 1] = [Config::new().close(Close::Never)];
        static SITE: Site = Site::new("cleanup", "forgotten", &CONFIGS);
        let script = Script::of("cleanup::forgotten");
        let host = Host::new();
        let call = || {
            shared::<()>(&SITE, FakeEvent::default(), async |_| {
                script.note("ran");
                pending().await
            })
        };
        // Somebody else is at it, too.
        let mut neighbour = Box::pin(call());
        poll_once(&mut neighbour).await;
        host.drive(async {
            let mut forgotten = Box::pin(call());
            poll_once(&mut forgotten).await;
            std::mem::forget(forgotten);
        })
        .await;
        script.log();
        host.finish().await;
        assert_eq!(script.log(), ["abandon"]);

        let mut next = Box::pin(call());
        poll_once(&mut next).await;
        assert_eq!(script.log(), ["open", "ran"], "it has one of its own");
        drop(neighbour);
    }
}
