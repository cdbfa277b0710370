//! A bounded set of connections without tasks, timers or pings of its own: who holds which, and what
//! becomes of it afterwards.

use super::{
    address::Address,
    driver::Driver,
    fault,
    link::Link,
    pressure,
    retry::Retry,
    thaw::{Thawed, thaw},
};
use crate::{
    clock::Stamp,
    config::{Close, QUIET, Settings},
    error::{Error, ErrorKind},
    lock::lock,
    resource::{Acquire, Fate, Fitness, Usage},
};
use futures_util::future::join_all;
use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout, timeout_at},
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
    /// What somebody waits for, or was waiting for when he was stopped.
    waiting: Option<Waiting>,
}

/// What can keep an acquire waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// A connection is being opened, or asked whether it is alive.
    Opening,
    /// Every connection is in use.
    Return,
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
    /// Its session has been used since it was last reset.
    used: bool,
}

/// What became of an idle connection.
enum Looked<DB: Driver> {
    /// It can be used as it is.
    Serves(Link<DB>),
    /// It has idled for so long that it has to be asked first.
    HasSlept(Link<DB>),
    Gone,
}

/// A connection that somebody holds. Dropping it drops the connection's socket.
pub struct Lent<DB: Driver> {
    /// Empty only when it is given back.
    link: Option<Link<DB>>,
    number: u64,
    set: Arc<Set<DB>>,
    /// Goes last: whoever waits for it finds the connection back.
    _permit: OwnedSemaphorePermit,
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
                waiting: None,
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
        let permit = if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            permit
        } else {
            self.waits_for(Some(Waiting::Return));
            let permit = self.wait_for_permit(acquire).await;
            self.waits_for(None);
            permit?
        };
        if self.phase() != Phase::Serving {
            return Err(self.escaped(acquire));
        }
        self.waits_for(Some(Waiting::Opening));
        let link = match self.pop_idle() {
            Some(idle) => self.revive(idle, acquire).await,
            None => self.open(acquire).await,
        };
        self.waits_for(None);
        let link = link?;
        // The invocation may have ended meanwhile.
        if self.phase() != Phase::Serving {
            self.let_go(link);
            return Err(self.escaped(acquire));
        }
        Ok(self.lend(link, permit))
    }

    fn waits_for(&self, what: Option<Waiting>) {
        self.lock().waiting = what;
    }

    /// What an acquire that was stopped was waiting for.
    pub(super) fn explain(&self) -> Option<Error> {
        let acquire = self.acquire_now();
        Some(match self.lock().waiting? {
            Waiting::Return => fault::all_in_use(&acquire),
            Waiting::Opening => fault::connect_timed_out::<DB>(&acquire, self.address.target()),
        })
    }

    async fn wait_for_permit(&self, acquire: &Acquire) -> Result<OwnedSemaphorePermit, Error> {
        let waiting = Arc::clone(&self.permits).acquire_owned();
        match timeout_at(acquire.until(), waiting).await {
            Ok(Ok(permit)) => Ok(permit),
            // The semaphore is never closed: only the wait can end without a permit.
            _ => Err(fault::all_in_use(acquire)),
        }
    }

    fn lend(self: &Arc<Self>, link: Link<DB>, permit: OwnedSemaphorePermit) -> Lent<DB> {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.out.push(Out {
            number,
            session: link.session().clone(),
        });
        drop(state);
        Lent {
            link: Some(link),
            number,
            set: Arc::clone(self),
            _permit: permit,
        }
    }

    /// A new connection. A server without room for it is asked again within the acquire; until it has
    /// some, what somebody else gives back does as well.
    async fn open(&self, acquire: &Acquire) -> Result<Link<DB>, Error> {
        let retry = Retry::new(acquire.until());
        match self.address.dial(acquire).await {
            Ok(link) => Ok(link),
            // Boxed: it is large, and few invocations meet a full server.
            Err(denied) if denied.for_lack_of_room => {
                Box::pin(self.open_in_a_full_server(denied.why, retry, acquire)).await
            }
            Err(denied) => Err(denied.why),
        }
    }

    async fn open_in_a_full_server(
        &self,
        mut why: Error,
        mut retry: Retry,
        acquire: &Acquire,
    ) -> Result<Link<DB>, Error> {
        while let Some(wait) = retry.next_wait() {
            sleep(wait).await;
            if let Some(link) = self.given_back().await {
                return Ok(link);
            }
            match self.address.dial(acquire).await {
                Ok(link) => return Ok(link),
                Err(denied) if denied.for_lack_of_room => why = denied.why,
                // A last try that ran out of time knows less than the one before.
                Err(denied) if denied.why.kind() == ErrorKind::ConnectTimeout => break,
                Err(denied) => return Err(retry.told(denied.why)),
            }
        }
        Err(retry.told(why))
    }

    /// An idle connection, if there is one by now and it serves.
    async fn given_back(&self) -> Option<Link<DB>> {
        match self.look_at(self.pop_idle()?).await {
            Looked::Serves(link) => Some(link),
            Looked::HasSlept(mut link) => {
                if link.answers(self.settings.ping).await {
                    return Some(link);
                }
                self.let_go(link);
                None
            }
            Looked::Gone => None,
        }
    }

    /// What can be told of an idle connection without asking the server.
    async fn look_at(&self, idle: Idle<DB>) -> Looked<DB> {
        let Idle {
            mut link,
            since,
            unsettled,
            ..
        } = idle;
        let now = Stamp::now();
        let idle_for = now.since(since);
        if unsettled && !link.becomes_quiet(self.settings.ping).await {
            self.stray(&link);
            self.let_go(link);
            return Looked::Gone;
        }
        let too_old = self
            .settings
            .lifetime
            .is_some_and(|longest| link.age(now) > longest);
        if too_old {
            link.close().await;
            return Looked::Gone;
        }
        if idle_for > self.settings.idle {
            self.forget_idle();
            return Looked::Gone;
        }
        if idle_for <= self.settings.trust {
            Looked::Serves(link)
        } else {
            Looked::HasSlept(link)
        }
    }

    /// The connection if it is young and alive, or a new one in its place.
    async fn revive(&self, idle: Idle<DB>, acquire: &Acquire) -> Result<Link<DB>, Error> {
        let mut link = match self.look_at(idle).await {
            Looked::Serves(link) => return Ok(link),
            Looked::HasSlept(link) => link,
            Looked::Gone => return self.open(acquire).await,
        };
        let ping = link.answers(acquire.left());
        match thaw(ping, self.settings.ping, self.open(acquire)).await {
            Thawed::Kept => Ok(link),
            Thawed::Fresh(fresh) => {
                // The others have idled for longer still: what ended this one has ended them.
                self.forget_idle();
                Ok(fresh)
            }
            Thawed::Neither(error) => {
                self.forget_idle();
                Err(error)
            }
        }
    }

    /// Opens up to `wanted` connections ahead of their use.
    pub(super) async fn connect(&self, wanted: u32, acquire: &Acquire) -> Result<(), Error> {
        for _ in 0..wanted {
            let link = self.open(acquire).await?;
            self.lock().idle.push(Idle {
                link,
                since: Stamp::now(),
                unsettled: false,
                used: false,
            });
        }
        Ok(())
    }

    /// Takes back what one invocation had for itself.
    pub(super) async fn put_back(&self, mut lent: Lent<DB>, fate: Fate) {
        let Some(link) = &mut lent.link else { return };
        // A rollback that `Transaction`'s drop has only queued goes out now.
        let discarded = fate == Fate::Discarded;
        let quiet = link.is_quiet() || !discarded && link.becomes_quiet(QUIET).await;
        if !quiet {
            // Dropped in the middle of a statement: its drop says so.
            self.lock().lost = true;
            return;
        }
        match fate {
            Fate::Kept if self.phase() != Phase::Ended => {
                if link.reset(self.settings.ping).await {
                    lent.give_back();
                } else {
                    // What did not come to its end was ours: there is nothing to be stopped.
                    self.let_go(lent.into_link());
                }
            }
            Fate::Discarded => self.let_go(lent.into_link()),
            Fate::Kept | Fate::Closed => lent.into_link().close().await,
        }
    }

    /// Waits until every connection is back, and stops on the server what is not.
    pub(super) async fn settle(self: &Arc<Self>) -> Fitness {
        // Putting back has had its time to become quiet already.
        let until = Instant::now() + self.settings.reserve.saturating_sub(QUIET);
        let all_back = timeout(QUIET, self.all_back()).await.is_ok();
        if !all_back {
            // Whoever is still connecting comes too late.
            self.rest();
        }
        self.quieten_idle().await;
        let sessions = self.sessions_to_stop();
        if !sessions.is_empty() {
            self.stop(&sessions, all_back, until).await;
        }
        if !all_back {
            // Cancelled, they come back with an error; where the network is gone, they may not.
            let _ = timeout_at(until, self.all_back()).await;
            self.lock().lost = true;
        }
        self.see_off().await;
        if self.lock().lost {
            Fitness::Unfit
        } else {
            Fitness::Fit
        }
    }

    /// Every connection is back.
    async fn all_back(&self) {
        // The semaphore is never closed: there is nothing but success.
        let _ = self.permits.acquire_many(self.settings.max).await;
    }

    /// Lets what idles come to an end with what is still on its way.
    async fn quieten_idle(&self) {
        let unsettled: Vec<Idle<DB>> = self
            .lock()
            .idle
            .extract_if(.., |idle| idle.unsettled)
            .collect();
        let settling = unsettled.into_iter().map(async |mut idle: Idle<DB>| {
            if idle.link.becomes_quiet(QUIET).await {
                idle.unsettled = false;
                self.lock().idle.push(idle);
            } else {
                self.stray(&idle.link);
                self.let_go(idle.link);
            }
        });
        join_all(settling).await;
    }

    fn sessions_to_stop(&self) -> Vec<DB::Session> {
        let state = self.lock();
        let out = state.out.iter().map(|out| &out.session);
        state.strays.iter().chain(out).cloned().collect()
    }

    async fn stop(&self, sessions: &[DB::Session], all_back: bool, until: Instant) {
        if all_back {
            tracing::debug!(
                handler = self.handler,
                statements = sessions.len(),
                "given up by the handler: stopping them on the server"
            );
        } else {
            tracing::warn!(
                handler = self.handler,
                connections = self.usage().in_use,
                "the handler has ended, but a task that it left behind still uses its database: that is stopped; spawn such work through `&Background`"
            );
        }
        let mut idle = self.pop_idle();
        let via = idle.as_mut().map(|idle| &mut *idle.link);
        let acquire = self.acquire_now();
        let stopped = self.address.cancel(&acquire, sessions, via, until).await;
        let mut state = self.lock();
        if stopped {
            state.strays.clear();
            state.idle.extend(idle);
        } else {
            state.lost = true;
        }
    }

    /// Makes what was used as good as new for the next invocation.
    pub(super) async fn refresh(self: &Arc<Self>) -> Fitness {
        let mut used = Vec::new();
        while let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            let mut state = self.lock();
            let Some(at) = state.idle.iter().position(|idle| idle.used) else {
                break;
            };
            let idle = state.idle.remove(at);
            drop(state);
            used.push(self.lend(idle.link, permit));
        }
        let resetting = used.into_iter().map(async |mut lent: Lent<DB>| {
            let Some(link) = &mut lent.link else { return };
            if link.reset(self.settings.ping).await {
                lent.give_back_as(false, false);
            } else {
                self.let_go(lent.into_link());
            }
        });
        join_all(resetting).await;
        let fitness = match self.settings.close {
            Close::Pressure => self.ask_for_room().await,
            _ => Fitness::Fit,
        };
        self.see_off().await;
        fitness
    }

    /// Whether the server has room for what is to be kept.
    async fn ask_for_room(self: &Arc<Self>) -> Fitness {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return Fitness::Fit;
        };
        let Some(idle) = self.pop_idle() else {
            return Fitness::Fit;
        };
        let mut lent = self.lend(idle.link, permit);
        let (place, share) = (self.address.target(), self.settings.share);
        let fitness = pressure::verdict::<DB>(place, share, &mut lent).await;
        if fitness == Fitness::Unfit {
            // It is half-way through an answer that nobody waits for.
            self.let_go(lent.into_link());
        } else {
            lent.give_back();
        }
        fitness
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
    }

    /// What is out is not to be used again.
    pub(super) fn abandon(&self) {
        self.lock().phase = Phase::Ended;
    }

    pub(super) async fn close(&self) {
        self.abandon();
        let idle = std::mem::take(&mut self.lock().idle);
        join_all(idle.into_iter().map(|idle| idle.link.close())).await;
        self.see_off().await;
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

    /// Waits for those that were let go.
    async fn see_off(&self) {
        let leaving = std::mem::take(&mut self.lock().leaving);
        join_all(leaving.into_iter().map(Link::close)).await;
    }

    fn forget_idle(&self) {
        let idle = std::mem::take(&mut self.lock().idle);
        for idle in idle {
            self.let_go(idle.link);
        }
    }

    fn pop_idle(&self) -> Option<Idle<DB>> {
        self.lock().idle.pop()
    }

    fn phase(&self) -> Phase {
        self.lock().phase
    }

    fn lock(&self) -> MutexGuard<'_, State<DB>> {
        lock(&self.state)
    }
}

impl<DB: Driver> Lent<DB> {
    /// Back for the next user: every statement has been answered.
    pub(super) fn give_back(self) {
        self.give_back_as(false, false);
    }

    /// Back for the next user of the same invocation, after a statement that has been answered.
    pub(super) fn answered(self) {
        self.give_back_as(false, true);
    }

    /// Back from a user who may have left something on its way.
    pub(super) fn unsure(mut self) {
        let quiet = self.link.as_mut().is_some_and(Link::is_quiet);
        self.give_back_as(!quiet, true);
    }

    fn give_back_as(mut self, unsettled: bool, used: bool) {
        let Some(link) = self.link.take() else { return };
        let idle = Idle {
            link,
            since: Stamp::now(),
            unsettled,
            used,
        };
        let mut state = self.set.lock();
        state.out.retain(|out| out.number != self.number);
        if state.phase == Phase::Ended {
            if unsettled {
                state.strays.push(idle.link.session().clone());
            }
            drop(state);
            self.set.let_go(idle.link);
        } else {
            state.idle.push(idle);
        }
    }

    /// How the session is found again on the server.
    #[cfg(feature = "postgres")]
    pub(super) fn session(&self) -> &DB::Session {
        match &self.link {
            Some(link) => link.session(),
            None => unreachable!("emptied with the loan itself"),
        }
    }

    /// What is known about the session.
    #[cfg(feature = "postgres")]
    pub(super) fn memory(&mut self) -> &mut DB::Memory {
        match &mut self.link {
            Some(link) => link.memory(),
            None => unreachable!("emptied with the loan itself"),
        }
    }

    /// Of no more use, and whatever it may be doing is not to be stopped on the server.
    #[cfg(feature = "postgres")]
    pub(super) fn leave(self) {
        let set = Arc::clone(&self.set);
        set.let_go(self.into_link());
    }

    /// The connection, which goes its own way.
    fn into_link(mut self) -> Link<DB> {
        match self.link.take() {
            Some(link) => link,
            None => unreachable!("emptied with the loan itself"),
        }
    }
}

impl<DB: Driver> Drop for Lent<DB> {
    fn drop(&mut self) {
        let link = self.link.take();
        let mut state = self.set.lock();
        state.out.retain(|out| out.number != self.number);
        drop(state);
        let Some(mut link) = link else { return };
        if !link.is_quiet() {
            self.set.stray(&link);
        }
        self.set.let_go(link);
    }
}

impl<DB: Driver> Deref for Lent<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        match &self.link {
            Some(link) => link,
            None => unreachable!("emptied with the loan itself"),
        }
    }
}

impl<DB: Driver> DerefMut for Lent<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        match &mut self.link {
            Some(link) => link,
            None => unreachable!("emptied with the loan itself"),
        }
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

impl<DB: Driver> fmt::Debug for Lent<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent")
            .field("connection", &DB::CONNECTION)
            .finish_non_exhaustive()
    }
}
