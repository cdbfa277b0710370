//! sqlx's own pool, adapted to environments that freeze.
//!
//! * It has no maintenance task and no timers: age and idle time are checked when a connection is acquired, with both
//!   clocks.
//! * A reused connection is pinged only after it was idle for longer than `trust`, and with a timeout.
//! * If a released connection is not going to be reused, it is closed instead of pinged: the ping would wait for a
//!   dropped query.
//! * A query that outlives its handler is cancelled on the server. A leaked clone of the pool gets an error, and does
//!   not block the close.
//! * The sessions of reused connections are reset after the invocation.
//! * Closing has a timeout: idle connections first, then the rest.
//! * It reports why acquiring failed: sqlx alone reports every cause as the same timeout.

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
        Connector,
        login::{Authenticator, LoginAttempt},
    },
    driver::Driver,
    error,
};
use crate::{
    config::{Close, Defaults, POOL_DRAIN_TIMEOUT, REPLY_ROUND_TRIPS},
    error::{Error, ErrorKind},
    resource::{AcquireContext, Health, Resource, Symptom, Usage},
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

/// How often the pool is polled while waiting for it: sqlx has no event for a released connection.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// How long the pool is polled without a timer: a nearby server replies sooner than the shortest timer fires.
const LOOK_ALL_THE_TIME: Duration = Duration::from_micros(300);

/// A sqlx pool that is opened, reset and closed by invocations.
pub struct SqlxPool<DB: Driver> {
    pool: Pool<DB>,
    /// The login of the pool.
    attempt: AsyncMutex<LoginAttempt<DB>>,
    acquire: AcquireContext,
    state: Arc<State<DB>>,
}

impl<DB: Driver> SqlxPool<DB> {
    fn login(&self) -> &Authenticator<DB> {
        self.state.address.login()
    }

    /// Opens the first connection, so that rotated credentials are detected while they can still be replaced.
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

    /// Refreshes the credentials for connections that the pool opens in this invocation. If that fails, the old ones
    /// may still work.
    async fn keep_credentials_fresh(&self) {
        let mut attempt = self.attempt.lock().await;
        if Authenticator::is_fresh(&attempt) {
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

    /// Begins a transaction, and reports why it could not begin.
    pub(super) async fn begin(
        &self,
        acquire: &AcquireContext,
    ) -> Result<Transaction<'static, DB>, Error> {
        let beginning = async {
            match DB::BEGIN {
                Some(begin) => self.pool.begin_with(begin).await,
                None => self.pool.begin().await,
            }
        };
        let (beginning, finding_out) = (pin!(beginning), pin!(self.probe_server()));
        let begun = match timeout_at(acquire.until(), select(beginning, finding_out)).await {
            Ok(Either::Left((begun, _))) => begun,
            Ok(Either::Right(((), _))) => Err(sqlx::Error::PoolClosed),
            Err(_) => {
                return Err(self
                    .diagnosis(Symptom::TimedOut)
                    .unwrap_or_else(|| acquire.timeout_error("beginning a transaction")));
            }
        };
        begun.map_err(|error| self.why_not(acquire, error))
    }

    /// The reason for sqlx's `error`.
    fn why_not(&self, acquire: &AcquireContext, error: sqlx::Error) -> Error {
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

    /// How long the pool may take to get all connections back: a rollback and sqlx's ping.
    fn quiet_within(&self) -> Duration {
        let round_trip = self.state.address.round_trip();
        round_trip.at_least(POOL_DRAIN_TIMEOUT, 2 * REPLY_ROUND_TRIPS)
    }
}

impl<DB: Driver> Resource for SqlxPool<DB> {
    const NAME: &'static str = DB::POOL;
    const DEFAULTS: Defaults = Defaults::SQL;
    const PER_CONNECTION: bool = true;

    async fn open(acquire: &AcquireContext) -> Result<Self, Error> {
        // The pool's timeout is fixed when it is opened. Only a pool that this invocation closes may have it shortened
        // to this invocation's deadline.
        let acquire = match acquire.settings().close {
            Close::Always => *acquire,
            _ => acquire.unclamped(),
        };
        let address = Connector::<DB>::read(&acquire)?;
        let attempt = address.login().attempt(&acquire).await?;
        let state = Arc::new(State::new(address, &attempt, acquire));
        let opened = Arc::clone(&state);
        let checking = Arc::clone(&state);
        let returning = Arc::clone(&state);
        let pool = PoolOptions::<DB>::new()
            .max_connections(acquire.settings().max)
            // Not even the pool's own minimum: a task maintains it, and a freeze would stop that task at any point.
            .min_connections(0)
            .acquire_timeout(acquire.timeout())
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
                Box::pin(async move { returning.after_release(connection, born).await })
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
            // Boxed: the future is large, and few have credentials that change.
            Box::pin(opened.log_in()).await?;
        }
        Ok(opened)
    }

    async fn connect(&self, acquire: &AcquireContext) -> Result<(), Error> {
        let wanted = acquire.settings().min.max(1);
        let mut held: Vec<PoolConnection<DB>> = Vec::new();
        let connecting = async {
            for _ in 0..wanted {
                held.push(self.pool.acquire().await?);
            }
            Ok::<_, sqlx::Error>(())
        };
        let connected = match select(pin!(connecting), pin!(self.probe_server())).await {
            Either::Left((connected, _)) => connected,
            Either::Right(((), _)) => Err(sqlx::Error::PoolClosed),
        };
        drop(held);
        connected.map_err(|error| self.why_not(acquire, error))?;
        self.is_quiet().await;
        Ok(())
    }

    async fn check(&self, idle: Duration) -> Health {
        if self.pool.is_closed() || self.state.failure().is_some() || self.state.is_outdated() {
            return Health::Broken;
        }
        if self.state.owners().users.is_empty() {
            // No other invocation uses it, and it was drained when it was parked: no connection is being opened.
            if self.usage().in_use > 0 || idle > self.state.settings.idle {
                return Health::Broken;
            }
            self.state.all_live(self.pool.size());
            self.state.paused(idle);
        }
        self.state.serve();
        if self.login().may_change() {
            Box::pin(self.keep_credentials_fresh()).await;
        }
        Health::Healthy
    }

    fn stop(&self) {
        self.state.stop();
    }

    fn park(&self) {
        self.state.park();
    }

    async fn close(&self) {
        // `Pool::close` closes nothing until all connections are released. Idle ones are closed first, so that one
        // connection that is never released does not keep the others open.
        let closing = async {
            while let Some(connection) = self.pool.try_acquire() {
                let _ = connection.close().await;
            }
            self.pool.close().await;
        };
        if DB::IN_PROCESS {
            closing.await;
            // sqlx does not wait for a connection that it drops. The process must not be frozen while such a connection
            // holds a lock.
            while !self.state.have_all_left() {
                sleep(LOOK_AGAIN).await;
            }
        } else if timeout(self.quiet_within(), closing).await.is_err() {
            // Connections that are released later are dropped.
            self.stop();
        } else {
            // sqlx's pool opens its connections itself, and could not retry with other options.
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
        self.state.break_cycle();
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
