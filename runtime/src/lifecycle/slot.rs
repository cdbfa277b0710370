//! A slot holds at most one live generation of a resource; an invocation holds a lease on it.
//!
//! Leases change only under a short lock without an `.await`, so a future that is dropped at any point leaves a
//! slot consistent.

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

/// The slot of one resource of one handler.
pub(crate) struct Slot<R> {
    current: Mutex<Option<Arc<Generation<R>>>>,
    /// Held while opening, so that a resource is opened once.
    opening: AsyncMutex<()>,
}

/// A resource from its opening to its close.
pub(crate) struct Generation<R> {
    resource: Arc<R>,
    opened: Stamp,
    /// A resource is bound to the tokio runtime that opened it. Each test has its own runtime.
    runtime: Option<runtime::Id>,
    hold: Mutex<Hold>,
    /// Notified when another invocation leases it, too.
    shared: Notify,
    slot: Weak<Slot<R>>,
    /// Closes its channel when this generation is dropped.
    _gone: watch::Sender<()>,
}

struct Hold {
    leases: usize,
    retired: bool,
    last_used: Stamp,
}

/// What a slot offers at the beginning of an invocation.
pub(crate) enum Offer<R: Resource> {
    /// A live generation, after `idle` without any use (zero while another invocation uses it).
    Kept { lease: Lease<R>, idle: Duration },
    /// Nothing: open a new one. A generation that was too old is in `retired`, to be closed.
    Empty { retired: Option<Retired<R>> },
}

/// A generation without leases that its slot no longer offers.
#[must_use = "it must be closed"]
pub(crate) struct Retired<R>(Arc<Generation<R>>);

/// One invocation's lease on a generation. Dropping it without [`release`](Self::release) discards the
/// generation, unless each connection is cleaned up by the invocation that used it.
#[must_use = "a dropped lease ends its generation"]
pub(crate) struct Lease<R: Resource> {
    slot: Arc<Slot<R>>,
    generation: Arc<Generation<R>>,
    released: bool,
}

/// What happens to a generation when a lease on it ends.
pub(crate) enum Released<R> {
    /// It stays open for the next invocation, or other leases still exist.
    Stays,
    /// This was the last lease, and the generation has to be closed.
    Close(Retired<R>),
}

impl<R: Resource> Slot<R> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            current: Mutex::new(None),
            opening: AsyncMutex::new(()),
        })
    }

    /// Locked while opening, so that two callers never open twice.
    pub(crate) async fn opening_lock(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.opening.lock().await
    }

    /// Leases the current generation, if it is still usable.
    pub(crate) fn offer(self: &Arc<Self>, settings: &Settings, now: Stamp) -> Offer<R> {
        let mut current = lock(&self.current);
        let Some(generation) = current.as_ref() else {
            return Offer::Empty { retired: None };
        };
        let mut hold = lock(&generation.hold);
        if let Some(idle) = generation.serviceable(&hold, settings, now) {
            hold.leases += 1;
            drop(hold);
            generation.shared.notify_waiters();
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
            retired: generation.filter(|_| unheld).map(Retired),
        }
    }

    /// Makes `resource` the current generation, leased once.
    pub(crate) fn install(self: &Arc<Self>, resource: R) -> Lease<R> {
        self.lease(&self.fill(resource, 1))
    }

    /// Makes `resource` the current generation, idle until the first invocation.
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
            shared: Notify::new(),
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
    /// Returns how long it has idled, if another invocation may use it.
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
            // Retiring a generation without leases includes closing it.
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

    fn stop(&self) {
        log_panic(R::NAME, "stop", || self.resource.stop());
    }
}

impl<R: Resource> Lease<R> {
    pub(crate) fn resource(&self) -> &R {
        &self.generation.resource
    }

    /// Returns the resource, for the invocation's handle on it.
    pub(crate) fn share(&self) -> Arc<R> {
        Arc::clone(&self.generation.resource)
    }

    /// Returns whether this is the only lease right now.
    pub(crate) fn is_last(&self) -> bool {
        lock(&self.generation.hold).leases == 1
    }

    /// Waits until another invocation leases the generation, too.
    pub(crate) async fn shared(&self) {
        let mut shared = pin!(self.generation.shared.notified());
        shared.as_mut().enable();
        if self.is_last() {
            shared.await;
        }
    }

    /// Returns whether the generation is closed with its last lease.
    pub(crate) fn is_retired(&self) -> bool {
        lock(&self.generation.hold).retired
    }

    /// Retires the generation: no further invocation can lease it. Current leases stay valid.
    pub(crate) fn retire(&self) {
        let mut current = lock(&self.slot.current);
        lock(&self.generation.hold).retired = true;
        forget(&mut current, &self.generation);
    }

    /// Retires the generation if this is the only lease. Otherwise the last lease to end decides.
    pub(crate) fn retire_if_last(&self) {
        let mut current = lock(&self.slot.current);
        let mut hold = lock(&self.generation.hold);
        if hold.leases == 1 {
            hold.retired = true;
            forget(&mut current, &self.generation);
        }
    }

    /// Ends the lease. With `close`, the last lease to end returns the generation, to be closed.
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
            // Under the lock, so that `rest` runs before the reset of the next lease.
            self.generation.resource.park();
            return Released::Stays;
        }
        hold.retired = true;
        forget(&mut current, &self.generation);
        Released::Close(Retired(Arc::clone(&self.generation)))
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
        log_panic(R::NAME, "stop", || self.generation.resource.stop());
    }
}

impl<R> Retired<R> {
    pub(crate) fn resource(&self) -> &R {
        &self.0.resource
    }
}

/// Removes `generation` from its slot.
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
