//! A slot holds at most one live generation of a resource; an invocation holds a lease on it.
//!
//! Every change of who holds what happens under one short lock without an `.await`, so that a
//! future dropped at any point leaves a slot that is consistent.

use super::shutdown::{self, Open};
use crate::{
    config::Settings,
    resource::Resource,
    util::{
        catch_panic::{self, catch_panic, log_panic},
        clock::Stamp,
        lock::lock,
    },
};
use futures_util::future::BoxFuture;
use std::{
    pin::pin,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};
use tokio::{
    runtime,
    sync::{Mutex as AsyncMutex, Notify, watch},
};

/// Where the generations of one resource of one handler live.
pub(crate) struct Slot<R> {
    current: Mutex<Option<Arc<Generation<R>>>>,
    /// One flight: whoever opens holds this.
    opening: AsyncMutex<()>,
}

/// A resource from its opening to its close.
pub(crate) struct Generation<R> {
    resource: Arc<R>,
    opened: Stamp,
    /// A resource lives on the tokio runtime that it was opened on; a test has one runtime each.
    runtime: Option<runtime::Id>,
    hold: Mutex<Hold>,
    /// Somebody else has leased it, too.
    joined: Notify,
    slot: Weak<Slot<R>>,
    /// Tells by its end that this generation is gone.
    _gone: watch::Sender<()>,
}

struct Hold {
    leases: usize,
    retired: bool,
    last_used: Stamp,
}

/// What a slot can offer at the beginning of an invocation.
pub(crate) enum Offer<R: Resource> {
    /// A kept generation, after `idle` without any use (zero when somebody else is using it).
    Kept { lease: Lease<R>, idle: Duration },
    /// Nothing: open a new one. What was too old to be offered is handed over to be closed.
    Empty { outdated: Option<Outdated<R>> },
}

/// A generation that nobody holds and that no slot offers any more.
#[must_use = "somebody has to close it"]
pub(crate) struct Outdated<R>(Arc<Generation<R>>);

/// One invocation's share of a generation. Dropping it is the hard end: the generation serves no
/// further invocation, unless its connections are each looked after by who used them.
#[must_use = "a dropped lease ends its generation"]
pub(crate) struct Lease<R: Resource> {
    slot: Arc<Slot<R>>,
    generation: Arc<Generation<R>>,
    released: bool,
}

/// What becomes of a generation when a lease on it ends.
pub(crate) enum Released<R> {
    /// It is kept for the next invocation, or others still hold it.
    Stays,
    /// This was the last lease, and it is to be closed.
    Close(Outdated<R>),
}

impl<R: Resource> Slot<R> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            current: Mutex::new(None),
            opening: AsyncMutex::new(()),
        })
    }

    /// Held while opening, so that two callers never open twice.
    pub(crate) async fn flight(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.opening.lock().await
    }

    /// Leases the current generation, if it may still serve.
    pub(crate) fn offer(self: &Arc<Self>, settings: &Settings, now: Stamp) -> Offer<R> {
        let mut current = lock(&self.current);
        let Some(generation) = current.as_ref() else {
            return Offer::Empty { outdated: None };
        };
        let mut hold = lock(&generation.hold);
        if let Some(idle) = generation.serviceable(&hold, settings, now) {
            hold.leases += 1;
            drop(hold);
            generation.joined.notify_waiters();
            return Offer::Kept {
                lease: self.lease(generation),
                idle,
            };
        }
        hold.retired = true;
        let unheld = hold.leases == 0;
        drop(hold);
        let generation = current.take();
        Offer::Empty {
            outdated: generation.filter(|_| unheld).map(Outdated),
        }
    }

    /// Makes `resource` the current generation, leased once.
    pub(crate) fn install(self: &Arc<Self>, resource: R) -> Lease<R> {
        self.lease(&self.fill(resource, 1))
    }

    /// Makes `resource` the current generation, for the first invocation to come.
    pub(crate) fn preload(self: &Arc<Self>, resource: R) {
        self.fill(resource, 0);
    }

    fn fill(self: &Arc<Self>, resource: R, leases: usize) -> Arc<Generation<R>> {
        let now = Stamp::now();
        let (gone, until_gone) = watch::channel(());
        let generation = Arc::new(Generation {
            resource: Arc::new(resource),
            opened: now,
            runtime: runtime_id(),
            hold: Mutex::new(Hold {
                leases,
                retired: false,
                last_used: now,
            }),
            joined: Notify::new(),
            slot: Arc::downgrade(self),
            _gone: gone,
        });
        let open: Weak<Generation<R>> = Arc::downgrade(&generation);
        shutdown::remember(open, until_gone, generation.runtime);
        *lock(&self.current) = Some(Arc::clone(&generation));
        generation
    }

    fn lease(self: &Arc<Self>, generation: &Arc<Generation<R>>) -> Lease<R> {
        Lease {
            slot: Arc::clone(self),
            generation: Arc::clone(generation),
            released: false,
        }
    }
}

impl<R: Resource> Generation<R> {
    /// How long it has idled, if it may serve another invocation.
    fn serviceable(&self, hold: &Hold, settings: &Settings, now: Stamp) -> Option<Duration> {
        if hold.retired || self.runtime != runtime_id() {
            return None;
        }
        if R::PER_CONNECTION {
            return Some(now.since(hold.last_used));
        }
        if settings
            .lifetime
            .is_some_and(|lifetime| now.since(self.opened) > lifetime)
        {
            return None;
        }
        if hold.leases > 0 {
            return Some(Duration::ZERO);
        }
        let idle = now.since(hold.last_used);
        (idle <= settings.idle).then_some(idle)
    }
}

impl<R: Resource> Open for Generation<R> {
    fn name(&self) -> &'static str {
        R::NAME
    }

    fn retire(self: Arc<Self>) -> Option<BoxFuture<'static, ()>> {
        let slot = self.slot.upgrade();
        let mut current = slot.as_ref().map(|slot| lock(&slot.current));
        let unclaimed = {
            let mut hold = lock(&self.hold);
            // Who retires what nobody holds closes it.
            let unclaimed = hold.leases == 0 && !hold.retired;
            hold.retired = true;
            unclaimed
        };
        if let Some(current) = &mut current {
            forget(current, &self);
        }
        drop(current);
        if !unclaimed {
            return None;
        }
        Some(Box::pin(async move {
            let closing = catch_panic(R::NAME, "close", || self.resource.close());
            if let Err(panicked) = closing.await {
                catch_panic::report(&panicked, "");
            }
        }))
    }

    fn abandon(&self) {
        log_panic(R::NAME, "abandon", || self.resource.abandon());
    }
}

impl<R: Resource> Lease<R> {
    pub(crate) fn resource(&self) -> &R {
        &self.generation.resource
    }

    /// The resource, for the invocation's handle on it.
    pub(crate) fn share(&self) -> Arc<R> {
        Arc::clone(&self.generation.resource)
    }

    /// Whether nobody else holds the generation right now.
    pub(crate) fn is_last(&self) -> bool {
        lock(&self.generation.hold).leases == 1
    }

    /// Resolves when somebody else holds the generation, too.
    pub(crate) async fn joined(&self) {
        let mut joined = pin!(self.generation.joined.notified());
        joined.as_mut().enable();
        if self.is_last() {
            joined.await;
        }
    }

    /// Whether the generation is closed with its last lease.
    pub(crate) fn is_retired(&self) -> bool {
        lock(&self.generation.hold).retired
    }

    /// The generation must serve no further invocation; whoever holds it now may go on.
    pub(crate) fn retire(&self) {
        let mut current = lock(&self.slot.current);
        lock(&self.generation.hold).retired = true;
        forget(&mut current, &self.generation);
    }

    /// The same, if nobody else holds it: otherwise the last one out decides.
    pub(crate) fn retire_if_last(&self) {
        let mut current = lock(&self.slot.current);
        let mut hold = lock(&self.generation.hold);
        if hold.leases == 1 {
            hold.retired = true;
            forget(&mut current, &self.generation);
        }
    }

    /// Ends the lease. With `close`, the last one out gets the generation to close.
    pub(crate) fn release(mut self, close: bool) -> Released<R> {
        self.released = true;
        let mut current = lock(&self.slot.current);
        let mut hold = lock(&self.generation.hold);
        hold.leases -= 1;
        hold.last_used = Stamp::now();
        if hold.leases > 0 {
            return Released::Stays;
        }
        if !(close || hold.retired) {
            // Under the lock, so that it comes before the reset for whoever leases it next.
            self.generation.resource.rest();
            return Released::Stays;
        }
        hold.retired = true;
        forget(&mut current, &self.generation);
        Released::Close(Outdated(Arc::clone(&self.generation)))
    }
}

impl<R: Resource> Drop for Lease<R> {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        if R::PER_CONNECTION {
            let mut hold = lock(&self.generation.hold);
            hold.leases -= 1;
            hold.last_used = Stamp::now();
            return;
        }
        self.retire();
        lock(&self.generation.hold).leases -= 1;
        log_panic(R::NAME, "abandon", || self.generation.resource.abandon());
    }
}

impl<R> Outdated<R> {
    pub(crate) fn resource(&self) -> &R {
        &self.0.resource
    }
}

/// Stops offering `generation`.
fn forget<R>(current: &mut Option<Arc<Generation<R>>>, generation: &Arc<Generation<R>>) {
    if current
        .as_ref()
        .is_some_and(|current| Arc::ptr_eq(current, generation))
    {
        *current = None;
    }
}

fn runtime_id() -> Option<runtime::Id> {
    runtime::Handle::try_current()
        .ok()
        .map(|handle| handle.id())
}
