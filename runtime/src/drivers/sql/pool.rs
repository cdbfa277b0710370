//! Our own pool: a bounded set of connections without tasks, timers or pings. Each connection is owned by the invocation
//! that uses it, until that has cleaned it up.

mod checkout;
mod cleanup;
mod open;
mod orphans;

pub(crate) use checkout::Checkout;
pub(super) use cleanup::Using;

use self::orphans::Orphan;
use super::{
    connect::Address,
    connection::Link,
    driver::Driver,
    error,
    users::{User, Users, Waiting},
};
use crate::{
    config::{CANCEL_TIMEOUT, CLEANUP_ROUND_TRIPS, QUIET, REPLY_ROUND_TRIPS, Settings},
    error::Error,
    resource::{Acquire, Fitness, Usage},
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

/// Up to `max` connections, each in the hands of one user at a time.
pub(super) struct Pool<DB: Driver> {
    address: Address<DB>,
    settings: Settings,
    handler: &'static str,
    /// One for each connection that somebody holds, and for each query that outlives its client.
    permits: Arc<Semaphore>,
    state: Mutex<State<DB>>,
    /// A connection has come back, or will never come back.
    returned: Notify,
    /// There is one more orphan.
    orphaned: Notify,
}

struct State<DB: Driver> {
    /// Nobody gets a connection any more. What comes back is dropped.
    closed: bool,
    idle: Vec<Idle<DB>>,
    /// The sessions that somebody holds.
    out: Vec<Out<DB>>,
    next: u64,
    users: Users,
    orphans: Vec<Orphan<DB>>,
    /// Interrupted, and on their way to their end: see [`Driver::IN_PROCESS`].
    closing: Vec<(Link<DB>, Option<OwnedSemaphorePermit>)>,
    /// Connections that were opened before the last time that this was raised are of no more use.
    epoch: u64,
    /// Why the server has turned away whoever is opening a connection.
    turned_away: Option<Error>,
}

struct Out<DB: Driver> {
    number: u64,
    user: User,
    session: DB::Session,
}

/// A connection that nobody holds.
struct Idle<DB: Driver> {
    link: Link<DB>,
    since: Stamp,
    /// The invocation that has used its session since that was last reset.
    owner: Option<User>,
    /// Something may still be on its way: a rollback, or the rest of a reply.
    unsettled: bool,
    /// A user had the connection itself, and may have left sqlx out of step with the server: the server has
    /// to be asked before the next statement.
    unrecognized: bool,
}

impl<DB: Driver> Pool<DB> {
    pub(super) fn new(acquire: &Acquire) -> Result<Self, Error> {
        let settings = *acquire.settings();
        Ok(Self {
            address: Address::read(acquire)?,
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
                turned_away: None,
            }),
            returned: Notify::new(),
            orphaned: Notify::new(),
        })
    }

    pub(super) fn address(&self) -> &Address<DB> {
        &self.address
    }

    /// An acquire that begins now.
    pub(super) fn acquire_now(&self) -> Acquire {
        Acquire::new(self.handler, self.settings, None)
    }

    /// Takes a connection for `user`: an idle one that is alive and has nothing of another invocation, or a new one.
    pub(super) async fn take(
        self: &Arc<Self>,
        user: User,
        acquire: &Acquire,
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
                let checkout = self.check_out(user, idle.link, permit);
                match self.reuse_or_open(checkout, &history, acquire).await? {
                    Some(checkout) => checkout,
                    // What it was doing keeps the place: there may be another one.
                    None => continue,
                }
            } else {
                let link = self.open(user, acquire).await?;
                self.check_out(user, link, permit)
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
        acquire: &Acquire,
    ) -> Result<OwnedSemaphorePermit, Error> {
        let _waits = self.waits_for(user, Waiting::Return);
        let returned = pin!(Arc::clone(&self.permits).acquire_owned());
        // A query that outlives its client holds its place until it is cancelled.
        let cancelling = pin!(self.keep_cancelling(acquire));
        match timeout_at(acquire.until(), select(returned, cancelling)).await {
            Ok(Either::Left((Ok(permit), _))) => Ok(permit),
            // The semaphore is never closed: only the wait can end without a permit.
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

    /// What the acquires of `user` wait for.
    pub(super) fn explain(&self, user: User) -> Option<Error> {
        let acquire = self.acquire_now();
        let state = self.lock();
        if state.users.waiting(user, Waiting::Opening) {
            // Whoever waits for a return waits for this as well.
            let target = self.address.target();
            let connecting = || error::connect_timed_out::<DB>(&acquire, target);
            return Some(state.turned_away.clone().unwrap_or_else(connecting));
        }
        state
            .users
            .waiting(user, Waiting::Return)
            .then(|| error::all_in_use(&acquire))
    }

    /// Whether it can go on.
    pub(super) fn check(&self) -> Fitness {
        if self.lock().closed {
            Fitness::Unfit
        } else {
            Fitness::Fit
        }
    }

    /// What the connections rely on is gone from the server, or the server takes no writes any more: none of
    /// them is used again.
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

    /// How long one reply may take where it is bound to take no longer than `bound` nearby.
    fn reply_within(&self, bound: Duration) -> Duration {
        self.address.round_trip().at_least(bound, REPLY_ROUND_TRIPS)
    }

    /// How long what is still on its way may take to come to its end.
    fn quiet_within(&self) -> Duration {
        self.reply_within(QUIET)
    }

    /// How long the cleanup of `user` may take.
    pub(super) fn cleanup_time(&self, user: User) -> Duration {
        let state = self.lock();
        let may_cancel = !state.orphans.is_empty() || state.out.iter().any(|out| out.user == user);
        drop(state);
        let least = if may_cancel {
            CANCEL_TIMEOUT
        } else {
            Duration::ZERO
        };
        self.cleanup_within().max(least)
    }

    /// The same where nothing has to be cancelled.
    fn cleanup_within(&self) -> Duration {
        let round_trip = self.address.round_trip();
        round_trip.at_least(self.settings.reserve, CLEANUP_ROUND_TRIPS)
    }

    pub(super) fn usage(&self) -> Usage {
        let in_use = u32::try_from(self.lock().out.len()).unwrap_or(u32::MAX);
        Usage {
            open: self.address.count().load(Ordering::Acquire),
            in_use,
        }
    }

    /// Drops a connection that is of no more use. One that is a thread is awaited later, so that it is
    /// not frozen with a lock in its hands.
    fn discard(&self, link: Link<DB>, permit: Option<OwnedSemaphorePermit>) {
        if DB::IN_PROCESS {
            DB::interrupt(link.session());
            self.lock().closing.push((link, permit));
        }
    }

    /// Discards the idle connections of which `which` says so.
    fn discard_idle(&self, mut which: impl FnMut(&Idle<DB>) -> bool) {
        let idle: Vec<_> = self
            .lock()
            .idle
            .extract_if(.., |idle| which(idle))
            .collect();
        for idle in idle {
            self.discard(idle.link, None);
        }
    }

    /// The idle connection that costs `user` least; `None` if there may be one more instead.
    fn pop_idle(&self, user: User) -> Option<Idle<DB>> {
        let mut state = self.lock();
        let idle = &state.idle;
        let mine = |idle: &Idle<DB>| idle.owner == Some(user);
        let ready = |idle: &Idle<DB>| !idle.unsettled && !idle.unrecognized;
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
                // The caller has a permit already.
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

fn used_after(acquire: &Acquire) -> Error {
    let error = error::escaped(acquire);
    tracing::error!(handler = acquire.handler(), %error);
    error
}

impl<DB: Driver> Idle<DB> {
    /// What `user` has to know of it.
    fn history(&self, user: User) -> History {
        History {
            idle_for: Stamp::now().since(self.since),
            is_foreign: self.owner.is_some_and(|owner| owner != user),
            unsettled: self.unsettled,
            unrecognized: self.unrecognized,
        }
    }
}

/// What happened to a connection before it was idle, and for how long it was.
struct History {
    idle_for: Duration,
    /// Its session holds what another invocation has left there.
    is_foreign: bool,
    unsettled: bool,
    unrecognized: bool,
}

/// An acquire that waits, for as long as this exists.
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
            state.turned_away = None;
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
