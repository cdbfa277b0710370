//! A bounded set of connections without tasks, timers or pings of its own: who holds which.

mod finally;
mod lent;
mod opening;

pub use lent::Lent;

use super::{address::Address, driver::Driver, fault, link::Link};
use crate::{
    clock::Stamp,
    config::{CLEANUP_ROUND_TRIPS, QUIET, REPLY_ROUND_TRIPS, Settings},
    error::Error,
    lock::lock,
    resource::{Acquire, Fitness, Usage},
};
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout_at,
};

/// Up to `max` connections, each lent to one user at a time.
pub(super) struct Set<DB: Driver> {
    address: Address<DB>,
    settings: Settings,
    handler: &'static str,
    permits: Arc<Semaphore>,
    state: Mutex<State<DB>>,
}

struct State<DB: Driver> {
    phase: Phase,
    idle: Vec<Idle<DB>>,
    /// The sessions that somebody has.
    out: Vec<Out<DB>>,
    next: u64,
    /// Dropped in the middle of a statement, which may still run on the server.
    strays: Vec<DB::Session>,
    /// Interrupted, and on their way to their end: see [`Driver::IN_PROCESS`].
    leaving: Vec<Link<DB>>,
    /// A connection has been lost: the others cannot be trusted either.
    lost: bool,
    /// A handler has failed, and nobody knows whether because of a connection.
    suspect: bool,
    /// How many acquires wait for what.
    waiting: [usize; 2],
    /// Why the server has turned away whoever is opening a connection.
    turned_away: Option<Error>,
}

/// What can keep an acquire waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// A connection is being opened, or asked whether it is alive.
    Opening,
    /// Every connection is in use.
    Return,
}

/// An acquire that waits, for as long as this exists.
struct Waits<'a, DB: Driver> {
    set: &'a Set<DB>,
    what: Waiting,
}

impl<DB: Driver> Drop for Waits<'_, DB> {
    fn drop(&mut self) {
        let mut state = self.set.lock();
        state.waiting[self.what as usize] -= 1;
        if state.waiting[Waiting::Opening as usize] == 0 {
            state.turned_away = None;
        }
    }
}

struct Out<DB: Driver> {
    number: u64,
    session: DB::Session,
}

/// Who may take a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// An invocation.
    Serving,
    /// Nobody: it is kept for the next invocation.
    Resting,
    /// Nobody, for ever. What comes back is dropped.
    Ended,
}

/// A connection that nobody holds.
struct Idle<DB: Driver> {
    link: Link<DB>,
    since: Stamp,
    /// Something may still be on its way: a rollback, or the rest of an answer.
    unsettled: bool,
    /// A user had the connection itself, and may have left sqlx out of step with the server: the server has
    /// to be asked before the next statement.
    unrecognized: bool,
    /// Its session has been used since it was last reset.
    used: bool,
}

/// A connection that is being waited for. Dropping this gives it up.
struct Unsettled<'a, DB: Driver> {
    set: &'a Set<DB>,
    /// Empty as soon as the wait has been worth it.
    link: Option<Link<DB>>,
}

impl<DB: Driver> Drop for Unsettled<'_, DB> {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            self.set.stray(&link);
            self.set.let_go(link);
        }
    }
}

impl<DB: Driver> Set<DB> {
    pub(super) fn new(acquire: &Acquire) -> Result<Self, Error> {
        let settings = *acquire.settings();
        Ok(Self {
            address: Address::read(acquire)?,
            settings,
            handler: acquire.handler(),
            permits: Arc::new(Semaphore::new(settings.max as usize)),
            state: Mutex::new(State {
                phase: Phase::Serving,
                idle: Vec::new(),
                out: Vec::new(),
                next: 0,
                strays: Vec::new(),
                leaving: Vec::new(),
                lost: false,
                suspect: false,
                waiting: [0; 2],
                turned_away: None,
            }),
        })
    }

    pub(super) fn address(&self) -> &Address<DB> {
        &self.address
    }

    /// An acquire that begins now.
    pub(super) fn acquire_now(&self) -> Acquire {
        Acquire::new(self.handler, self.settings, None)
    }

    /// Takes a connection: an idle one that is alive, or a new one.
    pub(super) async fn take(self: &Arc<Self>, acquire: &Acquire) -> Result<Lent<DB>, Error> {
        let permit = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.wait_for_permit(acquire).await?,
        };
        if self.phase() != Phase::Serving {
            return Err(self.escaped(acquire));
        }
        let opening = self.waits_for(Waiting::Opening);
        let link = match self.pop_idle() {
            Some(idle) => self.revive(idle, acquire).await?,
            None => self.open(acquire).await?,
        };
        drop(opening);
        // The invocation may have ended meanwhile.
        if self.phase() != Phase::Serving {
            self.let_go(link);
            return Err(self.escaped(acquire));
        }
        Ok(self.lend(link, permit))
    }

    fn waits_for(&self, what: Waiting) -> Waits<'_, DB> {
        self.lock().waiting[what as usize] += 1;
        Waits { set: self, what }
    }

    /// What acquires wait for.
    pub(super) fn explain(&self) -> Option<Error> {
        let acquire = self.acquire_now();
        let state = self.lock();
        let waiting = state.waiting;
        if waiting[Waiting::Opening as usize] > 0 {
            // Whoever waits for a return waits for this as well.
            let target = self.address.target();
            let connecting = || fault::connect_timed_out::<DB>(&acquire, target);
            return Some(state.turned_away.clone().unwrap_or_else(connecting));
        }
        (waiting[Waiting::Return as usize] > 0).then(|| fault::all_in_use(&acquire))
    }

    async fn wait_for_permit(&self, acquire: &Acquire) -> Result<OwnedSemaphorePermit, Error> {
        let _waits = self.waits_for(Waiting::Return);
        let returned = Arc::clone(&self.permits).acquire_owned();
        match timeout_at(acquire.until(), returned).await {
            Ok(Ok(permit)) => Ok(permit),
            // The semaphore is never closed: only the wait can end without a permit.
            _ => Err(fault::all_in_use(acquire)),
        }
    }

    /// An invocation uses it again.
    pub(super) fn serve(&self) -> Fitness {
        let mut state = self.lock();
        if state.phase == Phase::Ended || state.lost {
            return Fitness::Unfit;
        }
        state.phase = Phase::Serving;
        Fitness::Fit
    }

    /// Nobody uses it until the next invocation.
    pub(super) fn rest(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Serving {
            state.phase = Phase::Resting;
        }
        state.suspect = false;
    }

    /// What is reused after this invocation is looked at first.
    pub(super) fn suspect(&self) {
        self.lock().suspect = true;
    }

    /// What the connections rely on is gone from the server, or the server takes no writes any more: no
    /// other invocation gets one of them, and who asks again in this one gets a new one.
    pub(super) fn outdated(&self) {
        let mut state = self.lock();
        if !state.lost {
            state.lost = true;
            tracing::warn!(
                handler = self.handler,
                target = self.address.target(),
                "{}",
                fault::OUTDATED
            );
        }
        drop(state);
        self.forget_idle();
    }

    /// How long one reply may take where it is bound to take no longer than `bound` nearby.
    fn reply_within(&self, bound: Duration) -> Duration {
        self.address.round_trip().at_least(bound, REPLY_ROUND_TRIPS)
    }

    /// How long what is still on its way may take to come to its end.
    fn quiet_within(&self) -> Duration {
        self.reply_within(QUIET)
    }

    /// How long the whole cleanup may take.
    fn cleanup_within(&self) -> Duration {
        let round_trip = self.address.round_trip();
        round_trip.at_least(self.settings.reserve, CLEANUP_ROUND_TRIPS)
    }

    /// What is out is not to be used again.
    pub(super) fn abandon(&self) {
        self.lock().phase = Phase::Ended;
    }

    pub(super) fn usage(&self) -> Usage {
        let free = u32::try_from(self.permits.available_permits()).unwrap_or(u32::MAX);
        Usage {
            open: self.address.count().load(Ordering::Acquire),
            in_use: self.settings.max.saturating_sub(free),
        }
    }

    fn escaped(&self, acquire: &Acquire) -> Error {
        let error = fault::escaped(acquire);
        tracing::error!(handler = self.handler, %error);
        error
    }

    /// The connection, when what is still on its way ends within `longest`. Otherwise, and also when this
    /// is given up, the connection is let go, and what runs on it is left to be stopped.
    async fn quietened(&self, link: Link<DB>, longest: Duration) -> Option<Link<DB>> {
        let mut unsettled = Unsettled {
            set: self,
            link: Some(link),
        };
        let quiet = unsettled.link.as_mut()?.becomes_quiet(longest).await;
        if quiet { unsettled.link.take() } else { None }
    }

    /// The same after its user had it in hand: the server's reply has to be recognized, too, and what
    /// transaction it may be in is rolled back.
    async fn recognized(&self, link: Link<DB>, longest: Duration) -> Option<Link<DB>> {
        let mut unsettled = Unsettled {
            set: self,
            link: Some(link),
        };
        let recognized = unsettled.link.as_mut()?.recognized(longest).await;
        if recognized {
            return unsettled.link.take();
        }
        tracing::debug!(
            handler = self.handler,
            "a connection's reply was not recognized: discarded"
        );
        None
    }

    fn stray(&self, link: &Link<DB>) {
        self.lock().strays.push(link.session().clone());
    }

    /// Drops a connection that is of no more use. One that is a thread is awaited later, so that it is
    /// not frozen with a lock in its hands.
    fn let_go(&self, link: Link<DB>) {
        if DB::IN_PROCESS {
            DB::interrupt(link.session());
            self.lock().leaving.push(link);
        }
    }

    fn forget_idle(&self) {
        let idle = std::mem::take(&mut self.lock().idle);
        for idle in idle {
            self.let_go(idle.link);
        }
    }

    /// An idle connection, rather one that can be used without a question.
    fn pop_idle(&self) -> Option<Idle<DB>> {
        self.pop_recognized().or_else(|| self.lock().idle.pop())
    }

    /// An idle connection on which no earlier reply is on its way.
    fn pop_recognized(&self) -> Option<Idle<DB>> {
        let mut state = self.lock();
        let ready = |idle: &Idle<DB>| !idle.unsettled && !idle.unrecognized;
        let at = state.idle.iter().rposition(ready)?;
        Some(state.idle.remove(at))
    }

    fn phase(&self) -> Phase {
        self.lock().phase
    }

    fn lock(&self) -> MutexGuard<'_, State<DB>> {
        lock(&self.state)
    }
}

impl<DB: Driver> fmt::Debug for Set<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Set")
            .field("target", &self.address.target())
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}
