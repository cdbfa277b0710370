//! sqlx's own pool, kept out of the traps that a frozen sandbox sets for it.
//!
//! * It has no maintenance task and no timers: age and idle time are checked when a connection is
//!   acquired, by both clocks.
//! * A kept connection is pinged only after it idled for longer than `trust`, and within a bound.
//! * When it is not going to be kept, whatever comes back is closed instead of being pinged, which
//!   would wait for a query that was given up.
//! * It is closed within a bound: what is idle first, then the rest.
//! * It tells why nobody gets a connection: sqlx alone reports every cause as one timeout.

use super::{driver::Driver, fault, url};
use crate::{
    config::{ASK_WHY_AFTER, Close, Defaults, Settings},
    error::{Error, ErrorKind},
    resource::{Acquire, Fitness, Resource, Symptom, Usage},
};
use futures_util::future::{BoxFuture, Either, select};
use sqlx::{
    ConnectOptions, Connection,
    pool::{Pool, PoolConnection, PoolConnectionMetadata, PoolOptions},
};
use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep, timeout};

/// How often a pool is looked at while it is waited for: sqlx has no event for a connection that
/// came back.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// A sqlx pool that is opened, reset and closed with the invocations.
pub struct SqlPool<DB: Driver> {
    pool: Pool<DB>,
    options: DB::Options,
    target: String,
    acquire: Acquire,
    state: Arc<State>,
}

/// What the pool's hooks and the lifecycle tell each other.
struct State {
    settings: Settings,
    /// Connections that were opened, less those that were given up: what `Pool::size` counts beyond
    /// that is being opened right now.
    live: AtomicU32,
    /// The pool has lost a connection without our doing.
    lost: AtomicBool,
    /// A connection was being opened when the handler was last polled.
    was_opening: AtomicBool,
    /// Every connection was in use then.
    was_full: AtomicBool,
    abandoned: AtomicBool,
    closing: AtomicBool,
    thaw: Mutex<Thaw>,
    /// Somebody is asking the server why a connection takes so long.
    asking: AtomicBool,
    /// Why connections could not be opened, when that may pass.
    reason: Mutex<Option<Error>>,
    /// Why the pool has been given up.
    failure: Mutex<Option<Error>>,
}

/// The last time that the pool was lent after a pause.
struct Thaw {
    at: Instant,
    idle: Duration,
}

impl<DB: Driver> SqlPool<DB> {
    pub(super) fn pool(&self) -> &Pool<DB> {
        &self.pool
    }

    /// Connections that are being opened right now.
    fn opening(&self) -> u32 {
        let size = self.pool.size();
        let live = self.state.live.fetch_min(size, Ordering::AcqRel);
        if live > size {
            self.state.lost.store(true, Ordering::Release);
        }
        size.saturating_sub(live)
    }

    /// Waits until a connection is being opened for longer than usual, and asks the server itself
    /// why. When it is the one answer that sqlx would keep to itself and that does not pass, whoever
    /// tries to connect is let go with it.
    async fn find_out(&self) {
        let mut patience = ASK_WHY_AFTER;
        loop {
            self.opening_for(patience).await;
            // One question at a time, however many invocations wait.
            if let Some(_asking) = Asking::begin(&self.state.asking) {
                let asked = timeout(self.acquire.within(), self.options.connect()).await;
                match asked {
                    Ok(Err(error)) => {
                        self.learn(fault::connecting::<DB>(&self.acquire, &self.target, error));
                    }
                    Ok(Ok(connection)) => {
                        *lock(&self.state.reason) = None;
                        let _ = timeout(self.acquire.within(), connection.close()).await;
                    }
                    Err(_) => *lock(&self.state.reason) = None,
                }
            }
            if lock(&self.state.failure).is_some() {
                return;
            }
            // The server answers, or does not even do that: no reason to ask more and more often.
            patience *= 2;
        }
    }

    fn learn(&self, why: Error) {
        // What may pass while `acquire_ms` lasts, sqlx tries again, and is right.
        if why.kind() != ErrorKind::Refused {
            *lock(&self.state.reason) = Some(why);
            return;
        }
        *lock(&self.state.failure) = Some(why);
        // Who is trying to connect reads the options anew each time. What is open goes on serving.
        self.pool.set_connect_options(DB::nowhere(&self.options));
    }

    /// Resolves when a connection has been on its way for `patience`.
    async fn opening_for(&self, patience: Duration) {
        let mut alarm: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|cx| {
            let is_opening = self.opening() > 0;
            self.state.was_opening.store(is_opening, Ordering::Release);
            let usage = self.usage();
            let is_full = !is_opening && usage.in_use >= self.state.settings.max;
            self.state.was_full.store(is_full, Ordering::Release);
            if !is_opening {
                alarm = None;
                return Poll::Pending;
            }
            // Polled whenever the handler is, so at the latest when it has begun to wait.
            alarm
                .get_or_insert_with(|| Box::pin(sleep(patience)))
                .as_mut()
                .poll(cx)
        })
        .await;
    }

    async fn is_quiet(&self) {
        while self.pool.num_idle() < self.pool.size() as usize {
            sleep(LOOK_AGAIN).await;
        }
    }
}

impl<DB: Driver> Resource for SqlPool<DB> {
    const NAME: &'static str = DB::POOL;
    const DEFAULTS: Defaults = Defaults::SQL;

    async fn open(acquire: &Acquire) -> Result<Self, Error> {
        let settings = *acquire.settings();
        let options = url::options::<DB>(acquire)?;
        // sqlx takes the pool's patience once and for all: only what is closed with this invocation
        // may have it cut short by this invocation's deadline.
        let acquire = match settings.close {
            Close::Always => *acquire,
            _ => acquire.unclamped(),
        };
        let target = DB::target(&options);
        let state = Arc::new(State {
            settings,
            live: AtomicU32::new(0),
            lost: AtomicBool::new(false),
            was_opening: AtomicBool::new(false),
            was_full: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            thaw: Mutex::new(Thaw {
                at: Instant::now(),
                idle: Duration::ZERO,
            }),
            asking: AtomicBool::new(false),
            reason: Mutex::new(None),
            failure: Mutex::new(None),
        });
        let opened = Arc::clone(&state);
        let checking = Arc::clone(&state);
        let returning = Arc::clone(&state);
        let pool = PoolOptions::<DB>::new()
            .max_connections(settings.max)
            // Not even the pool's own minimum: it is kept by a task that a freeze stops half-way.
            .min_connections(0)
            .acquire_timeout(acquire.within())
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .after_connect(move |_, _| {
                opened.live.fetch_add(1, Ordering::AcqRel);
                Box::pin(async { Ok(()) })
            })
            .before_acquire(move |connection, meta| {
                let checking = Arc::clone(&checking);
                Box::pin(async move { checking.check::<DB>(connection, meta).await })
            })
            .after_release(move |_, _| {
                let verdict = returning.may_return();
                Box::pin(async move { verdict })
            })
            .connect_lazy_with(options.clone());
        Ok(Self {
            pool,
            options,
            target,
            acquire,
            state,
        })
    }

    async fn connect(&self, acquire: &Acquire) -> Result<(), Error> {
        let wanted = acquire.settings().min.max(1);
        let mut held: Vec<PoolConnection<DB>> = Vec::new();
        let connecting = async {
            for _ in 0..wanted {
                held.push(self.pool.acquire().await?);
            }
            Ok::<_, sqlx::Error>(())
        };
        let connected = match select(pin!(connecting), pin!(self.find_out())).await {
            Either::Left((connected, _)) => connected,
            Either::Right(((), _)) => Err(sqlx::Error::PoolClosed),
        };
        drop(held);
        connected.map_err(|error| {
            fault::symptom(&error)
                .and_then(|symptom| self.explain(symptom))
                .unwrap_or_else(|| fault::connecting::<DB>(acquire, &self.target, error))
        })?;
        self.is_quiet().await;
        Ok(())
    }

    async fn reset(&self, idle: Duration) -> Fitness {
        if self.pool.is_closed() || lock(&self.state.failure).is_some() {
            return Fitness::Unfit;
        }
        if !idle.is_zero() {
            // Nobody else has it, and it was quiet when it was kept: nothing is being opened.
            self.state.live.store(self.pool.size(), Ordering::Release);
        }
        // A shorter pause says nothing about a connection that has slept through a longer one.
        if idle > self.state.settings.trust {
            *lock(&self.state.thaw) = Thaw {
                at: Instant::now(),
                idle,
            };
        }
        Fitness::Fit
    }

    fn watch(&self) -> Option<BoxFuture<'_, ()>> {
        Some(Box::pin(self.find_out()))
    }

    fn explain(&self, symptom: Symptom) -> Option<Error> {
        if let Some(error) = lock(&self.state.failure).clone() {
            return Some(error);
        }
        match symptom {
            // By now the pool has given up what it was opening.
            Symptom::TimedOut if self.state.was_opening.load(Ordering::Acquire) => {
                if let Some(reason) = lock(&self.state.reason).clone() {
                    return Some(reason);
                }
                Some(fault::connect_timed_out::<DB>(&self.acquire, &self.target))
            }
            Symptom::TimedOut if self.state.was_full.load(Ordering::Acquire) => {
                Some(fault::all_in_use(&self.acquire))
            }
            Symptom::TimedOut if self.state.lost.load(Ordering::Acquire) => {
                Some(fault::connect_timed_out::<DB>(&self.acquire, &self.target))
            }
            _ => None,
        }
    }

    fn abandon(&self) {
        self.state.abandoned.store(true, Ordering::Release);
    }

    fn closing(&self) {
        self.state.closing.store(true, Ordering::Release);
    }

    async fn settle(&self) -> Fitness {
        self.is_quiet().await;
        // Where the pool has lost one connection, the others cannot be trusted either. Looking for
        // what is being opened finds out.
        self.opening();
        if self.state.lost.load(Ordering::Acquire) {
            Fitness::Unfit
        } else {
            Fitness::Fit
        }
    }

    async fn close(&self) {
        // `Pool::close` closes nothing until everything is back: what is idle goes first, so that
        // one connection that never comes back keeps no other one open.
        while let Some(connection) = self.pool.try_acquire() {
            let _ = connection.close().await;
        }
        self.pool.close().await;
    }

    fn usage(&self) -> Usage {
        let open = self.pool.size();
        let idle = u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX);
        Usage {
            open,
            in_use: open.saturating_sub(idle),
        }
    }
}

/// The one who asks.
struct Asking<'a>(&'a AtomicBool);

impl<'a> Asking<'a> {
    fn begin(asking: &'a AtomicBool) -> Option<Self> {
        let is_first = !asking.swap(true, Ordering::AcqRel);
        is_first.then_some(Self(asking))
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl State {
    /// Before a kept connection is handed out: an error makes the pool open another one instead,
    /// within the same acquire.
    async fn check<DB: Driver>(
        &self,
        connection: &mut DB::Connection,
        meta: PoolConnectionMetadata,
    ) -> Result<bool, sqlx::Error> {
        let idle = self.idle_for(meta.idle_for);
        let too_old = self
            .settings
            .lifetime
            .is_some_and(|longest| meta.age > longest);
        let verdict = if too_old {
            Ok(false)
        } else if idle > self.settings.idle {
            Err(gone())
        } else if idle <= self.settings.trust {
            Ok(true)
        } else {
            match timeout(self.settings.ping, connection.ping()).await {
                Ok(pinged) => pinged.map(|()| true),
                Err(_) => Err(gone()),
            }
        };
        if !matches!(verdict, Ok(true)) {
            self.live.fetch_sub(1, Ordering::AcqRel);
        }
        verdict
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
    fn may_return(&self) -> Result<bool, sqlx::Error> {
        let verdict = if self.abandoned.load(Ordering::Acquire) {
            Err(gone())
        } else {
            Ok(!self.closing.load(Ordering::Acquire))
        };
        if !matches!(verdict, Ok(true)) {
            self.live.fetch_sub(1, Ordering::AcqRel);
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<DB: Driver> fmt::Debug for SqlPool<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlPool")
            .field("target", &self.target)
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}
