//! The crate's own pool: a bounded set of connections without tasks, timers or pings. Each connection belongs to the
//! invocation that uses it, until that has cleaned it up.

mod checkout;
mod cleanup;
mod open;
mod orphans;

pub(crate) use checkout::Checkout;
pub(super) use cleanup::Using;

use self::orphans::Orphan;
use super::{
    connect::Connector,
    connection::OpenConnection,
    driver::Driver,
    error,
    users::{User, Users, Waiting},
};
use crate::{
    config::{DRAIN_TIMEOUT, REPLY_ROUND_TRIPS, Settings},
    error::Error,
    resource::{AcquireContext, Health, Usage},
    util::{clock::Stamp, lock::lock},
};
use futures_util::future::{Either, select};
use std::{
    fmt,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::timeout_at,
};

/// Up to `max` connections, each used by one invocation at a time.
pub(super) struct Pool<DB: Driver> {
    address: Connector<DB>,
    settings: Settings,
    handler: &'static str,
    /// One permit per checked-out connection and per orphaned query.
    permits: Arc<Semaphore>,
    state: Mutex<State<DB>>,
    /// Notified when a connection is released or discarded.
    returned: Notify,
    /// Notified when a query is orphaned, or its cancellation ends.
    orphaned: Notify,
}

struct State<DB: Driver> {
    /// No connection is handed out any more. A released connection is dropped.
    closed: bool,
    idle: Vec<Idle<DB>>,
    /// The sessions of checked-out connections.
    out: Vec<Out<DB>>,
    next: u64,
    users: Users,
    orphans: Vec<Orphan<DB>>,
    /// Interrupted connections that are about to end: see [`Driver::IN_PROCESS`].
    closing: Vec<(OpenConnection<DB>, Option<OwnedSemaphorePermit>)>,
    /// Raised to retire all connections opened before.
    epoch: u64,
    /// Why the server refuses new connections at the moment.
    refused: Option<Error>,
}

struct Out<DB: Driver> {
    number: u64,
    user: User,
    session: DB::Session,
}

/// An idle connection.
struct Idle<DB: Driver> {
    connection: OpenConnection<DB>,
    since: Stamp,
    /// The invocation that has used its session since the last reset.
    owner: Option<User>,
    /// Data may still be on the wire: a rollback, or the rest of a reply.
    dirty: bool,
    /// The raw connection was used, so sqlx may be out of sync with the server: it must be probed before the next
    /// statement.
    unrecognized: bool,
}

impl<DB: Driver> Pool<DB> {
    pub(super) fn new(acquire: &AcquireContext) -> Result<Self, Error> {
        let settings = *acquire.settings();
        Ok(Self {
            address: Connector::read(acquire)?,
            settings,
            handler: acquire.handler(),
            permits: Arc::new(Semaphore::new(settings.max as usize)),
            state: Mutex::new(State {
                closed: false,
                idle: Vec::new(),
                out: Vec::new(),
                next: 0,
                users: Users::default(),
                orphans: Vec::new(),
                closing: Vec::new(),
                epoch: 0,
                refused: None,
            }),
            returned: Notify::new(),
            orphaned: Notify::new(),
        })
    }

    pub(super) fn address(&self) -> &Connector<DB> {
        &self.address
    }

    /// The limits of an acquire that begins now.
    pub(super) fn acquire_now(&self) -> AcquireContext {
        AcquireContext::new(self.handler, self.settings, None)
    }

    /// Acquires a connection for `user`: an idle one that is alive and has no other invocation's state, or a new one.
    pub(super) async fn take(
        self: &Arc<Self>,
        user: User,
        acquire: &AcquireContext,
    ) -> Result<Checkout<DB>, Error> {
        loop {
            let permit = match Arc::clone(&self.permits).try_acquire_owned() {
                Ok(permit) => permit,
                Err(_) => self.wait_for_permit(user, acquire).await?,
            };
            if !self.serves(user) {
                return Err(used_after(acquire));
            }
            let _opening = self.waits_for(user, Waiting::Opening);
            let checkout = if let Some(idle) = self.pop_idle(user) {
                let history = idle.history(user);
                let checkout = self.check_out(user, idle.connection, permit);
                match self.reuse_or_open(checkout, &history, acquire).await? {
                    Some(checkout) => checkout,
                    // A statement still runs on it and keeps its permit. There may be another connection.
                    None => continue,
                }
            } else {
                let connection = self.open(user, acquire).await?;
                self.check_out(user, connection, permit)
            };
            // The invocation may have ended meanwhile.
            if !self.serves(user) {
                checkout.leave();
                return Err(used_after(acquire));
            }
            return Ok(checkout);
        }
    }

    async fn wait_for_permit(
        &self,
        user: User,
        acquire: &AcquireContext,
    ) -> Result<OwnedSemaphorePermit, Error> {
        let _waits = self.waits_for(user, Waiting::Return);
        let returned = pin!(Arc::clone(&self.permits).acquire_owned());
        // An orphaned query keeps its permit until it is cancelled.
        let cancelling = pin!(self.keep_cancelling(acquire));
        match timeout_at(acquire.until(), select(returned, cancelling)).await {
            Ok(Either::Left((Ok(permit), _))) => Ok(permit),
            // The semaphore is never closed: only a timeout ends the wait without a permit.
            _ => Err(error::all_in_use(acquire)),
        }
    }

    fn waits_for(&self, user: User, what: Waiting) -> Waits<'_, DB> {
        self.lock().users.waits(user, what, 1);
        Waits {
            pool: self,
            user,
            what,
        }
    }

    /// The error that explains what the acquires of `user` wait for.
    pub(super) fn explain(&self, user: User) -> Option<Error> {
        let acquire = self.acquire_now();
        let state = self.lock();
        if state.users.waiting(user, Waiting::Opening) {
            // An acquire that waits for a release waits for this as well.
            let target = self.address.target();
            let connecting = || error::connect_timed_out::<DB>(&acquire, target);
            return Some(state.refused.clone().unwrap_or_else(connecting));
        }
        state
            .users
            .waiting(user, Waiting::Return)
            .then(|| error::all_in_use(&acquire))
    }

    /// Whether the pool can be used.
    pub(super) fn check(&self) -> Health {
        if self.lock().closed {
            Health::Broken
        } else {
            Health::Healthy
        }
    }

    /// Retires all connections: something that they rely on is gone from the server, or the server no longer accepts
    /// writes.
    pub(super) fn outdated(&self) {
        let mut state = self.lock();
        state.epoch += 1;
        drop(state);
        tracing::warn!(
            handler = self.handler,
            target = self.address.target(),
            "{}",
            error::OUTDATED
        );
        self.discard_idle(|_| true);
    }

    /// The timeout for one reply: `bound` for a nearby server, more for a distant one.
    fn reply_within(&self, bound: Duration) -> Duration {
        self.address.round_trip().at_least(bound, REPLY_ROUND_TRIPS)
    }

    /// The timeout for draining a connection.
    fn quiet_within(&self) -> Duration {
        self.reply_within(DRAIN_TIMEOUT)
    }

    /// How long the cleanup of `user` may take.
    pub(super) fn cleanup_time(&self, user: User) -> Duration {
        let state = self.lock();
        let may_cancel = !state.orphans.is_empty() || state.out.iter().any(|out| out.user == user);
        drop(state);
        self.cleanup_within(may_cancel)
    }

    fn cleanup_within(&self, may_cancel: bool) -> Duration {
        let round_trip = self.address.round_trip();
        round_trip.cleanup(self.settings.reserve, may_cancel)
    }

    pub(super) fn usage(&self) -> Usage {
        let in_use = u32::try_from(self.lock().out.len()).unwrap_or(u32::MAX);
        Usage {
            open: self.address.count().load(Ordering::Acquire),
            in_use,
        }
    }

    /// Discards a connection. One that is a thread is awaited later, so that it does not hold a lock while it is
    /// frozen.
    fn discard(&self, connection: OpenConnection<DB>, permit: Option<OwnedSemaphorePermit>) {
        if DB::IN_PROCESS {
            DB::interrupt(connection.session());
            self.lock().closing.push((connection, permit));
        }
    }

    /// Discards the idle connections for which `which` returns `true`.
    fn discard_idle(&self, mut which: impl FnMut(&Idle<DB>) -> bool) {
        let idle: Vec<_> = self
            .lock()
            .idle
            .extract_if(.., |idle| which(idle))
            .collect();
        for idle in idle {
            self.discard(idle.connection, None);
        }
    }

    /// Removes the idle connection that costs `user` least; `None` if a new one may be opened instead.
    fn pop_idle(&self, user: User) -> Option<Idle<DB>> {
        let mut state = self.lock();
        let idle = &state.idle;
        let mine = |idle: &Idle<DB>| idle.owner == Some(user);
        let ready = |idle: &Idle<DB>| !idle.dirty && !idle.unrecognized;
        let at = idle
            .iter()
            .rposition(|idle| mine(idle) && ready(idle))
            .or_else(|| idle.iter().rposition(|idle| idle.owner.is_none()))
            .or_else(|| idle.iter().rposition(mine))
            .or_else(|| {
                let ended = |idle: &Idle<DB>| !idle.owner.is_some_and(|it| state.users.has(it));
                idle.iter().rposition(ended)
            })
            .or_else(|| {
                // The caller already has a permit.
                let taken = self.settings.max as usize - self.permits.available_permits();
                let is_full = idle.len() + taken > self.settings.max as usize;
                is_full.then_some(0).filter(|_| !idle.is_empty())
            })?;
        Some(state.idle.remove(at))
    }

    fn lock(&self) -> MutexGuard<'_, State<DB>> {
        lock(&self.state)
    }
}

fn used_after(acquire: &AcquireContext) -> Error {
    let error = error::leaked(acquire);
    tracing::error!(handler = acquire.handler(), %error);
    error
}

impl<DB: Driver> Idle<DB> {
    /// What `user` has to know before using the connection.
    fn history(&self, user: User) -> History {
        History {
            idle_for: Stamp::now().since(self.since),
            is_foreign: self.owner.is_some_and(|owner| owner != user),
            dirty: self.dirty,
            unrecognized: self.unrecognized,
        }
    }
}

/// The use of a connection before it was idle, and how long it has been idle.
struct History {
    idle_for: Duration,
    /// Its session has another invocation's state.
    is_foreign: bool,
    dirty: bool,
    unrecognized: bool,
}

/// Marks an acquire as waiting while it exists.
struct Waits<'a, DB: Driver> {
    pool: &'a Pool<DB>,
    user: User,
    what: Waiting,
}

impl<DB: Driver> Drop for Waits<'_, DB> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        state.users.waits(self.user, self.what, -1);
        if !state.users.any_waiting(Waiting::Opening) {
            state.refused = None;
        }
    }
}

impl<DB: Driver> fmt::Debug for Pool<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("target", &self.address.target())
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}
