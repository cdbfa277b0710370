//! What a pool's hooks and the lifecycle tell each other.

use crate::{config::Settings, error::Error, lock::lock, resource::sql::Driver};
use sqlx::{Connection, pool::PoolConnectionMetadata};
use std::{
    io,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// See the module.
pub(super) struct State {
    pub(super) settings: Settings,
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
    /// Somebody is asking the server why a connection takes so long.
    pub(super) asking: AtomicBool,
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

/// What can keep a handler waiting for a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitingFor {
    /// A connection is being opened.
    Opening,
    /// Every connection is in use.
    Return,
}

impl State {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            live: AtomicU32::new(0),
            lost: AtomicBool::new(false),
            waiting_for: Mutex::new(None),
            abandoned: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            thaw: Mutex::new(Thaw {
                at: Instant::now(),
                idle: Duration::ZERO,
            }),
            asking: AtomicBool::new(false),
            reason: Mutex::new(None),
            failure: Mutex::new(None),
        }
    }

    pub(super) fn one_more(&self) {
        self.live.fetch_add(1, Ordering::AcqRel);
    }

    fn one_less(&self) {
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

    pub(super) fn fail(&self, why: Error) {
        *lock(&self.failure) = Some(why);
    }

    pub(super) fn reason(&self) -> Option<Error> {
        lock(&self.reason).clone()
    }

    pub(super) fn may_pass(&self, reason: Option<Error>) {
        *lock(&self.reason) = reason;
    }

    /// Before a kept connection is handed out: an error makes the pool open another one instead,
    /// within the same acquire.
    pub(super) async fn check<DB: Driver>(
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
            self.one_less();
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
    pub(super) fn may_return(&self) -> Result<bool, sqlx::Error> {
        let verdict = if self.abandoned.load(Ordering::Acquire) {
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
