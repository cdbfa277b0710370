//! sqlx's own pool, kept out of the traps that a frozen sandbox sets for it.
//!
//! * It has no maintenance task and no timers: age and idle time are checked when a connection is
//!   acquired, by both clocks.
//! * A kept connection is pinged only after it idled for longer than `trust`, and within a bound.
//! * When it is not going to be kept, whatever comes back is closed instead of being pinged, which
//!   would wait for a query that was given up.
//! * It is closed within a bound: what is idle first, then the rest.
//! * It tells why nobody gets a connection: sqlx alone reports every cause as one timeout.

mod diagnosis;
mod state;

use self::state::State;
use super::{
    driver::Driver,
    fault,
    login::{Attempt, Login},
    pressure,
};
use crate::{
    config::{Close, Defaults},
    error::{Error, ErrorKind},
    resource::{Acquire, Fitness, Resource, Symptom, Usage},
};
use futures_util::future::{BoxFuture, Either, select};
use sqlx::pool::{Pool, PoolConnection, PoolOptions};
use std::{fmt, pin::pin, sync::Arc, time::Duration};
use tokio::{sync::Mutex as AsyncMutex, time::sleep};

/// How often a pool is looked at while it is waited for: sqlx has no event for a connection that
/// came back.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// A sqlx pool that is opened, reset and closed with the invocations.
pub struct SqlPool<DB: Driver> {
    pool: Pool<DB>,
    login: Login<DB>,
    /// What the pool logs in with.
    attempt: AsyncMutex<Attempt<DB>>,
    target: String,
    acquire: Acquire,
    state: Arc<State>,
}

impl<DB: Driver> SqlPool<DB> {
    pub(super) fn pool(&self) -> &Pool<DB> {
        &self.pool
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
            let Some(fresh) = self.login.after_denial(&self.acquire, &attempt).await? else {
                return Err(error);
            };
            self.pool.set_connect_options(fresh.options.clone());
            *attempt = fresh;
        }
        Ok(())
    }

    /// What the pool opens in this invocation logs in with credentials that are fresh. Where they cannot
    /// be had, the old ones may still do.
    async fn keep_credentials_fresh(&self) {
        if !self.login.may_change() {
            return;
        }
        let mut attempt = self.attempt.lock().await;
        if Login::is_fresh(&attempt) {
            return;
        }
        match self.login.attempt(&self.acquire.restarted()).await {
            Ok(fresh) => {
                self.pool.set_connect_options(fresh.options.clone());
                *attempt = fresh;
            }
            Err(error) => tracing::warn!(%error, "the pool goes on with the credentials it has"),
        }
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
        let login = Login::<DB>::read(acquire)?;
        let attempt = login.attempt(acquire).await?;
        let options = attempt.options.clone();
        // sqlx takes the pool's patience once and for all: only what is closed with this invocation
        // may have it cut short by this invocation's deadline.
        let acquire = match settings.close {
            Close::Always => *acquire,
            _ => acquire.unclamped(),
        };
        let target = DB::target(&options);
        let state = Arc::new(State::new(settings));
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
                opened.one_more();
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
        let opened = Self {
            pool,
            login,
            attempt: AsyncMutex::new(attempt),
            target,
            acquire,
            state,
        };
        if opened.login.may_change() {
            opened.log_in().await?;
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
        connected.map_err(|error| {
            fault::symptom(&error)
                .and_then(|symptom| self.explain(symptom))
                .unwrap_or_else(|| fault::connecting::<DB>(acquire, &self.target, error))
        })?;
        self.is_quiet().await;
        Ok(())
    }

    async fn reset(&self, idle: Duration) -> Fitness {
        if self.pool.is_closed() || self.state.failure().is_some() {
            return Fitness::Unfit;
        }
        self.keep_credentials_fresh().await;
        if !idle.is_zero() {
            // Nobody else has it, and it was quiet when it was kept: nothing is being opened.
            self.state.all_live(self.pool.size());
        }
        self.state.paused(idle);
        Fitness::Fit
    }

    fn watch(&self) -> Option<BoxFuture<'_, ()>> {
        Some(Box::pin(self.find_out()))
    }

    fn explain(&self, symptom: Symptom) -> Option<Error> {
        self.diagnosis(symptom)
    }

    fn abandon(&self) {
        self.state.abandon();
    }

    fn closing(&self) {
        self.state.close();
    }

    async fn settle(&self) -> Fitness {
        self.is_quiet().await;
        // Where the pool has lost one connection, the others cannot be trusted either.
        if self.has_lost_one() {
            return Fitness::Unfit;
        }
        if self.state.settings.close != Close::Pressure {
            return Fitness::Fit;
        }
        let Some(mut connection) = self.pool.try_acquire() else {
            return Fitness::Fit;
        };
        let share = self.state.settings.share;
        let fitness = pressure::verdict::<DB>(&self.target, share, &mut connection).await;
        if fitness == Fitness::Unfit {
            drop(connection.detach());
        } else {
            drop(connection);
            self.is_quiet().await;
        }
        fitness
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
        Usage::new(open, open.saturating_sub(idle))
    }
}

impl<DB: Driver> fmt::Debug for SqlPool<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlPool")
            .field("target", &self.target)
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}
