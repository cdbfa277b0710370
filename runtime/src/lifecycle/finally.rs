//! Phase 4: settle, then keep or close, bounded in every step.

use crate::{
    config::{ANSWER_MARGIN, Close, Settings},
    lock::lock,
    resource::{Fate, Fitness, Resource},
    site::Site,
    slot::{Lease, Outdated, Released},
    timeline::{Phase, Timeline},
};
use futures_util::future::{BoxFuture, Either, FutureExt, join_all, select};
use std::{
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Mutex, MutexGuard},
};
use tokio::time::{Instant, timeout_at};

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
    /// After an abnormal end nothing is used again: it may be half-way through a statement.
    fn is_abnormal(self) -> bool {
        matches!(self, Self::Panicked | Self::DeadlinePassed | Self::Dropped)
    }
}

/// Gives a resource back what was lent from it.
pub(crate) type PutBack<R> = Box<dyn for<'a> FnOnce(&'a R, Fate) -> BoxFuture<'a, ()> + Send>;

/// What is left to do for one invocation of one handler.
pub(crate) struct Finally {
    site: &'static Site,
    deadline: Option<Instant>,
    state: Mutex<State>,
}

struct State {
    /// `None` as long as the handler runs.
    ending: Option<Ending>,
    held: Vec<Box<dyn Held>>,
}

impl Finally {
    pub(super) fn new(site: &'static Site, deadline: Option<Instant>) -> Self {
        Self {
            site,
            deadline,
            state: Mutex::new(State {
                ending: None,
                held: Vec::new(),
            }),
        }
    }

    pub(super) fn hold(&self, held: impl Held + 'static) {
        self.lock().held.push(Box::new(held));
    }

    pub(super) fn ended(&self, ending: Ending) {
        let mut state = self.lock();
        state.ending = Some(ending);
        for held in &state.held {
            held.ended(ending);
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.lock().ending.is_some()
    }

    /// Lets go of everything at once, without a goodbye: for a future that was dropped.
    pub(super) fn drop_all(&self) {
        let held = std::mem::take(&mut self.lock().held);
        drop(held);
    }

    /// Settles, keeps and closes.
    pub(crate) async fn run(&self, timeline: Option<&Timeline>) {
        let (ending, held) = {
            let mut state = self.lock();
            // A handler that has not said how it ended was dropped with its platform's call.
            let ending = state.ending.unwrap_or(Ending::Dropped);
            (ending, std::mem::take(&mut state.held))
        };
        let step = Step {
            handler: self.site.name(),
            ending,
            until: self.until(),
            timeline,
        };
        join_all(held.into_iter().map(|held| step.finish(held))).await;
    }

    /// When everything has to be put back, settled and closed.
    fn until(&self) -> Instant {
        let now = Instant::now();
        let reserve = self.site.reserve();
        let longest = now + reserve;
        let Some(deadline) = self.deadline else {
            return longest;
        };
        // For posting the answer, or for asking for the next event.
        let margin = ANSWER_MARGIN.min(reserve / 2);
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
    /// The handler has ended; `finish` comes later.
    fn ended(&self, ending: Ending);

    fn finish(self: Box<Self>, step: Step<'_>) -> BoxFuture<'_, ()>;
}

/// A resource that an invocation holds, and the generations that it replaced.
pub(super) struct Holding<R: Resource> {
    pub(super) settings: Settings,
    pub(super) lease: Option<Lease<R>>,
    pub(super) put_back: PutBack<R>,
    pub(super) outdated: Vec<Outdated<R>>,
}

impl<R: Resource> Held for Holding<R> {
    fn ended(&self, ending: Ending) {
        let Some(lease) = &self.lease else { return };
        // Nobody may join what is about to be closed. With `always`, others may still be at it: then
        // the last one out closes.
        match self.settings.close {
            Close::Always if !ending.is_abnormal() => lease.retire_if_last(),
            close if must_close(close, ending) => lease.retire(),
            _ => {}
        }
        // After a success everything is back or about to be, and goes when the answer is out. What a
        // failure has given up half-way must not even begin to be waited for.
        if ending != Ending::Succeeded && lease.is_retired() && lease.is_last() {
            lease.resource().closing();
        }
    }

    fn finish(self: Box<Self>, step: Step<'_>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            for outdated in self.outdated {
                step.close(outdated).await;
            }
            let Some(lease) = self.lease else { return };
            if lease.is_retired() && lease.is_last() {
                lease.resource().closing();
            }
            let fate = if step.ending.is_abnormal() {
                Fate::Discarded
            } else if lease.is_retired() {
                Fate::Closed
            } else {
                Fate::Kept
            };
            let putting_back = (self.put_back)(lease.resource(), fate);
            if timeout_at(step.until, putting_back).await.is_err() {
                lease.retire();
            }
            let close = lease.is_retired() || must_close(self.settings.close, step.ending);
            if lease.is_last() && !step.settle(&lease, !close).await {
                lease.retire();
            }
            match lease.release(close) {
                Released::Close(outdated) => step.close(outdated).await,
                Released::Stays => step.note(Instant::now(), || format!("{} kept", R::NAME)),
            }
        })
    }
}

fn must_close(close: Close, ending: Ending) -> bool {
    match close {
        Close::Always => true,
        Close::OnError => ending != Ending::Succeeded,
        Close::Never => ending.is_abnormal(),
    }
}

impl<'a> Step<'a> {
    /// One resource's panic must not keep the others from being closed.
    async fn finish(self, held: Box<dyn Held>) {
        let finishing: BoxFuture<'a, ()> = held.finish(self);
        if AssertUnwindSafe(finishing).catch_unwind().await.is_err() {
            tracing::error!(handler = self.handler, "a resource panicked in its close");
        }
    }

    /// Whether everything lent came back in time, and with `keep` is as good as new.
    async fn settle<R: Resource>(&self, lease: &Lease<R>, keep: bool) -> bool {
        let from = Instant::now();
        // What does not settle has to be closed, and that takes time, too.
        let half_way = from + self.until.saturating_duration_since(from) / 2;
        let resource = lease.resource();
        let settling = pin!(async {
            match resource.settle().await {
                Fitness::Fit if keep => resource.refresh().await,
                fitness => fitness,
            }
        });
        let joined = pin!(lease.joined());
        let fit = match timeout_at(half_way, select(settling, joined)).await {
            Ok(Either::Left((fitness, _))) => fitness == Fitness::Fit,
            // Somebody else is at it now, and will settle it in the end.
            Ok(Either::Right(((), _))) => true,
            Err(_) => false,
        };
        if !fit && keep {
            let usage = resource.usage();
            tracing::warn!(
                handler = self.handler,
                resource = R::NAME,
                waited = ?from.elapsed(),
                %usage,
                "not fit to be kept: closed"
            );
            self.note(from, || format!("{} not fit to be kept ({usage})", R::NAME));
        }
        fit
    }

    async fn close<R: Resource>(&self, outdated: Outdated<R>) {
        let from = Instant::now();
        let usage = outdated.resource().usage();
        let closed = timeout_at(self.until, outdated.resource().close())
            .await
            .is_ok();
        if closed {
            tracing::debug!(
                handler = self.handler,
                resource = R::NAME,
                took = ?from.elapsed(),
                "closed"
            );
        } else {
            outdated.resource().abandon();
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
