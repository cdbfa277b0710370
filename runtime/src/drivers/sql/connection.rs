//! One connection, from its opening to its end.

pub(super) mod capacity;
pub(super) mod hedge;

use super::driver::Driver;
use crate::{resource::Fitness, util::clock::Stamp};
use futures_util::FutureExt;
use sqlx::Connection;
use std::{
    ops::{Deref, DerefMut},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::time::timeout;

/// A connection, counted for as long as it exists. Dropping it drops its socket.
pub(super) struct Link<DB: Driver> {
    /// Empty only after [`close`](Self::close).
    raw: Option<DB::Connection>,
    session: DB::Session,
    memory: DB::Memory,
    /// Whether its session may be told to forget what it was used for.
    resets: bool,
    /// Somebody had the connection itself since its session was reset: its errors were not seen.
    was_in_hand: bool,
    opened: Stamp,
    /// The pool's epoch in which it was opened.
    epoch: u64,
    open: Arc<AtomicU32>,
}

impl<DB: Driver> Link<DB> {
    pub(super) fn new(raw: DB::Connection, session: DB::Session, open: &Arc<AtomicU32>) -> Self {
        open.fetch_add(1, Ordering::AcqRel);
        Self {
            raw: Some(raw),
            session,
            memory: DB::Memory::default(),
            resets: true,
            was_in_hand: false,
            opened: Stamp::now(),
            epoch: 0,
            open: Arc::clone(open),
        }
    }

    /// The same on a session that is not ours alone: what undoes something there pins it, or undoes it on
    /// another one.
    pub(super) fn without_reset(mut self) -> Self {
        self.resets = false;
        self
    }

    pub(super) fn of_epoch(mut self, epoch: u64) -> Self {
        self.epoch = epoch;
        self
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What is known about the session.
    pub(super) fn memory(&mut self) -> &mut DB::Memory {
        &mut self.memory
    }

    pub(super) fn session(&self) -> &DB::Session {
        &self.session
    }

    pub(super) fn age(&self, now: Stamp) -> Duration {
        now.since(self.opened)
    }

    pub(super) fn is_quiet(&mut self) -> bool {
        is_quiet::<DB>(self)
    }

    pub(super) async fn becomes_quiet(&mut self, longest: Duration) -> bool {
        becomes_quiet::<DB>(self, longest).await
    }

    pub(super) async fn answers(&mut self, longest: Duration) -> bool {
        answers::<DB>(self, longest).await
    }

    pub(super) async fn recognized(&mut self, longest: Duration) -> bool {
        recognized::<DB>(self, longest).await
    }

    /// Whether the session is this connection's alone, and not a pooler's.
    pub(super) fn owns_session(&self) -> bool {
        self.resets
    }

    pub(super) async fn reset(&mut self, longest: Duration) -> Reset {
        match &mut self.raw {
            Some(raw) if self.resets => {
                let reset = reset::<DB>(raw, &mut self.memory, longest).await;
                if let Some(session) = DB::identified(&self.session, &self.memory) {
                    self.session = session;
                }
                reset
            }
            _ => Reset::Unfit,
        }
    }

    pub(super) fn was_in_hand(&mut self) {
        self.was_in_hand = true;
    }

    /// Whether what sqlx has prepared in a session that was just reset can go on being used.
    pub(super) async fn revalidate(&mut self, longest: Duration) -> bool {
        match &mut self.raw {
            Some(raw) if std::mem::take(&mut self.was_in_hand) => {
                revalidate::<DB>(raw, &mut self.memory, longest).await
            }
            _ => true,
        }
    }

    /// The bare connection, which is counted no more.
    pub(super) fn into_raw(mut self) -> Option<DB::Connection> {
        self.raw.take()
    }

    /// Says goodbye to the server. An error means that the server has gone first.
    pub(super) async fn close(mut self) {
        if let Some(raw) = self.raw.take() {
            let _ = raw.close().await;
        }
    }
}

/// Whether nothing is on its way, as far as that can be told without waiting.
pub(super) fn is_quiet<DB: Driver>(connection: &mut DB::Connection) -> bool {
    // What sqlx finds where it has lost its place in the protocol may panic (transact-rs/sqlx#2711).
    let drain = AssertUnwindSafe(|| DB::drain(connection).now_or_never());
    matches!(catch_unwind(drain), Ok(Some(Ok(()))))
}

/// Whether everything that was sent is answered within `longest`: a rollback is, a query that was given
/// up is not.
pub(super) async fn becomes_quiet<DB: Driver>(
    connection: &mut DB::Connection,
    longest: Duration,
) -> bool {
    let draining = AssertUnwindSafe(DB::drain(connection)).catch_unwind();
    matches!(timeout(longest, draining).await, Ok(Ok(Ok(()))))
}

/// Whether the server answers within `longest`.
pub(super) async fn answers<DB: Driver>(
    connection: &mut DB::Connection,
    longest: Duration,
) -> bool {
    let pinging = AssertUnwindSafe(connection.ping()).catch_unwind();
    matches!(timeout(longest, pinging).await, Ok(Ok(Ok(()))))
}

/// Whether the server's reply to a question of ours is recognized within `longest`: then nothing of an earlier
/// statement is on its way any more, and no transaction is open.
pub(super) async fn recognized<DB: Driver>(
    connection: &mut DB::Connection,
    longest: Duration,
) -> bool {
    if connection.is_in_transaction() {
        // A transaction that was leaked: sqlx would go on counting from there.
        return false;
    }
    let recognizing = AssertUnwindSafe(DB::recognize(connection)).catch_unwind();
    matches!(timeout(longest, recognizing).await, Ok(Ok(Ok(true))))
}

/// The same, which learns by what the session can be identified.
pub(super) async fn identified<DB: Driver>(
    connection: &mut DB::Connection,
    memory: &mut DB::Memory,
    longest: Duration,
) -> bool {
    if connection.is_in_transaction() {
        return false;
    }
    let identifying = AssertUnwindSafe(DB::identify(connection, memory)).catch_unwind();
    matches!(timeout(longest, identifying).await, Ok(Ok(Ok(true))))
}

/// What came of a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reset {
    /// The session is as good as new, and the server's reply that says so was recognized.
    Clean,
    /// Something is left in the session, or may be.
    Unfit,
    /// No reply that was recognized: something may still run.
    Lost,
}

/// Undoes within `longest` what the session was used for.
pub(super) async fn reset<DB: Driver>(
    connection: &mut DB::Connection,
    memory: &mut DB::Memory,
    longest: Duration,
) -> Reset {
    if connection.is_in_transaction() {
        // A transaction that was leaked: sqlx would go on counting from there.
        return Reset::Unfit;
    }
    let resetting = AssertUnwindSafe(DB::reset(connection, memory)).catch_unwind();
    match timeout(longest, resetting).await {
        Ok(Ok(Ok(Fitness::Fit))) => Reset::Clean,
        Ok(Ok(Ok(_))) => Reset::Unfit,
        _ => Reset::Lost,
    }
}

/// See [`Driver::revalidate`]. `false` if that did not come to its end.
pub(super) async fn revalidate<DB: Driver>(
    connection: &mut DB::Connection,
    memory: &mut DB::Memory,
    longest: Duration,
) -> bool {
    let revalidating = AssertUnwindSafe(DB::revalidate(connection, memory)).catch_unwind();
    matches!(timeout(longest, revalidating).await, Ok(Ok(Ok(()))))
}

/// Whether a session that was just reset is of use to anybody: see [`Driver::renew`].
pub(super) async fn renew<DB: Driver>(connection: &mut DB::Connection, longest: Duration) -> bool {
    let renewing = AssertUnwindSafe(DB::renew(connection)).catch_unwind();
    matches!(timeout(longest, renewing).await, Ok(Ok(Ok(Fitness::Fit))))
}

impl<DB: Driver> Drop for Link<DB> {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<DB: Driver> Deref for Link<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        match &self.raw {
            Some(raw) => raw,
            None => unreachable!("emptied by `close` only, which consumes it"),
        }
    }
}

impl<DB: Driver> DerefMut for Link<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        match &mut self.raw {
            Some(raw) => raw,
            None => unreachable!("emptied by `close` only, which consumes it"),
        }
    }
}
