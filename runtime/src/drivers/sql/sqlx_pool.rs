//! sqlx's own pool, kept out of the traps that a frozen sandbox sets for it.
//!
//! * It has no maintenance task and no timers: age and idle time are checked when a connection is
//!   acquired, by both clocks.
//! * A kept connection is pinged only after it idled for longer than `trust`, and within a bound.
//! * When it is not going to be kept, whatever comes back is closed instead of being pinged, which
//!   would wait for a query that was given up.
//! * A query that outlives its handler is stopped on the server, and a clone of the pool that escapes
//!   from its invocation is refused, and holds up nothing.
//! * What is kept has its sessions reset after the invocation.
//! * It is closed within a bound: what is idle first, then the rest.
//! * It tells why nobody gets a connection: sqlx alone reports every cause as one timeout.

mod cleanup;
mod diagnosis;
mod handle;
mod owners;
mod state;
mod transaction;

pub(crate) use self::handle::SqlxHandle;

use self::state::{State, born};
use super::{
    connect::{
        Address,
        login::{Attempt, Login},
    },
    driver::Driver,
    error,
};
use crate::{
    config::{Close, Defaults, POOL_QUIET, REPLY_ROUND_TRIPS},
    error::{Error, ErrorKind},
    resource::{Acquire, Fitness, Resource, Symptom, Usage},
};
use futures_util::future::{Either, select};
use sqlx::{
    Transaction,
    pool::{Pool, PoolConnection, PoolOptions},
};
use std::{fmt, pin::pin, sync::Arc, time::Duration};
use tokio::{
    sync::Mutex as AsyncMutex,
    task::yield_now,
    time::{Instant, sleep, timeout, timeout_at},
};

/// How often a pool is looked at while it is waited for: sqlx has no event for a connection that
/// came back.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// How long it is looked at all the time before a timer is used: a server nearby answers sooner than the
/// shortest timer fires.
const LOOK_ALL_THE_TIME: Duration = Duration::from_micros(300);

/// A sqlx pool that is opened, reset and closed with the invocations.
pub struct SqlxPool<DB: Driver> {
    pool: Pool<DB>,
    /// What the pool logs in with.
    attempt: AsyncMutex<Attempt<DB>>,
    acquire: Acquire,
    state: Arc<State<DB>>,
}

impl<DB: Driver> SqlxPool<DB> {
    fn login(&self) -> &Login<DB> {
        self.state.address.login()
    }

    /// Opens the first connection, so that credentials that have been rotated are noticed while they
    /// can still be replaced.
    async fn log_in(&self) -> Result<(), Error> {
        let mut attempt = self.attempt.lock().await;
        for is_first in [true, false] {
            let error = match self.connect(&self.acquire).await {
                Err(error) if is_first && error.kind() == ErrorKind::Authentication => error,
                done => return done,
            };
            let Some(fresh) = self.login().after_denial(&self.acquire, &attempt).await? else {
                return Err(error);
            };
            self.state.log_in_with(&fresh);
            *attempt = fresh;
        }
        Ok(())
    }

    /// What the pool opens in this invocation logs in with credentials that are fresh. Where they cannot
    /// be had, the old ones may still do.
    async fn keep_credentials_fresh(&self) {
        let mut attempt = self.attempt.lock().await;
        if Login::is_fresh(&attempt) {
            return;
        }
        match self.login().attempt(&self.acquire.restarted()).await {
            Ok(fresh) => {
                self.state.log_in_with(&fresh);
                *attempt = fresh;
            }
            Err(error) => tracing::warn!(%error, "the pool goes on with the credentials it has"),
        }
    }

    /// Begins a transaction, and says what kept it from beginning.
    pub(super) async fn begin(&self, acquire: &Acquire) -> Result<Transaction<'static, DB>, Error> {
        let beginning = async {
            match DB::BEGIN {
                Some(begin) => self.pool.begin_with(begin).await,
                None => self.pool.begin().await,
            }
        };
        let (beginning, finding_out) = (pin!(beginning), pin!(self.find_out()));
        let begun = match timeout_at(acquire.until(), select(beginning, finding_out)).await {
            Ok(Either::Left((begun, _))) => begun,
            Ok(Either::Right(((), _))) => Err(sqlx::Error::PoolClosed),
            Err(_) => {
                return Err(self
                    .diagnosis(Symptom::TimedOut)
                    .unwrap_or_else(|| acquire.timed_out("beginning a transaction")));
            }
        };
        begun.map_err(|error| self.why_not(acquire, error))
    }

    /// Why there is no connection, where sqlx says `error`.
    fn why_not(&self, acquire: &Acquire, error: sqlx::Error) -> Error {
        error::symptom(&error)
            .and_then(|symptom| self.diagnosis(symptom))
            .unwrap_or_else(|| error::connecting::<DB>(acquire, &self.state.target(), error))
    }

    async fn is_quiet(&self) {
        let from = Instant::now();
        while self.pool.num_idle() < self.pool.size() as usize {
            if from.elapsed() < LOOK_ALL_THE_TIME {
                yield_now().await;
            } else {
                sleep(LOOK_AGAIN).await;
            }
        }
    }

    /// How long the pool may take to have everything back: a rollback and sqlx's ping.
    fn quiet_within(&self) -> Duration {
        let round_trip = self.state.address.round_trip();
        round_trip.at_least(POOL_QUIET, 2 * REPLY_ROUND_TRIPS)
    }
}

impl<DB: Driver> Resource for SqlxPool<DB> {
    const NAME: &'static str = DB::POOL;
    const DEFAULTS: Defaults = Defaults::SQL;
    const PER_CONNECTION: bool = true;

    async fn open(acquire: &Acquire) -> Result<Self, Error> {
        // sqlx takes the pool's patience once and for all: only what is closed with this invocation
        // may have it cut short by this invocation's deadline.
        let acquire = match acquire.settings().close {
            Close::Always => *acquire,
            _ => acquire.unclamped(),
        };
        let address = Address::<DB>::read(&acquire)?;
        let attempt = address.login().attempt(&acquire).await?;
        let state = Arc::new(State::new(address, &attempt, acquire));
        let opened = Arc::clone(&state);
        let checking = Arc::clone(&state);
        let returning = Arc::clone(&state);
        let pool = PoolOptions::<DB>::new()
            .max_connections(acquire.settings().max)
            // Not even the pool's own minimum: it is kept by a task that a freeze stops half-way.
            .min_connections(0)
            .acquire_timeout(acquire.within())
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .after_connect(move |connection, _| {
                let opened = Arc::clone(&opened);
                Box::pin(async move { opened.opened(connection).await })
            })
            .before_acquire(move |connection, meta| {
                let born = born(meta.age);
                let checking = Arc::clone(&checking);
                Box::pin(async move { checking.check(connection, meta, born).await })
            })
            .after_release(move |connection, meta| {
                let born = born(meta.age);
                let returning = Arc::clone(&returning);
                Box::pin(async move { returning.may_return(connection, born).await })
            })
            .connect_lazy_with(state.options());
        state.belongs_to(&pool);
        let opened = Self {
            pool,
            attempt: AsyncMutex::new(attempt),
            acquire,
            state,
        };
        if opened.login().may_change() {
            // Boxed: it is large, and few have credentials that change.
            Box::pin(opened.log_in()).await?;
        }
        Ok(opened)
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
        connected.map_err(|error| self.why_not(acquire, error))?;
        self.is_quiet().await;
        Ok(())
    }

    async fn reset(&self, idle: Duration) -> Fitness {
        if self.pool.is_closed() || self.state.failure().is_some() || self.state.is_outdated() {
            return Fitness::Unfit;
        }
        if self.state.owners().users.is_empty() {
            // Nobody else has it, and it was quiet when it was kept: nothing is being opened.
            if self.usage().in_use > 0 || idle > self.state.settings.idle {
                return Fitness::Unfit;
            }
            self.state.all_live(self.pool.size());
            self.state.paused(idle);
        }
        self.state.serve();
        if self.login().may_change() {
            Box::pin(self.keep_credentials_fresh()).await;
        }
        Fitness::Fit
    }

    fn abandon(&self) {
        self.state.abandon();
    }

    fn rest(&self) {
        self.state.rest();
    }

    async fn close(&self) {
        // `Pool::close` closes nothing until everything is back: what is idle goes first, so that
        // one connection that never comes back keeps no other one open.
        let closing = async {
            while let Some(connection) = self.pool.try_acquire() {
                let _ = connection.close().await;
            }
            self.pool.close().await;
        };
        if DB::IN_PROCESS {
            closing.await;
            // sqlx does not wait for a connection that it drops: it is not to be frozen with a lock.
            while !self.state.have_all_left() {
                sleep(LOOK_AGAIN).await;
            }
        } else if timeout(self.quiet_within(), closing).await.is_err() {
            // What comes back later is dropped.
            self.abandon();
        } else {
            // sqlx's pool opens its connections itself, and could not go on without.
            self.state.learn_monitoring().await;
        }
    }

    fn usage(&self) -> Usage {
        let open = self.pool.size();
        let idle = u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX);
        Usage::new(open, open.saturating_sub(idle))
    }

    fn round_trip(&self) -> Duration {
        self.state.address.round_trip().get()
    }
}

impl<DB: Driver> Drop for SqlxPool<DB> {
    fn drop(&mut self) {
        self.state.part();
    }
}

impl<DB: Driver> fmt::Debug for SqlxPool<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlxPool")
            .field("target", &self.state.target())
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}
