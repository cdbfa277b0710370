//! What a pool's hooks and the lifecycle tell each other.

use crate::{
    config::{HEDGE_AFTER, HEDGE_ROUND_TRIPS, QUIET, REPLY_ROUND_TRIPS, Settings},
    error::Error,
    lock::lock,
    resource::{
        Acquire,
        sql::{
            Driver,
            address::Address,
            fault,
            link::{answers, becomes_quiet, is_quiet, recognized},
            login::Attempt,
            nodelay,
            tag::Tag,
            thaw::{Thawed, thaw},
        },
    },
};
use sqlx::pool::{Pool, PoolConnectionMetadata};
use std::{
    io,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// The most sessions that a pool remembers: many times what it has at once, and little memory.
const SESSIONS: usize = 1_024;

/// See the module.
pub(super) struct State<DB: Driver> {
    pub(super) settings: Settings,
    pub(super) address: Address<DB>,
    /// The one that all connections of the pool share.
    tag: Tag,
    /// What the pool connects with, unless it is barred.
    options: Mutex<DB::Options>,
    acquire: Acquire,
    /// Of the connections that were opened, some of which may have gone.
    sessions: Mutex<Vec<DB::Session>>,
    /// Some connections were told how they are to be monitored when they were open.
    by_statement: AtomicBool,
    /// Of those that are kept, as their resets have identified them.
    identified: Mutex<Vec<DB::Session>>,
    /// A connection came back in the middle of a statement, which may still run on the server.
    strayed: AtomicBool,
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
    waiting_for: Mutex<Option<WaitingFor>>,
    abandoned: AtomicBool,
    closing: AtomicBool,
    thaw: Mutex<Thaw>,
    /// No connection of the pool's is to serve another invocation.
    outdated: AtomicBool,
    /// A handler has failed, and nobody knows whether because of a connection.
    suspect: AtomicBool,
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

/// What is known of the pool's tries to connect, which sqlx repeats silently.
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

/// What can keep a handler waiting for a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitingFor {
    /// A connection is being opened.
    Opening,
    /// Every connection is in use.
    Return,
}

impl<DB: Driver> State<DB> {
    pub(super) fn new(address: Address<DB>, attempt: &Attempt<DB>, acquire: Acquire) -> Self {
        let tag = Tag::unique();
        let options = address.sent(&DB::tagged(&attempt.options, &tag));
        Self {
            settings: *acquire.settings(),
            options: Mutex::new(options),
            tag,
            address,
            acquire,
            sessions: Mutex::default(),
            by_statement: AtomicBool::new(false),
            identified: Mutex::default(),
            strayed: AtomicBool::new(false),
            resting: AtomicBool::new(false),
            barred: AtomicBool::new(false),
            pool: Mutex::new(None),
            live: AtomicU32::new(0),
            lost: AtomicBool::new(false),
            waiting_for: Mutex::new(None),
            abandoned: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            thaw: Mutex::new(Thaw {
                at: Instant::now(),
                idle: Duration::ZERO,
            }),
            outdated: AtomicBool::new(false),
            suspect: AtomicBool::new(false),
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

    /// After the pool has opened a connection.
    pub(super) async fn opened(&self, connection: &mut DB::Connection) -> Result<(), sqlx::Error> {
        self.refuse_escaped()?;
        // Logged in with others or not: they have the same tag.
        let options = self.options();
        if let Some(port) = DB::port(&options) {
            // Where the server answered faster than anybody could look, nobody has yet.
            nodelay::sweep(port);
        }
        let session = match self.address.introduce(connection, &options).await {
            Err(sqlx::Error::Database(error)) if DB::kind(&*error).is_none() => {
                // sqlx would log it and try again, until it has forgotten why.
                let refused = sqlx::Error::Database(error);
                let why = fault::connecting::<DB>(&self.acquire, &self.target(), refused);
                self.give_up(why.clone());
                let _ = timeout(QUIET, DB::hang_up(connection)).await;
                return Err(fault::wrapped(why));
            }
            session => session?,
        };
        self.remember(session);
        self.opened.fetch_add(1, Ordering::AcqRel);
        if self.address.monitors_by_statement(&options) {
            self.by_statement.store(true, Ordering::Release);
            self.address.monitor(connection, &options).await;
        }
        self.live.fetch_add(1, Ordering::AcqRel);
        Ok(())
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
        let options = DB::tagged(&attempt.options, &self.tag);
        *lock(&self.options) = self.address.sent(&options);
        if let Some(pool) = &*lock(&self.pool) {
            pool.set_connect_options(self.options());
        }
    }

    fn remember(&self, session: DB::Session) {
        let mut sessions = lock(&self.sessions);
        if sessions.len() == SESSIONS {
            sessions.remove(0);
        }
        sessions.push(session);
    }

    pub(super) fn sessions(&self) -> Vec<DB::Session> {
        let mut all = lock(&self.sessions).clone();
        all.extend(lock(&self.identified).iter().cloned());
        all
    }

    /// Says once more what a reset has undone.
    pub(super) async fn monitor_again(&self, connection: &mut DB::Connection) {
        if self.by_statement.load(Ordering::Acquire) {
            self.address.monitor(connection, &self.options()).await;
        }
    }

    /// What has just been reset is all that there is.
    pub(super) fn identify<'m>(&self, kept: impl Iterator<Item = &'m DB::Memory>) {
        // They have the same name.
        let Some(session) = lock(&self.sessions).first().cloned() else {
            return;
        };
        *lock(&self.identified) = kept
            .filter_map(|memory| DB::identified(&session, memory))
            .collect();
    }

    pub(super) async fn learn_monitoring(&self) {
        // Nobody has been connected: there is nothing to be told about the next time.
        if lock(&self.sessions).is_empty() {
            return;
        }
        let options = self.options();
        let acquire = self.acquire.restarted();
        let learning = Box::pin(self.address.learn_monitoring(&acquire, &options));
        // Not worth more: without it, each new connection takes a round trip longer.
        let _ = timeout(QUIET, learning).await;
    }

    pub(super) fn have_all_left(&self) -> bool {
        lock(&self.sessions).iter().all(DB::has_left)
    }

    pub(super) fn has_strayed(&self) -> bool {
        self.strayed.load(Ordering::Acquire)
    }

    pub(super) fn rest(&self) {
        self.suspect(false);
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

    fn refuse_escaped(&self) -> Result<(), sqlx::Error> {
        if !self.resting.load(Ordering::Acquire) {
            return Ok(());
        }
        if let Some(pool) = &*lock(&self.pool) {
            pool.set_connect_options(DB::nowhere(&self.options()));
            self.barred.store(true, Ordering::Release);
        }
        let error = fault::escaped(&self.acquire);
        tracing::error!(handler = self.acquire.handler(), %error);
        Err(fault::wrapped(error))
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

    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
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

    pub(super) fn wait_for(&self, what: Option<WaitingFor>) {
        *lock(&self.waiting_for) = what;
    }

    pub(super) fn waiting_for(&self) -> Option<WaitingFor> {
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
            pool.set_connect_options(DB::nowhere(&self.options()));
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

    /// What the connections rely on is gone from the server, or the server takes no writes any more.
    pub(super) fn outdated(&self) {
        if !self.outdated.swap(true, Ordering::AcqRel) {
            let (handler, target) = (self.acquire.handler(), self.target());
            tracing::warn!(handler, target, "{}", fault::OUTDATED);
        }
    }

    /// Whether what is reused after this invocation is looked at first.
    pub(super) fn suspect(&self, suspect: bool) {
        self.suspect.store(suspect, Ordering::Release);
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
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

    /// Before a kept connection is handed out: an error makes the pool open another one instead,
    /// within the same acquire.
    pub(super) async fn check(
        &self,
        connection: &mut DB::Connection,
        meta: PoolConnectionMetadata,
    ) -> Result<bool, sqlx::Error> {
        let verdict = match self.refuse_escaped() {
            Ok(()) => self.examine(connection, meta).await,
            Err(error) => Err(error),
        };
        if !matches!(verdict, Ok(true)) {
            self.one_less();
        }
        verdict
    }

    async fn examine(
        &self,
        connection: &mut DB::Connection,
        meta: PoolConnectionMetadata,
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
        if idle <= self.settings.trust {
            return Ok(true);
        }
        let round_trip = self.address.round_trip();
        let ping = round_trip.of(answers::<DB>(connection, self.settings.acquire));
        let hedge_after = round_trip.at_least(HEDGE_AFTER, HEDGE_ROUND_TRIPS);
        let patience = self.reply_within(self.settings.ping);
        let acquire = self.acquire.restarted();
        let dialling = self.address.dial(&acquire);
        match thaw(ping, hedge_after, patience, dialling).await {
            Thawed::Kept => Ok(true),
            Thawed::Fresh(link) => {
                self.remember(link.session().clone());
                // In the place of the dead one, of which the pool need not know.
                match link.into_raw() {
                    Some(fresh) => *connection = fresh,
                    None => return Err(gone()),
                }
                Ok(true)
            }
            Thawed::Neither(denied) => Err(fault::wrapped(denied.why)),
        }
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

    /// Before the pool takes a connection back: it would ping it, and wait for a query that was given
    /// up. `false` makes it say goodbye instead, an error makes it drop the connection.
    ///
    /// The pool's own ping does not do. It takes the first end of a reply that comes for its own; after a `COPY`
    /// that was dropped half-way that is the end of the `COPY`, and every later query gets the reply to the one
    /// before. Whoever had the connection may have done that.
    pub(super) async fn may_return(
        &self,
        connection: &mut DB::Connection,
    ) -> Result<bool, sqlx::Error> {
        // What is not going to be used again need not come to an end by itself.
        let abandoned = self.abandoned.load(Ordering::Acquire);
        let mut usable = is_quiet::<DB>(connection)
            || !abandoned && becomes_quiet::<DB>(connection, self.reply_within(QUIET)).await;
        let closing = self.closing.load(Ordering::Acquire);
        if usable && !abandoned && !closing {
            let longest = self.reply_within(self.settings.ping);
            usable = recognized::<DB>(connection, longest).await;
        }
        if !usable {
            self.strayed.store(true, Ordering::Release);
        }
        let verdict = if !usable || abandoned || self.abandoned.load(Ordering::Acquire) {
            Err(gone())
        } else {
            Ok(!self.closing.load(Ordering::Acquire))
        };
        if !matches!(verdict, Ok(true)) {
            self.one_less();
        }
        verdict
    }
}

fn gone() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(
        io::ErrorKind::ConnectionAborted,
        "given up by the lifecycle",
    ))
}
