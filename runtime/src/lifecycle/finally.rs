//! Phase 4: settle, then keep or close, bounded in every step.

use crate::{
    config::{ANSWER_MARGIN, Close, FINALLY, Settings},
    resource::{Fate, Fitness, Resource},
    site::Site,
    slot::{Lease, Outdated, Released},
    timeline::{Phase, Timeline},
};
use futures_util::future::{BoxFuture, FutureExt, join_all};
use std::{
    panic::AssertUnwindSafe,
    sync::{Mutex, PoisonError},
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
    /// Until the handler says otherwise, its future may be dropped at any time.
    ending: Ending,
    held: Vec<Box<dyn Held>>,
}

impl Finally {
    pub(super) fn new(site: &'static Site, deadline: Option<Instant>) -> Self {
        Self {
            site,
            deadline,
            state: Mutex::new(State {
                ending: Ending::Dropped,
                held: Vec::new(),
            }),
        }
    }

    pub(super) fn hold(&self, held: impl Held + 'static) {
        self.lock().held.push(Box::new(held));
    }

    pub(super) fn ended(&self, ending: Ending) {
        self.lock().ending = ending;
    }

    /// Lets go of everything at once, without a goodbye: for a future that was dropped.
    pub(super) fn drop_all(&self) {
        let held = std::mem::take(&mut self.lock().held);
        drop(held);
    }

    /// Settles, keeps and closes. `answered`: the answer is out, and nothing waits for us any more.
    pub(crate) async fn run(&self, answered: bool, timeline: Option<&Timeline>) {
        let (ending, held) = {
            let mut state = self.lock();
            (state.ending, std::mem::take(&mut state.held))
        };
        let now = Instant::now();
        let longest = now + FINALLY;
        let until = match self.deadline {
            Some(deadline) if answered => deadline.min(longest),
            Some(deadline) => deadline
                .checked_sub(ANSWER_MARGIN)
                .unwrap_or(now)
                .min(longest),
            None => longest,
        };
        let step = Step {
            handler: self.site.name(),
            ending,
            until,
            timeline,
        };
        join_all(held.into_iter().map(|held| step.finish(held))).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn finish(self: Box<Self>, step: Step<'_>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            for outdated in self.outdated {
                step.close(outdated).await;
            }
            let Some(lease) = self.lease else { return };
            let mut close = lease.is_retired() || must_close(self.settings.close, step.ending);
            let fate = if step.ending.is_abnormal() {
                lease.retire();
                Fate::Discarded
            } else if close && lease.is_last() {
                Fate::Closed
            } else {
                Fate::Kept
            };
            let putting_back = (self.put_back)(lease.resource(), fate);
            if timeout_at(step.until, putting_back).await.is_err() {
                lease.retire();
                close = true;
            }
            if !close && lease.is_last() && !step.settle(&lease).await {
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

    /// Whether everything lent came back in time.
    async fn settle<R: Resource>(&self, lease: &Lease<R>) -> bool {
        let from = Instant::now();
        // What does not settle has to be closed, and that takes time, too.
        let half_way = from + self.until.saturating_duration_since(from) / 2;
        let settled = timeout_at(half_way, lease.resource().settle()).await;
        let fit = settled == Ok(Fitness::Fit);
        if !fit {
            let usage = lease.resource().usage();
            tracing::warn!(
                handler = self.handler,
                resource = R::NAME,
                waited = ?from.elapsed(),
                %usage,
                "not everything came back: closed instead of kept"
            );
            self.note(from, || {
                format!("{} not settled ({usage}): not kept", R::NAME)
            });
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
