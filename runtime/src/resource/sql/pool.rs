//! sqlx's own pool, kept out of the traps that a frozen sandbox sets for it.
//!
//! * It has no maintenance task and no timers: age and idle time are checked when a connection is
//!   acquired, by both clocks.
//! * A kept connection is pinged only after it idled for longer than `trust`, and within a bound.
//! * After an abnormal end, whatever comes back is closed instead of being pinged, which would wait
//!   for the abandoned query.
//! * It is closed within a bound: what is idle first, then the rest.
//! * It tells why nobody gets a connection: sqlx alone reports every cause as one timeout.

use super::{driver::Driver, fault, url};
use crate::{
    config::{ASK_WHY_AFTER, Defaults, Settings},
    error::Error,
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
    /// A connection was being opened when the handler was last polled.
    was_opening: AtomicBool,
    abandoned: AtomicBool,
    thaw: Mutex<Thaw>,
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
        let live = self.state.live.load(Ordering::Acquire);
        self.pool.size().saturating_sub(live)
    }

    /// Waits until a connection is being opened for longer than usual, and asks the server itself
    /// why. When there is an answer, everybody who waits for the pool is let go with it.
    async fn find_out(&self) {
        let mut patience = ASK_WHY_AFTER;
        loop {
            self.opening_for(patience).await;
            let options = self.pool.connect_options();
            match timeout(self.acquire.within(), options.connect()).await {
                Ok(Err(error)) => {
                    let why = fault::connecting::<DB>(&self.acquire, &self.target, error);
                    self.give_up(&options, why);
                    return;
                }
                Ok(Ok(connection)) => {
                    let _ = connection.close().await;
                }
                Err(_) => {}
            }
            // The server answers, or does not even do that: no reason to ask more and more often.
            patience *= 2;
        }
    }

    /// Lets everybody go who waits for the pool: with `why`, which their error is traced back to.
    fn give_up(&self, options: &DB::Options, why: Error) {
        *lock(&self.state.failure) = Some(why);
        // Who is trying to connect tries again and again until `acquire_ms` is over, even when the
        // pool has been closed, but reads the options anew each time.
        self.pool.set_connect_options(DB::nowhere(options));
        // Marks the pool as closed at once; the rest is for the *finally*.
        drop(self.pool.close());
    }

    /// Resolves when a connection has been on its way for `patience`.
    async fn opening_for(&self, patience: Duration) {
        let mut alarm: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|cx| {
            let is_opening = self.opening() > 0;
            self.state.was_opening.store(is_opening, Ordering::Release);
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
        let target = DB::target(&options);
        let state = Arc::new(State {
            settings,
            live: AtomicU32::new(0),
            was_opening: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            thaw: Mutex::new(Thaw {
                at: Instant::now(),
                idle: Duration::ZERO,
            }),
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
            .connect_lazy_with(options);
        Ok(Self {
            pool,
            target,
            acquire: *acquire,
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
                Some(fault::connect_timed_out::<DB>(&self.acquire, &self.target))
            }
            Symptom::TimedOut if self.pool.size() >= self.state.settings.max => {
                Some(fault::all_in_use(&self.acquire))
            }
            _ => None,
        }
    }

    fn abandon(&self) {
        self.state.abandoned.store(true, Ordering::Release);
    }

    async fn settle(&self) -> Fitness {
        self.is_quiet().await;
        Fitness::Fit
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

    /// An error makes the pool drop the connection without asking the server anything.
    fn may_return(&self) -> Result<bool, sqlx::Error> {
        if self.abandoned.load(Ordering::Acquire) {
            self.live.fetch_sub(1, Ordering::AcqRel);
            return Err(gone());
        }
        Ok(true)
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
