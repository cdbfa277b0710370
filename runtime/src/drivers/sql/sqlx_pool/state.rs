//! The state that a pool's hooks and the cleanup share.

mod orphans;

use super::owners::{Found, Owners, Place};
use crate::{
    config::{
        DRAIN_TIMEOUT, HEDGE_AFTER, HEDGE_ROUND_TRIPS, POOL_DRAIN_TIMEOUT, REPLY_ROUND_TRIPS,
        Settings,
    },
    drivers::sql::{
        Driver,
        connect::{Connector, login::LoginAttempt, nodelay},
        connection::{
            self, Reset, Validity, answers, becomes_quiet,
            hedge::{HedgeOutcome, hedge},
            identified, is_quiet, recognized,
        },
        error,
        tag::Tag,
        users::{Phase, User, Waiting},
    },
    error::Error,
    resource::AcquireContext,
    resource::running,
    util::lock::lock,
};
use sqlx::pool::{Pool, PoolConnectionMetadata};
use std::{
    io,
    mem::take,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::yield_now,
    time::{Instant, timeout},
};

tokio::task_local! {
    /// The user that acquires a connection, unless it is a handler in its own task.
    static ACTING: Acting;
}

/// See [`ACTING`].
#[derive(Clone)]
enum Acting {
    As(User),
    /// The cleanup, which acquires an idle connection without changing it, and gets its number.
    Looking(Arc<Mutex<Option<u64>>>),
}

/// The maximum number of sessions that a pool remembers: many times more than it has at once, and little memory.
const SESSIONS: usize = 1_024;

/// The shared state of one pool.
pub(super) struct State<DB: Driver> {
    pub(super) settings: Settings,
    pub(super) address: Connector<DB>,
    /// The tag that the pool's connections share until it is changed.
    tag: Mutex<Tag>,
    /// The pool's login, without the tag.
    untagged: Mutex<DB::Options>,
    /// The pool's connect options, unless connecting is disabled.
    options: Mutex<DB::Options>,
    acquire: AcquireContext,
    owners: Mutex<Owners<DB>>,
    /// Notified when a connection is released or gone.
    pub(super) returned: Notify,
    /// The monitoring of some connections was configured after they were opened.
    by_statement: AtomicBool,
    /// The pool is parked for the next invocation: it must not be used.
    resting: AtomicBool,
    /// The pool cannot open connections.
    connect_disabled: AtomicBool,
    /// The pool itself, to prevent connecting for a leaked clone. Its hooks hold this state: [`break_cycle`](Self::part)
    /// breaks the cycle.
    pool: Mutex<Option<Pool<DB>>>,
    /// Connections that were opened and not yet dropped. What `Pool::size` counts beyond that is being opened.
    live: AtomicU32,
    /// The pool has lost a connection that was not discarded here.
    lost: AtomicBool,
    /// What the handler waited for when it was last polled.
    waiting_for: Mutex<Option<Waiting>>,
    abandoned: AtomicBool,
    resumed: Mutex<Resumed>,
    /// No connection of the pool is reused by another invocation.
    outdated: AtomicBool,
    /// The number of connections that the pool has opened.
    opened: AtomicU32,
    attempts: Mutex<Attempts<DB::Options>>,
    /// A probe of the server is running.
    pub(super) asking: AtomicBool,
    /// Why connections could not be opened, if the cause may pass.
    reason: Mutex<Option<Error>>,
    /// Why the pool can no longer connect.
    failure: Mutex<Option<Error>>,
}

/// The pool's attempts to connect, which sqlx repeats silently.
struct Attempts<O> {
    /// Held by the attempts that were running at the last check.
    options: Weak<O>,
    /// The number of attempts at that time.
    opening: u32,
    /// The number of opened connections at that time.
    opened: u32,
    refusals: u32,
}

/// The pool's last use after a pause.
struct Resumed {
    at: Instant,
    idle: Duration,
}

impl<DB: Driver> State<DB> {
    pub(super) fn new(
        address: Connector<DB>,
        attempt: &LoginAttempt<DB>,
        acquire: AcquireContext,
    ) -> Self {
        let tag = Tag::unique();
        let options = address.sent(&DB::tagged(&attempt.options, &tag));
        Self {
            settings: *acquire.settings(),
            options: Mutex::new(options),
            tag: Mutex::new(tag),
            untagged: Mutex::new(attempt.options.clone()),
            address,
            acquire,
            owners: Mutex::new(Owners::new()),
            returned: Notify::new(),
            by_statement: AtomicBool::new(false),
            resting: AtomicBool::new(false),
            connect_disabled: AtomicBool::new(false),
            pool: Mutex::new(None),
            live: AtomicU32::new(0),
            lost: AtomicBool::new(false),
            waiting_for: Mutex::new(None),
            abandoned: AtomicBool::new(false),
            resumed: Mutex::new(Resumed {
                at: Instant::now(),
                idle: Duration::ZERO,
            }),
            outdated: AtomicBool::new(false),
            opened: AtomicU32::new(0),
            attempts: Mutex::new(Attempts {
                options: Weak::new(),
                opening: 0,
                opened: 0,
                refusals: 0,
            }),
            asking: AtomicBool::new(false),
            reason: Mutex::new(None),
            failure: Mutex::new(None),
        }
    }

    pub(super) fn owners(&self) -> MutexGuard<'_, Owners<DB>> {
        lock(&self.owners)
    }

    /// Identifies this pool for its handles.
    pub(super) fn key(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Acquires as `user`, in any task.
    pub(super) async fn acting_as<F: Future>(user: User, acquiring: F) -> F::Output {
        ACTING.scope(Acting::As(user), acquiring).await
    }

    /// Acquires an idle connection without changing it, with its number.
    pub(super) async fn looking<F: Future>(acquiring: F) -> (F::Output, Option<u64>) {
        let number = Arc::<Mutex<Option<u64>>>::default();
        let looking = Acting::Looking(Arc::clone(&number));
        let acquired = ACTING.scope(looking, acquiring).await;
        let number = *lock(&number);
        (acquired, number)
    }

    /// The user of the task that is being polled. A task of its own is attributed to the only running invocation; if
    /// several run, it has no user.
    fn user(&self) -> Option<User> {
        if let Ok(Acting::As(user)) = ACTING.try_with(Clone::clone) {
            return Some(user);
        }
        let user = running::user_of(self.key()).map(User);
        user.or_else(|| self.owners().users.only_running())
    }

    /// Registers one more invocation.
    pub(super) fn add_user(&self, size: u32) -> User {
        let mut owners = self.owners();
        let was_shared = owners.users.are_several();
        let is_named =
            owners.any(|one| one.place == Place::Dropped && !DB::is_identified(&one.session));
        let user = owners.add_user();
        if is_named || owners.users.are_several() && !was_shared {
            // Distinguishes connections that other invocations have opened from those that are opened now.
            self.change_name(owners, size);
        }
        user
    }

    /// Gives a new name to all connections that are opened from now on.
    fn change_name(&self, mut owners: MutexGuard<'_, Owners<DB>>, size: u32) {
        owners.misnamed += self.opening(size);
        owners.name += 1;
        drop(owners);
        *lock(&self.tag) = Tag::unique();
        self.rename();
    }

    /// Called after the pool has opened a connection.
    pub(super) async fn opened(&self, connection: &mut DB::Connection) -> Result<(), sqlx::Error> {
        if matches!(ACTING.try_with(Clone::clone), Ok(Acting::Looking(_))) {
            // The cleanup needs an idle connection.
            return Err(gone());
        }
        let user = self.user();
        self.refuse_leaked(user)?;
        let options = self.options();
        if let Some(port) = DB::port(&options) {
            // If the server replied too fast, no poll has set the option yet.
            nodelay::set_on_all(port);
        }
        let session = match self.address.init_session(connection, &options).await {
            Err(sqlx::Error::Database(error)) if DB::kind(&*error).is_none() => {
                // sqlx would log it and retry until the cause is lost.
                let refused = sqlx::Error::Database(error);
                let why = error::connecting::<DB>(&self.acquire, &self.target(), refused);
                self.fail_connecting(why.clone());
                let _ = timeout(DRAIN_TIMEOUT, DB::end_session(connection)).await;
                return Err(error::wrapped(why));
            }
            session => session?,
        };
        let is_known = DB::is_identified(&session) || !self.owns_sessions();
        let (number, must_identify) = {
            let mut owners = self.owners();
            let misnamed = owners.misnamed > 0;
            owners.misnamed = owners.misnamed.saturating_sub(1);
            // If two sessions are known only by the pool's name, neither can be cancelled without the other.
            let has_namesake =
                owners.any(|one| one.place != Place::Dropped && !DB::is_identified(&one.session));
            let must_identify =
                !is_known && (misnamed || has_namesake || owners.users.are_several());
            (owners.add(session, user, SESSIONS), must_identify)
        };
        let unless_opened = Dropped {
            state: self,
            number,
            live: false,
        };
        if must_identify {
            let mut session_state = DB::SessionState::default();
            // The timeout is that of the login, of which this is the last step: the pool drops both when its acquire
            // ends.
            if !identified::<DB>(connection, &mut session_state, self.settings.acquire).await {
                return Err(gone());
            }
            self.identify(number, &session_state);
        }
        self.opened.fetch_add(1, Ordering::AcqRel);
        if self.address.monitors_by_statement(&options) {
            self.by_statement.store(true, Ordering::Release);
            self.address.monitor(connection, &options).await;
        }
        while self.owners().is_born(number).is_err() {
            yield_now().await;
        }
        std::mem::forget(unless_opened);
        self.live.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Whether the sessions belong to this process only, and may be reset.
    fn owns_sessions(&self) -> bool {
        self.settings.proxy.is_none()
    }

    /// Records the session's identity from a reply.
    pub(super) fn identify(&self, number: u64, session_state: &DB::SessionState) {
        if let Some(owned) = self.owners().get_mut(number)
            && let Some(session) = DB::identified(&owned.session, session_state)
        {
            owned.session = session;
        }
    }

    pub(super) fn options(&self) -> DB::Options {
        lock(&self.options).clone()
    }

    /// Host, port and database.
    pub(super) fn target(&self) -> String {
        DB::target(&lock(&self.options))
    }

    /// Sets the login of connections that are opened from now on.
    pub(super) fn log_in_with(&self, attempt: &LoginAttempt<DB>) {
        *lock(&self.untagged) = attempt.options.clone();
        self.rename();
    }

    /// Gives the current tag to all connections that are opened from now on.
    fn rename(&self) {
        let options = DB::tagged(&lock(&self.untagged), &lock(&self.tag));
        *lock(&self.options) = self.address.sent(&options);
        if self.connect_disabled.load(Ordering::Acquire) || self.failure().is_some() {
            return;
        }
        if let Some(pool) = &*lock(&self.pool) {
            pool.set_connect_options(self.options());
        }
    }

    /// Configures the monitoring again, which a reset has cleared.
    pub(super) async fn monitor_again(&self, connection: &mut DB::Connection) {
        if self.by_statement.load(Ordering::Acquire) {
            self.address.monitor(connection, &self.options()).await;
        }
    }

    pub(super) async fn learn_monitoring(&self) {
        // Without any connection, there will be no use for it next time.
        if self.opened.load(Ordering::Acquire) == 0 {
            return;
        }
        let options = self.options();
        let acquire = self.acquire.restarted();
        let learning = Box::pin(self.address.learn_monitoring(&acquire, &options));
        // More time would not be worth it: without it, each new connection takes one more round trip.
        let _ = timeout(DRAIN_TIMEOUT, learning).await;
    }

    pub(super) fn have_all_left(&self) -> bool {
        self.owners().have_all_left()
    }

    pub(super) fn park(&self) {
        self.resting.store(true, Ordering::Release);
    }

    pub(super) fn serve(&self) {
        self.resting.store(false, Ordering::Release);
        if !self.connect_disabled.swap(false, Ordering::AcqRel) {
            return;
        }
        if let Some(pool) = &*lock(&self.pool) {
            pool.set_connect_options(self.options());
        }
    }

    pub(super) fn belongs_to(&self, pool: &Pool<DB>) {
        *lock(&self.pool) = Some(pool.clone());
    }

    pub(super) fn break_cycle(&self) {
        let pool = lock(&self.pool).take();
        drop(pool);
    }

    fn refuse_leaked(&self, user: Option<User>) -> Result<(), sqlx::Error> {
        let nobody_runs = {
            let owners = self.owners();
            let nobody_runs = !owners.users.others_run(None);
            let resting = self.resting.load(Ordering::Acquire);
            let may_use = match user {
                Some(user) => owners.users.phase(user) == Some(Phase::Running),
                None => !nobody_runs || !resting && owners.users.is_empty(),
            };
            if may_use {
                return Ok(());
            }
            nobody_runs
        };
        // If other invocations run, they must still be able to connect.
        if nobody_runs && let Some(pool) = &*lock(&self.pool) {
            pool.set_connect_options(DB::unreachable_options(&self.options()));
            self.connect_disabled.store(true, Ordering::Release);
        }
        let error = error::leaked(&self.acquire);
        tracing::error!(handler = self.acquire.handler(), %error);
        Err(error::wrapped(error))
    }

    pub(super) fn connection_gone(&self) {
        let less = |live: u32| Some(live.saturating_sub(1));
        // Cannot fail: the closure always returns `Some`.
        let _ = self
            .live
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }

    /// Records that all connections of the pool are open.
    pub(super) fn all_live(&self, size: u32) {
        self.live.store(size, Ordering::Release);
    }

    /// How many of the pool's `size` connections are being opened now.
    pub(super) fn opening(&self, size: u32) -> u32 {
        let live = self.live.fetch_min(size, Ordering::AcqRel);
        if live > size {
            self.lost.store(true, Ordering::Release);
        }
        size.saturating_sub(live)
    }

    pub(super) fn has_lost_one(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Records that every connection that may have been lost with another one is discarded.
    pub(super) fn reset_lost(&self) {
        self.lost.store(false, Ordering::Release);
    }

    pub(super) fn stop(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    /// Records that the pool is used again, after `idle` without any use.
    pub(super) fn paused(&self, idle: Duration) {
        // A short pause says nothing about a connection that has survived a longer one before.
        if idle > self.settings.trust {
            *lock(&self.resumed) = Resumed {
                at: Instant::now(),
                idle,
            };
        }
    }

    pub(super) fn wait_for(&self, what: Option<Waiting>) {
        *lock(&self.waiting_for) = what;
    }

    pub(super) fn waiting_for(&self) -> Option<Waiting> {
        *lock(&self.waiting_for)
    }

    pub(super) fn failure(&self) -> Option<Error> {
        lock(&self.failure).clone()
    }

    /// Makes every attempt to connect fail at once with this error: each attempt reads the options anew. Open
    /// connections remain in use.
    pub(super) fn fail_connecting(&self, why: Error) {
        *lock(&self.failure) = Some(why);
        if let Some(pool) = &*lock(&self.pool) {
            pool.set_connect_options(DB::unreachable_options(&self.options()));
        }
    }

    /// How many refusals by the server have been seen, with `opening` connections being opened now.
    ///
    /// sqlx reads the pool's options anew for each attempt, and holds them while it lasts. Options without a holder
    /// belonged to an attempt that has failed, unless it has succeeded or was dropped.
    pub(super) fn refusals(&self, opening: u32) -> u32 {
        let pool = lock(&self.pool);
        let mut seen = lock(&self.attempts);
        let Some(pool) = pool.as_ref().filter(|_| seen.options.strong_count() == 0) else {
            return seen.refusals;
        };
        let opened = self.opened.load(Ordering::Acquire);
        if seen.opened == opened && (1..=opening).contains(&seen.opening) {
            seen.refusals += 1;
        }
        let options = pool.connect_options();
        pool.set_connect_options(DB::Options::clone(&options));
        seen.options = Arc::downgrade(&options);
        seen.opening = opening;
        seen.opened = opened;
        seen.refusals
    }

    /// Retires all connections: something that they rely on is gone from the server, or the server no longer accepts
    /// writes.
    pub(super) fn outdated(&self) {
        let was_known = {
            let mut owners = self.owners();
            let was_known = !owners.any(|one| !one.doomed);
            owners.doom(|_| true);
            was_known
        };
        let is_shared = self.owners().users.are_several();
        if !is_shared {
            self.outdated.store(true, Ordering::Release);
        }
        if !was_known {
            let (handler, target) = (self.acquire.handler(), self.target());
            tracing::warn!(handler, target, "{}", error::OUTDATED);
        }
    }

    pub(super) fn is_outdated(&self) -> bool {
        self.outdated.load(Ordering::Acquire)
    }

    /// The timeout for one reply: `bound` for a nearby server, more for a distant one.
    pub(super) fn reply_within(&self, bound: Duration) -> Duration {
        self.address.round_trip().at_least(bound, REPLY_ROUND_TRIPS)
    }

    pub(super) fn reason(&self) -> Option<Error> {
        lock(&self.reason).clone()
    }

    pub(super) fn may_pass(&self, reason: Option<Error>) {
        *lock(&self.reason) = reason;
    }

    /// Called before an idle connection is handed out. After an error the pool opens another one instead, within the
    /// same acquire. `born` is the time of its birth, according to the pool.
    pub(super) async fn check(
        &self,
        connection: &mut DB::Connection,
        meta: PoolConnectionMetadata,
        born: std::time::Instant,
    ) -> Result<bool, sqlx::Error> {
        let found = self.owners().find(born, &[Place::Idle]);
        if let Ok(Acting::Looking(number)) = ACTING.try_with(Clone::clone) {
            if let Some(Found { number: found, .. }) = found {
                if let Some(owned) = self.owners().get_mut(found) {
                    owned.place = Place::Held;
                }
                *lock(&number) = Some(found);
            }
            return Ok(true);
        }
        let user = self.user();
        let number = found.map_or(0, |found| found.number);
        let mut unless_used = Dropped {
            state: self,
            number,
            live: false,
        };
        let check = match self.refuse_leaked(user) {
            Ok(()) => {
                self.examine(connection, meta, number, user, &mut unless_used)
                    .await
            }
            Err(error) => Err(error),
        };
        if matches!(check, Ok(true)) {
            std::mem::forget(unless_used);
            if let Some(owned) = self.owners().get_mut(number) {
                owned.user = user;
                owned.place = Place::Out;
                owned.clean = false;
            }
        } else {
            unless_used.live = true;
        }
        check
    }

    async fn examine(
        &self,
        connection: &mut DB::Connection,
        meta: PoolConnectionMetadata,
        number: u64,
        user: Option<User>,
        unless_used: &mut Dropped<'_, DB>,
    ) -> Result<bool, sqlx::Error> {
        let idle = self.idle_for(meta.idle_for);
        let too_old = self
            .settings
            .lifetime
            .is_some_and(|longest| meta.age > longest);
        if too_old {
            return Ok(false);
        }
        if idle > self.settings.idle {
            return Err(gone());
        }
        match self.history(number, user) {
            History::Own => {}
            History::Doomed => return Err(gone()),
            History::Foreign if !self.owns_sessions() => return Ok(false),
            History::Foreign => {
                // If this future is dropped, the connection is lost, but for a reason that does not concern the others.
                unless_used.live = true;
                let reset = self.reset(connection, number).await;
                unless_used.live = false;
                return match reset {
                    Reset::Clean => Ok(true),
                    Reset::Unfit => Ok(false),
                    Reset::Lost => Err(gone()),
                };
            }
        }
        if idle <= self.settings.trust {
            return Ok(true);
        }
        let round_trip = self.address.round_trip();
        let ping = round_trip.of(answers::<DB>(connection, self.settings.acquire));
        let hedge_after = round_trip.at_least(HEDGE_AFTER, HEDGE_ROUND_TRIPS);
        let patience = self.reply_within(self.settings.ping);
        let acquire = self.acquire.restarted();
        let dialling = self.address.connect(&acquire);
        match hedge(ping, hedge_after, patience, dialling).await {
            HedgeOutcome::Kept => Ok(true),
            HedgeOutcome::Fresh(opened) => {
                if let Some(owned) = self.owners().get_mut(number) {
                    owned.session = opened.session().clone();
                    owned.session_state = DB::SessionState::default();
                }
                // It replaces the dead connection; the pool need not know.
                match opened.into_raw() {
                    Some(fresh) => *connection = fresh,
                    None => return Err(gone()),
                }
                Ok(true)
            }
            HedgeOutcome::Neither(denied) => Err(error::wrapped(denied.why)),
        }
    }

    /// What `user` has to know about an idle connection.
    fn history(&self, number: u64, user: Option<User>) -> History {
        let owners = self.owners();
        let Some(owned) = owners.get(number) else {
            return History::Doomed;
        };
        let is_known = DB::is_identified(&owned.session);
        if owned.doomed || owners.by_name > 0 && !is_known {
            return History::Doomed;
        }
        let is_own = user.is_some() && owned.user == user;
        // If several invocations use the pool, a name is not enough to identify a session's owner.
        let can_be_told = is_known || !owners.users.are_several() || !self.owns_sessions();
        if (owned.clean || is_own) && can_be_told {
            History::Own
        } else {
            History::Foreign
        }
    }

    /// Resets a session. The round trip is measured.
    pub(super) async fn reset(&self, connection: &mut DB::Connection, number: u64) -> Reset {
        let longest = self.reply_within(self.settings.ping);
        let known = self
            .owners()
            .get_mut(number)
            .map(|one| take(&mut one.session_state));
        let mut session_state = known.unwrap_or_default();
        let mut reset = Reset::Lost;
        let resetting = async {
            reset = connection::reset::<DB>(connection, &mut session_state, longest).await;
            reset != Reset::Lost
        };
        self.address.round_trip().of(resetting).await;
        self.identify(number, &session_state);
        if reset == Reset::Clean && self.address.is_demoted(&session_state) {
            self.outdated();
            return Reset::Unfit;
        }
        if reset == Reset::Clean {
            let again = self.monitor_again(connection);
            if timeout(longest, again).await.is_err() {
                return Reset::Lost;
            }
            // Up to two round trips.
            match connection::revalidate::<DB>(connection, &mut session_state, longest * 2).await {
                Validity::Valid => {}
                Validity::Outdated => {
                    self.outdated();
                    return Reset::Unfit;
                }
                Validity::Lost => return Reset::Lost,
            }
            if let Some(owned) = self.owners().get_mut(number) {
                owned.clean = true;
                owned.session_state = session_state;
            }
        }
        reset
    }

    /// How long a connection has been idle: by the pool's clock, or by the larger step of both clocks if it has not
    /// been used since the last pause.
    fn idle_for(&self, by_the_pool: Duration) -> Duration {
        let resumed = lock(&self.resumed);
        let since_thaw = resumed.at.elapsed();
        if by_the_pool >= since_thaw {
            by_the_pool.max(resumed.idle + since_thaw)
        } else {
            by_the_pool
        }
    }

    /// Called before the pool takes back a connection: the pool would ping it, and wait for a dropped query. With
    /// `false` the pool closes it gracefully, with an error it drops it.
    ///
    /// The pool's own ping is not enough. It takes the first end of a reply for its own. After a dropped `COPY` that is
    /// the end of the `COPY`, and every later query gets the reply to the one before. Any user of the connection may
    /// have dropped one.
    pub(super) async fn after_release(
        &self,
        connection: &mut DB::Connection,
        born: std::time::Instant,
    ) -> Result<bool, sqlx::Error> {
        let found = self.owners().find(born, &[Place::Out, Place::Held]);
        let number = found.map_or(0, |found| found.number);
        let unless_returned = Dropped {
            state: self,
            number,
            live: false,
        };
        let check = self.take_back(connection, number).await;
        if matches!(check, Ok(Returned::Idle)) {
            std::mem::forget(unless_returned);
            if let Some(owned) = self.owners().get_mut(number) {
                owned.place = Place::Idle;
                owned.untouched = false;
            }
            self.returned.notify_waiters();
        } else {
            self.connection_gone();
            if matches!(check, Ok(Returned::StillRunning)) {
                std::mem::forget(unless_returned);
                self.returned.notify_waiters();
            }
        }
        match check? {
            Returned::Idle => Ok(true),
            Returned::Unwanted => Ok(false),
            Returned::StillRunning => Err(gone()),
        }
    }

    async fn take_back(
        &self,
        connection: &mut DB::Connection,
        number: u64,
    ) -> Result<Returned, sqlx::Error> {
        let (user, untouched, doomed) = match self.owners().get(number) {
            Some(owned) => (owned.user, owned.untouched, owned.doomed),
            None => (None, false, true),
        };
        if untouched && !doomed {
            return Ok(Returned::Idle);
        }
        let is_stopped = || {
            let phase = user.and_then(|user| self.owners().users.phase(user));
            self.abandoned.load(Ordering::Acquire) || phase == Some(Phase::Stopped)
        };
        // A connection that is not reused need not be drained.
        let stopped = is_stopped();
        let quiet = is_quiet::<DB>(connection)
            || !stopped && becomes_quiet::<DB>(connection, self.reply_within(DRAIN_TIMEOUT)).await;
        if !quiet {
            return self.orphaned(number, user).await;
        }
        let closing = || {
            let closing = user.is_some_and(|user| self.owners().users.is_closing(user));
            closing && !self.is_wanted(user)
        };
        let owns_sessions = self.owns_sessions();
        // Another invocation, which may acquire it at any time, must not see its state.
        let (shared, known) = {
            let owners = self.owners();
            let known = owners.get(number).map(|one| one.session.clone());
            (owners.users.are_several(), known)
        };
        let longest = self.reply_within(self.settings.ping);
        let is_last = is_stopped() || closing();
        let usable = if is_last && !owns_sessions {
            true
        } else if is_last {
            // Nothing is on the wire, but a `COPY` may still run: closing would leave it to the server.
            recognized::<DB>(connection, self.reply_within(POOL_DRAIN_TIMEOUT)).await
        } else if shared && owns_sessions {
            match self.reset(connection, number).await {
                Reset::Clean => true,
                Reset::Unfit => return Ok(Returned::Unwanted),
                Reset::Lost => false,
            }
        } else if shared {
            return Ok(Returned::Unwanted);
        } else if owns_sessions && known.is_some_and(|known| !DB::is_identified(&known)) {
            let mut session_state = DB::SessionState::default();
            let recognized = identified::<DB>(connection, &mut session_state, longest).await;
            self.identify(number, &session_state);
            recognized
        } else {
            recognized::<DB>(connection, longest).await
        };
        if !usable {
            return self.orphaned(number, user).await;
        }
        if doomed || is_stopped() {
            return Err(gone());
        }
        Ok(if is_last || closing() {
            Returned::Unwanted
        } else {
            Returned::Idle
        })
    }

    /// Whether an invocation other than `user` seems to wait for a connection.
    pub(super) fn is_wanted(&self, user: Option<User>) -> bool {
        let in_use = match &*lock(&self.pool) {
            Some(pool) => pool.size() as usize - pool.num_idle().min(pool.size() as usize),
            None => 0,
        };
        in_use >= self.settings.max as usize && self.owners().users.others_run(user)
    }
}

/// The previous use of an idle connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum History {
    /// It has no state that the acquiring invocation must not see.
    Own,
    /// It has another invocation's state.
    Foreign,
    /// It must not be reused.
    Doomed,
}

/// What happens to a released connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Returned {
    Idle,
    /// It is closed gracefully.
    Unwanted,
    /// It is dropped, and its statement still has to be cancelled.
    StillRunning,
}

/// Removes a connection on drop, unless this is forgotten.
struct Dropped<'a, DB: Driver> {
    state: &'a State<DB>,
    number: u64,
    /// Whether it was counted as open.
    live: bool,
}

impl<DB: Driver> Drop for Dropped<'_, DB> {
    fn drop(&mut self) {
        self.state.owners().remove(self.number);
        if self.live {
            self.state.connection_gone();
        }
        self.state.returned.notify_waiters();
    }
}

/// When a connection of this `age` was created.
pub(super) fn born(age: Duration) -> std::time::Instant {
    let now = std::time::Instant::now();
    now.checked_sub(age).unwrap_or(now)
}

fn gone() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(
        io::ErrorKind::ConnectionAborted,
        "stopped by the lifecycle",
    ))
}
