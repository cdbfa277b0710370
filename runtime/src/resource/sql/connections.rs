//! A bounded set of connections without tasks, timers or pings of its own: what `&mut PgConnection`
//! and its siblings are taken from.

use super::{driver::Driver, fault, login::Login, pressure, retry::Retry};
use crate::{
    clock::Stamp,
    config::{Close, Defaults, Settings},
    error::{Error, ErrorKind},
    lock::lock,
    resource::{Acquire, Fate, Fitness, Resource, Usage},
};
use sqlx::{ConnectOptions, Connection};
use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout, timeout_at},
};

/// Up to `max` connections, each lent to one invocation at a time.
pub struct Connections<DB: Driver> {
    login: Login<DB>,
    settings: Settings,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Idle<DB>>>,
    open: Arc<AtomicU32>,
    /// Nothing that comes back is kept any more.
    abandoned: AtomicBool,
    /// A connection has been lost: the others cannot be trusted either.
    lost: AtomicBool,
}

/// A connection that nobody holds.
struct Idle<DB: Driver> {
    connection: Counted<DB>,
    since: Stamp,
}

/// A connection, counted for as long as it exists.
struct Counted<DB: Driver> {
    /// Empty only after [`close`](Self::close).
    raw: Option<DB::Connection>,
    opened: Stamp,
    open: Arc<AtomicU32>,
}

/// A connection that one invocation holds. Dropping it drops the connection's socket.
pub struct Loan<DB: Driver> {
    connection: Counted<DB>,
    permit: OwnedSemaphorePermit,
}

impl<DB: Driver> Connections<DB> {
    /// Takes a connection: an idle one that is alive, or a new one.
    pub(super) async fn take(&self, acquire: &Acquire) -> Result<Loan<DB>, Error> {
        let waiting = Arc::clone(&self.permits).acquire_owned();
        // The semaphore is never closed: only the wait can end without a permit.
        let Ok(Ok(permit)) = timeout_at(acquire.until(), waiting).await else {
            return Err(fault::all_in_use(acquire));
        };
        if let Some(idle) = self.pop_idle() {
            if let Some(connection) = self.revive(idle).await {
                return Ok(Loan { connection, permit });
            }
            // The others have idled for longer still: what ended this one has ended them.
            self.lock_idle().clear();
        }
        let connection = self.open(acquire).await?;
        Ok(Loan { connection, permit })
    }

    /// Puts a connection back.
    pub(super) async fn put_back(&self, loan: Loan<DB>, fate: Fate) {
        // The permit goes last: whoever waits for it finds the connection put back.
        let Loan {
            mut connection,
            permit: _permit,
        } = loan;
        let abandoned = self.abandoned.load(Ordering::Acquire);
        match fate {
            Fate::Kept if !abandoned => {
                // A rollback that `Transaction`'s drop has only queued goes out with this ping, and
                // a query that was given up is waited for: what does not answer in time is in no
                // state to be kept.
                if is_alive(&mut connection, self.settings.ping).await {
                    self.push_idle(connection);
                } else {
                    self.lost.store(true, Ordering::Release);
                }
            }
            Fate::Closed if !abandoned => connection.close().await,
            Fate::Kept | Fate::Closed | Fate::Discarded => drop(connection),
        }
    }

    async fn open(&self, acquire: &Acquire) -> Result<Counted<DB>, Error> {
        let mut retry = Retry::new(acquire.until());
        let mut turned_away = None;
        loop {
            let dialled = self
                .login
                .connect(acquire, |options| Box::pin(options.connect()));
            let denied = match dialled.await {
                Ok(raw) => return Ok(Counted::new(raw, &self.open)),
                Err(denied) => denied,
            };
            if !denied.for_lack_of_room {
                // A last try that ran out of time knows less than the one before.
                let is_late = denied.why.kind() == ErrorKind::ConnectTimeout;
                let why = turned_away.filter(|_| is_late).unwrap_or(denied.why);
                return Err(retry.told(why));
            }
            match retry.next_wait() {
                Some(wait) => {
                    sleep(wait).await;
                    // Somebody else in this process may have finished with theirs.
                    if let Some(idle) = self.pop_idle()
                        && let Some(connection) = self.revive(idle).await
                    {
                        return Ok(connection);
                    }
                }
                None => return Err(retry.told(denied.why)),
            }
            turned_away = Some(denied.why);
        }
    }

    /// The connection, if it is young enough and alive.
    async fn revive(&self, idle: Idle<DB>) -> Option<Counted<DB>> {
        let Idle {
            mut connection,
            since,
        } = idle;
        let now = Stamp::now();
        let idle_for = now.since(since);
        let age = now.since(connection.opened);
        if idle_for > self.settings.idle
            || self.settings.lifetime.is_some_and(|longest| age > longest)
        {
            return None;
        }
        if idle_for <= self.settings.trust {
            return Some(connection);
        }
        is_alive(&mut connection, self.settings.ping)
            .await
            .then_some(connection)
    }

    fn pop_idle(&self) -> Option<Idle<DB>> {
        self.lock_idle().pop()
    }

    fn push_idle(&self, connection: Counted<DB>) {
        self.lock_idle().push(Idle {
            connection,
            since: Stamp::now(),
        });
    }

    fn lock_idle(&self) -> MutexGuard<'_, Vec<Idle<DB>>> {
        lock(&self.idle)
    }
}

impl<DB: Driver> Resource for Connections<DB> {
    const NAME: &'static str = DB::CONNECTION;
    const DEFAULTS: Defaults = Defaults::SQL;

    async fn open(acquire: &Acquire) -> Result<Self, Error> {
        let settings = *acquire.settings();
        Ok(Self {
            login: Login::read(acquire)?,
            settings,
            permits: Arc::new(Semaphore::new(settings.max as usize)),
            idle: Mutex::default(),
            open: Arc::default(),
            abandoned: AtomicBool::new(false),
            lost: AtomicBool::new(false),
        })
    }

    async fn connect(&self, acquire: &Acquire) -> Result<(), Error> {
        let wanted = self.settings.min.max(1);
        for _ in 0..wanted {
            let connection = Self::open(self, acquire).await?;
            self.push_idle(connection);
        }
        Ok(())
    }

    fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.lock_idle().clear();
    }

    async fn settle(&self) -> Fitness {
        // Every loan has been put back by the lifecycle itself.
        if self.lost.load(Ordering::Acquire) {
            return Fitness::Unfit;
        }
        if self.settings.close != Close::Pressure {
            return Fitness::Fit;
        }
        let Some(mut idle) = self.pop_idle() else {
            return Fitness::Fit;
        };
        let (place, share) = (self.login.place(), self.settings.share);
        let fitness = pressure::verdict::<DB>(&place, share, &mut idle.connection).await;
        // What has not answered is dropped.
        if fitness != Fitness::Unfit {
            self.push_idle(idle.connection);
        }
        fitness
    }

    async fn close(&self) {
        self.abandoned.store(true, Ordering::Release);
        while let Some(Idle { connection, .. }) = self.pop_idle() {
            connection.close().await;
        }
    }

    fn usage(&self) -> Usage {
        let free = u32::try_from(self.permits.available_permits()).unwrap_or(u32::MAX);
        Usage {
            open: self.open.load(Ordering::Acquire),
            in_use: self.settings.max.saturating_sub(free),
        }
    }
}

async fn is_alive<DB: Driver>(connection: &mut Counted<DB>, within: Duration) -> bool {
    matches!(timeout(within, connection.ping()).await, Ok(Ok(())))
}

impl<DB: Driver> Counted<DB> {
    fn new(raw: DB::Connection, open: &Arc<AtomicU32>) -> Self {
        open.fetch_add(1, Ordering::AcqRel);
        Self {
            raw: Some(raw),
            opened: Stamp::now(),
            open: Arc::clone(open),
        }
    }

    /// Says goodbye to the server. An error means that the server has gone first.
    async fn close(mut self) {
        if let Some(raw) = self.raw.take() {
            let _ = raw.close().await;
        }
    }
}

impl<DB: Driver> Drop for Counted<DB> {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<DB: Driver> Deref for Counted<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        match &self.raw {
            Some(raw) => raw,
            None => unreachable!("emptied by `close` only, which consumes it"),
        }
    }
}

impl<DB: Driver> DerefMut for Counted<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        match &mut self.raw {
            Some(raw) => raw,
            None => unreachable!("emptied by `close` only, which consumes it"),
        }
    }
}

impl<DB: Driver> Deref for Loan<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        &self.connection
    }
}

impl<DB: Driver> DerefMut for Loan<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        &mut self.connection
    }
}

impl<DB: Driver> fmt::Debug for Connections<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("target", &self.login.place())
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}

impl<DB: Driver> fmt::Debug for Loan<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan")
            .field("connection", &DB::CONNECTION)
            .finish_non_exhaustive()
    }
}

/// Lends `&mut $connection` from the [`Connections`] of its database.
macro_rules! lend_connection {
    ($connection:ty, $database:ty) => {
        impl crate::resource::Exclusive for $connection {
            type Resource = crate::resource::sql::Connections<$database>;
            type Loan = crate::resource::sql::Loan<$database>;

            async fn take(
                connections: &Self::Resource,
                acquire: &crate::resource::Acquire,
            ) -> Result<Self::Loan, crate::Error> {
                connections.take(acquire).await
            }

            async fn put_back(
                connections: &Self::Resource,
                loan: Self::Loan,
                fate: crate::resource::Fate,
            ) {
                connections.put_back(loan, fate).await;
            }
        }
    };
}

pub(super) use lend_connection;
