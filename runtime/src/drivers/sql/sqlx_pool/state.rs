//! What a pool's hooks and the lifecycle tell each other.

mod orphans;

use super::owners::{Found, Owners, Place};
use crate::{
    config::{HEDGE_AFTER, HEDGE_ROUND_TRIPS, POOL_QUIET, QUIET, REPLY_ROUND_TRIPS, Settings},
    drivers::sql::{
        Driver,
        connect::{Address, login::Attempt, nodelay},
        connection::{
            self, Reset, answers, becomes_quiet,
            hedge::{HedgeOutcome, hedge},
            identified, is_quiet, recognized,
        },
        error,
        tag::Tag,
        users::{Phase, User, Waiting},
    },
    error::Error,
    resource::Acquire,
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
    /// Who acquires a connection, where that is not a handler in its own task.
    static ACTING: Acting;
}

/// See [`ACTING`].
#[derive(Clone)]
enum Acting {
    As(User),
    /// The cleanup, which wants an idle connection as it is, and to be told its number.
    Looking(Arc<Mutex<Option<u64>>>),
}

/// The most sessions that a pool remembers: many times what it has at once, and little memory.
const SESSIONS: usize = 1_024;

/// See the module.
pub(super) struct State<DB: Driver> {
    pub(super) settings: Settings,
    pub(super) address: Address<DB>,
    /// The one that all connections of the pool share that one invocation has opened for itself.
    tag: Mutex<Tag>,
    /// What the pool logs in with, without the tag.
    untagged: Mutex<DB::Options>,
    /// What the pool connects with, unless it is barred.
    options: Mutex<DB::Options>,
    acquire: Acquire,
    owners: Mutex<Owners<DB>>,
    /// A connection has come back, or is gone.
    pub(super) returned: Notify,
    /// Some connections were told how they are to be monitored when they were open.
    by_statement: AtomicBool,
    /// Kept for the next invocation: nobody may use it.
    resting: AtomicBool,
    /// The pool can open no connection.
    barred: AtomicBool,
    /// The pool itself, to keep it from connecting for somebody who has escaped. Its hooks hold this
    /// state: [`part`](Self::part) ends the circle.
    pool: Mutex<Option<Pool<DB>>>,
    /// Connections that were opened, less those that were given up: what `Pool::size` counts beyond
    /// that is being opened right now.
    live: AtomicU32,
    /// The pool has lost a connection without our doing.
    lost: AtomicBool,
    /// What the handler was waiting for when it was last polled.
    waiting_for: Mutex<Option<Waiting>>,
    abandoned: AtomicBool,
    thaw: Mutex<Thaw>,
    /// No connection of the pool's is to serve another invocation.
    outdated: AtomicBool,
    /// How many connections the pool has opened.
    opened: AtomicU32,
    attempts: Mutex<Attempts<DB::Options>>,
    /// Somebody is asking the server why a connection takes so long.
    pub(super) asking: AtomicBool,
    /// Why connections could not be opened, when that may pass.
    reason: Mutex<Option<Error>>,
    /// Why the pool has been given up.
    failure: Mutex<Option<Error>>,
}

/// What is known of the pool's tries to connect, which sqlx repeats without_logging.
struct Attempts<O> {
    /// Held by those who were trying when it was last looked.
    options: Weak<O>,
    /// How many were on their way then.
    opening: u32,
    /// How many connections had been opened by then.
    opened: u32,
    turned_away: u32,
}

/// The last time that the pool was lent after a pause.
struct Thaw {
    at: Instant,
    idle: Duration,
}

impl<DB: Driver> State<DB> {
    pub(super) fn new(address: Address<DB>, attempt: &Attempt<DB>, acquire: Acquire) -> Self {
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
            barred: AtomicBool::new(false),
            pool: Mutex::new(None),
            live: AtomicU32::new(0),
            lost: AtomicBool::new(false),
            waiting_for: Mutex::new(None),
            abandoned: AtomicBool::new(false),
            thaw: Mutex::new(Thaw {
                at: Instant::now(),
                idle: Duration::ZERO,
            }),
            outdated: AtomicBool::new(false),
            opened: AtomicU32::new(0),
            attempts: Mutex::new(Attempts {
                options: Weak::new(),
                opening: 0,
                opened: 0,
                turned_away: 0,
            }),
            asking: AtomicBool::new(false),
            reason: Mutex::new(None),
            failure: Mutex::new(None),
        }
    }

    pub(super) fn owners(&self) -> MutexGuard<'_, Owners<DB>> {
        lock(&self.owners)
    }

    /// By which a handle on this pool is told from others.
    pub(super) fn key(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Acquires as `user`, in whatever task.
    pub(super) async fn acting_as<F: Future>(user: User, acquiring: F) -> F::Output {
        ACTING.scope(Acting::As(user), acquiring).await
    }

    /// Acquires an idle connection as it is, with its number.
    pub(super) async fn looking<F: Future>(acquiring: F) -> (F::Output, Option<u64>) {
        let number = Arc::<Mutex<Option<u64>>>::default();
        let looking = Acting::Looking(Arc::clone(&number));
        let acquired = ACTING.scope(looking, acquiring).await;
        let number = *lock(&number);
        (acquired, number)
    }

    /// Whose the task is that is being polled. A task of its own is taken for the only invocation's that runs; where
    /// several do, it is nobody's.
    fn user(&self) -> Option<User> {
        if let Ok(Acting::As(user)) = ACTING.try_with(Clone::clone) {
            return Some(user);
        }
        let user = running::user_of(self.key()).map(User);
        user.or_else(|| self.owners().users.only_running())
    }

    /// One more invocation uses the pool.
    pub(super) fn add_user(&self, size: u32) -> User {
        let mut owners = self.owners();
        let was_shared = owners.users.are_several();
        let is_named =
            owners.any(|one| one.place == Place::Dropped && !DB::is_identified(&one.session));
        let user = owners.add_user();
        if is_named || owners.users.are_several() && !was_shared {
            // What others have opened is told from what is opened now.
            self.change_name(owners, size);
        }
        user
    }

    /// What is opened from now on has a name of its own.
    fn change_name(&self, mut owners: MutexGuard<'_, Owners<DB>>, size: u32) {
        owners.misnamed += self.opening(size);
        owners.name += 1;
        drop(owners);
        *lock(&self.tag) = Tag::unique();
        self.rename();
    }

    /// After the pool has opened a connection.
    pub(super) async fn opened(&self, connection: &mut DB::Connection) -> Result<(), sqlx::Error> {
        if matches!(ACTING.try_with(Clone::clone), Ok(Acting::Looking(_))) {
            // It wanted an idle one.
            return Err(gone());
        }
        let user = self.user();
        self.refuse_escaped(user)?;
        let options = self.options();
        if let Some(port) = DB::port(&options) {
            // Where the server answered faster than anybody could look, nobody has yet.
            nodelay::set_on_all(port);
        }
        let session = match self.address.init_session(connection, &options).await {
            Err(sqlx::Error::Database(error)) if DB::kind(&*error).is_none() => {
                // sqlx would log it and try again, until it has forgotten why.
                let refused = sqlx::Error::Database(error);
                let why = error::connecting::<DB>(&self.acquire, &self.target(), refused);
                self.give_up(why.clone());
                let _ = timeout(QUIET, DB::hang_up(connection)).await;
                return Err(error::wrapped(why));
            }
            session => session?,
        };
        let is_known = DB::is_identified(&session) || !self.owns_sessions();
        let (number, must_identify) = {
            let mut owners = self.owners();
            let misnamed = owners.misnamed > 0;
            owners.misnamed = owners.misnamed.saturating_sub(1);
            // Of two that only go by the name of the pool, neither can be cancelled without the other.
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
            let mut memory = DB::Memory::default();
            // As patient as the login that it ends: the pool drops both when its acquire is over.
            if !identified::<DB>(connection, &mut memory, self.settings.acquire).await {
                return Err(gone());
            }
            self.identify(number, &memory);
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

    /// Whether the sessions are this process' alone, and may be told to forget something.
    fn owns_sessions(&self) -> bool {
        self.settings.proxy.is_none()
    }

    /// Notes what a reply has told of a session.
    pub(super) fn identify(&self, number: u64, memory: &DB::Memory) {
        if let Some(owned) = self.owners().get_mut(number)
            && let Some(session) = DB::identified(&owned.session, memory)
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

    /// From now on, the pool logs in as `attempt` says.
    pub(super) fn log_in_with(&self, attempt: &Attempt<DB>) {
        *lock(&self.untagged) = attempt.options.clone();
        self.rename();
    }

    /// What is opened from now on has the current tag.
    fn rename(&self) {
        let options = DB::tagged(&lock(&self.untagged), &lock(&self.tag));
        *lock(&self.options) = self.address.sent(&options);
        if self.barred.load(Ordering::Acquire) || self.failure().is_some() {
            return;
        }
        if let Some(pool) = &*lock(&self.pool) {
            pool.set_connect_options(self.options());
        }
    }

    /// Says once more what a reset has undone.
    pub(super) async fn monitor_again(&self, connection: &mut DB::Connection) {
        if self.by_statement.load(Ordering::Acquire) {
            self.address.monitor(connection, &self.options()).await;
        }
    }

    pub(super) async fn learn_monitoring(&self) {
        // Nobody has been connected: there is nothing to be told about the next time.
        if self.opened.load(Ordering::Acquire) == 0 {
            return;
        }
        let options = self.options();
        let acquire = self.acquire.restarted();
        let learning = Box::pin(self.address.learn_monitoring(&acquire, &options));
        // Not worth more: without it, each new connection takes a round trip longer.
        let _ = timeout(QUIET, learning).await;
    }

    pub(super) fn have_all_left(&self) -> bool {
        self.owners().have_all_left()
    }

    pub(super) fn rest(&self) {
        self.resting.store(true, Ordering::Release);
    }

    pub(super) fn serve(&self) {
        self.resting.store(false, Ordering::Release);
        if !self.barred.swap(false, Ordering::AcqRel) {
            return;
        }
        if let Some(pool) = &*lock(&self.pool) {
            pool.set_connect_options(self.options());
        }
    }

    pub(super) fn belongs_to(&self, pool: &Pool<DB>) {
        *lock(&self.pool) = Some(pool.clone());
    }

    pub(super) fn part(&self) {
        let pool = lock(&self.pool).take();
        drop(pool);
    }

    fn refuse_escaped(&self, user: Option<User>) -> Result<(), sqlx::Error> {
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
        // Where others run, they must not be kept from connecting.
        if nobody_runs && let Some(pool) = &*lock(&self.pool) {
            pool.set_connect_options(DB::unreachable_options(&self.options()));
            self.barred.store(true, Ordering::Release);
        }
        let error = error::escaped(&self.acquire);
        tracing::error!(handler = self.acquire.handler(), %error);
        Err(error::wrapped(error))
    }

    pub(super) fn one_less(&self) {
        let less = |live: u32| Some(live.saturating_sub(1));
        // Never refused: it always says `Some`.
        let _ = self
            .live
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }

    /// All connections of the pool are known to be open.
    pub(super) fn all_live(&self, size: u32) {
        self.live.store(size, Ordering::Release);
    }

    /// How many of the pool's `size` connections are being opened right now.
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

    /// What may have been lost with one connection has been discarded.
    pub(super) fn found_again(&self) {
        self.lost.store(false, Ordering::Release);
    }

    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    /// The pool is lent again, after `idle` without any use.
    pub(super) fn paused(&self, idle: Duration) {
        // A short pause says nothing about a connection that has slept through a longer one before.
        if idle > self.settings.trust {
            *lock(&self.thaw) = Thaw {
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

    /// The pool cannot open a connection, and who tries is told so at once: each try reads the options
    /// anew. What is open goes on serving.
    pub(super) fn give_up(&self, why: Error) {
        *lock(&self.failure) = Some(why);
        if let Some(pool) = &*lock(&self.pool) {
            pool.set_connect_options(DB::unreachable_options(&self.options()));
        }
    }

    /// How often the server has been seen to turn the pool away, with `opening` connections on their way
    /// now.
    ///
    /// sqlx reads the pool's options anew for each try, and holds them while it lasts: options that nobody
    /// holds any more belonged to a try that has failed, unless it has succeeded or was dropped.
    pub(super) fn turned_away(&self, opening: u32) -> u32 {
        let pool = lock(&self.pool);
        let mut seen = lock(&self.attempts);
        let Some(pool) = pool.as_ref().filter(|_| seen.options.strong_count() == 0) else {
            return seen.turned_away;
        };
        let opened = self.opened.load(Ordering::Acquire);
        if seen.opened == opened && (1..=opening).contains(&seen.opening) {
            seen.turned_away += 1;
        }
        let options = pool.connect_options();
        pool.set_connect_options(DB::Options::clone(&options));
        seen.options = Arc::downgrade(&options);
        seen.opening = opening;
        seen.opened = opened;
        seen.turned_away
    }

    /// What the connections rely on is gone from the server, or the server takes no writes any more: none of
    /// them serves another invocation.
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

    /// How long one reply may take where it is bound to take no longer than `bound` nearby.
    pub(super) fn reply_within(&self, bound: Duration) -> Duration {
        self.address.round_trip().at_least(bound, REPLY_ROUND_TRIPS)
    }

    pub(super) fn reason(&self) -> Option<Error> {
        lock(&self.reason).clone()
    }

    pub(super) fn may_pass(&self, reason: Option<Error>) {
        *lock(&self.reason) = reason;
    }

    /// Before an idle connection is handed out: an error makes the pool open another one instead, within the same
    /// acquire. `born` is when the pool says that it came to be.
    pub(super) async fn check(
        &self,
        connection: &mut DB::Connection,
        meta: PoolConnectionMetadata,
        born: std::time::Instant,
    ) -> Result<bool, sqlx::Error> {
        let found = self.owners().find(born, Place::Idle);
        if let Ok(Acting::Looking(number)) = ACTING.try_with(Clone::clone) {
            if let Some(Found { number: found, .. }) = found {
                if let Some(owned) = self.owners().get_mut(found) {
                    owned.place = Place::Out;
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
        let verdict = match self.refuse_escaped(user) {
            Ok(()) => {
                self.examine(connection, meta, number, user, &mut unless_used)
                    .await
            }
            Err(error) => Err(error),
        };
        if matches!(verdict, Ok(true)) {
            std::mem::forget(unless_used);
            if let Some(owned) = self.owners().get_mut(number) {
                owned.user = user;
                owned.place = Place::Out;
                owned.clean = false;
            }
        } else {
            unless_used.live = true;
        }
        verdict
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
                // Dropped half-way, it is lost, but not for a reason that concerns the others.
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
        let dialling = self.address.dial(&acquire);
        match hedge(ping, hedge_after, patience, dialling).await {
            HedgeOutcome::Kept => Ok(true),
            HedgeOutcome::Fresh(link) => {
                if let Some(owned) = self.owners().get_mut(number) {
                    owned.session = link.session().clone();
                    owned.memory = DB::Memory::default();
                }
                // In the place of the dead one, of which the pool need not know.
                match link.into_raw() {
                    Some(fresh) => *connection = fresh,
                    None => return Err(gone()),
                }
                Ok(true)
            }
            HedgeOutcome::Neither(denied) => Err(error::wrapped(denied.why)),
        }
    }

    /// What `user` has to know of an idle connection.
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
        // Whose it is has to be told by more than by a name, where several are there.
        let can_be_told = is_known || !owners.users.are_several() || !self.owns_sessions();
        if (owned.clean || is_own) && can_be_told {
            History::Own
        } else {
            History::Foreign
        }
    }

    /// Undoes what a session was used for. That takes a round trip, which is measured.
    pub(super) async fn reset(&self, connection: &mut DB::Connection, number: u64) -> Reset {
        let longest = self.reply_within(self.settings.ping);
        let known = self
            .owners()
            .get_mut(number)
            .map(|one| take(&mut one.memory));
        let mut memory = known.unwrap_or_default();
        let mut reset = Reset::Lost;
        let resetting = async {
            reset = connection::reset::<DB>(connection, &mut memory, longest).await;
            reset != Reset::Lost
        };
        self.address.round_trip().of(resetting).await;
        self.identify(number, &memory);
        if reset == Reset::Clean && self.address.is_demoted(&memory) {
            self.outdated();
            return Reset::Unfit;
        }
        if reset == Reset::Clean {
            let again = self.monitor_again(connection);
            if timeout(longest, again).await.is_err() {
                return Reset::Lost;
            }
            // Up to two round trips.
            if !connection::revalidate::<DB>(connection, &mut memory, longest * 2).await {
                return Reset::Lost;
            }
            if let Some(owned) = self.owners().get_mut(number) {
                owned.clean = true;
                owned.memory = memory;
            }
        }
        reset
    }

    /// How long a connection has idled: by the pool's clock, or by the larger step of both clocks if
    /// it has not been used since the last pause.
    fn idle_for(&self, by_the_pool: Duration) -> Duration {
        let thaw = lock(&self.thaw);
        let since_thaw = thaw.at.elapsed();
        if by_the_pool >= since_thaw {
            by_the_pool.max(thaw.idle + since_thaw)
        } else {
            by_the_pool
        }
    }

    /// Before the pool takes a connection back: it would ping it, and wait for a query that was dropped. `false` makes it
    /// say goodbye instead, an error makes it drop the connection.
    ///
    /// The pool's own ping does not do. It takes the first end of a reply that comes for its own; after a `COPY`
    /// that was dropped half-way that is the end of the `COPY`, and every later query gets the reply to the one
    /// before. Whoever had the connection may have done that.
    pub(super) async fn may_return(
        &self,
        connection: &mut DB::Connection,
        born: std::time::Instant,
    ) -> Result<bool, sqlx::Error> {
        let found = self.owners().find(born, Place::Out);
        let number = found.map_or(0, |found| found.number);
        let unless_returned = Dropped {
            state: self,
            number,
            live: false,
        };
        let verdict = self.take_back(connection, number).await;
        if matches!(verdict, Ok(Returned::Idle)) {
            std::mem::forget(unless_returned);
            if let Some(owned) = self.owners().get_mut(number) {
                owned.place = Place::Idle;
                owned.untouched = false;
            }
            self.returned.notify_waiters();
        } else {
            self.one_less();
            if matches!(verdict, Ok(Returned::StillRunning)) {
                std::mem::forget(unless_returned);
                self.returned.notify_waiters();
            }
        }
        match verdict? {
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
        // What is not going to be used again need not come to an end by itself.
        let stopped = is_stopped();
        let quiet = is_quiet::<DB>(connection)
            || !stopped && becomes_quiet::<DB>(connection, self.reply_within(QUIET)).await;
        if !quiet {
            return self.orphaned(number, user).await;
        }
        let closing = || {
            let closing = user.is_some_and(|user| self.owners().users.is_closing(user));
            closing && !self.is_wanted(user)
        };
        let owns_sessions = self.owns_sessions();
        // Nothing of it may be seen by another one, which may come at any time.
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
            // Nothing is on its way, and a `COPY` may run nevertheless: closing would leave it to the server.
            recognized::<DB>(connection, self.reply_within(POOL_QUIET)).await
        } else if shared && owns_sessions {
            match self.reset(connection, number).await {
                Reset::Clean => true,
                Reset::Unfit => return Ok(Returned::Unwanted),
                Reset::Lost => false,
            }
        } else if shared {
            return Ok(Returned::Unwanted);
        } else if owns_sessions && known.is_some_and(|known| !DB::is_identified(&known)) {
            let mut memory = DB::Memory::default();
            let recognized = identified::<DB>(connection, &mut memory, longest).await;
            self.identify(number, &memory);
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

    /// Whether somebody else than `user` seems to wait for a connection.
    pub(super) fn is_wanted(&self, user: Option<User>) -> bool {
        let in_use = match &*lock(&self.pool) {
            Some(pool) => pool.size() as usize - pool.num_idle().min(pool.size() as usize),
            None => 0,
        };
        in_use >= self.settings.max as usize && self.owners().users.others_run(user)
    }
}

/// What an idle connection was used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum History {
    /// Nothing that the one who acquires it must not see.
    Own,
    /// It holds what another invocation has left there.
    Foreign,
    /// It must not be used again.
    Doomed,
}

/// What becomes of a connection that comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Returned {
    Idle,
    /// It is closed in good order.
    Unwanted,
    /// It is dropped, and what it runs is still to be cancelled.
    StillRunning,
}

/// A connection that is gone, unless this is forgotten.
struct Dropped<'a, DB: Driver> {
    state: &'a State<DB>,
    number: u64,
    /// It was counted as one that lives.
    live: bool,
}

impl<DB: Driver> Drop for Dropped<'_, DB> {
    fn drop(&mut self) {
        self.state.owners().remove(self.number);
        if self.live {
            self.state.one_less();
        }
        self.state.returned.notify_waiters();
    }
}

/// When a connection of this `age` came to be.
pub(super) fn born(age: Duration) -> std::time::Instant {
    let now = std::time::Instant::now();
    now.checked_sub(age).unwrap_or(now)
}

fn gone() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(
        io::ErrorKind::ConnectionAborted,
        "given up by the lifecycle",
    ))
}
