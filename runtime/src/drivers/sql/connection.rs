//! One connection, from opening to closing.

pub(super) mod capacity;
pub(super) mod hedge;

use super::driver::Driver;
use crate::{resource::Health, util::clock::Stamp};
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

/// An open connection, counted while it exists. Dropping it closes its socket.
pub(super) struct OpenConnection<DB: Driver> {
    /// `None` only after [`close`](Self::close).
    raw: Option<DB::Connection>,
    session: DB::Session,
    session_state: DB::SessionState,
    /// Whether its session may be reset.
    resets: bool,
    /// The raw connection was used since the last reset: its errors were not observed.
    was_in_hand: bool,
    opened: Stamp,
    /// The pool's epoch in which it was opened.
    epoch: u64,
    open: Arc<AtomicU32>,
}

impl<DB: Driver> OpenConnection<DB> {
    pub(super) fn new(raw: DB::Connection, session: DB::Session, open: &Arc<AtomicU32>) -> Self {
        open.fetch_add(1, Ordering::AcqRel);
        Self {
            raw: Some(raw),
            session,
            session_state: DB::SessionState::default(),
            resets: true,
            was_in_hand: false,
            opened: Stamp::now(),
            epoch: 0,
            open: Arc::clone(open),
        }
    }

    /// Disables the reset, for a session shared with other clients: the reset would pin the session, or reset another
    /// one.
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
    pub(super) fn session_state(&mut self) -> &mut DB::SessionState {
        &mut self.session_state
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

    /// Whether this connection owns the session, rather than a pooler.
    pub(super) fn owns_session(&self) -> bool {
        self.resets
    }

    pub(super) async fn reset(&mut self, longest: Duration) -> Reset {
        match &mut self.raw {
            Some(raw) if self.resets => {
                let reset = reset::<DB>(raw, &mut self.session_state, longest).await;
                if let Some(session) = DB::identified(&self.session, &self.session_state) {
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

    /// Whether sqlx's prepared statements can still be used in a session that was just reset.
    pub(super) async fn revalidate(&mut self, longest: Duration) -> Validity {
        match &mut self.raw {
            Some(raw) if std::mem::take(&mut self.was_in_hand) => {
                revalidate::<DB>(raw, &mut self.session_state, longest).await
            }
            _ => Validity::Valid,
        }
    }

    /// The raw connection, which is no longer counted.
    pub(super) fn into_raw(mut self) -> Option<DB::Connection> {
        self.raw.take()
    }

    /// Closes the connection gracefully. An error means that the server closed it first.
    pub(super) async fn close(mut self) {
        if let Some(raw) = self.raw.take() {
            let _ = raw.close().await;
        }
    }
}

/// Whether nothing is on the wire, as far as that is known without waiting.
pub(super) fn is_quiet<DB: Driver>(connection: &mut DB::Connection) -> bool {
    // sqlx may panic when it is out of sync with the protocol (transact-rs/sqlx#2711).
    let drain = AssertUnwindSafe(|| DB::drain(connection).now_or_never());
    matches!(catch_unwind(drain), Ok(Some(Ok(()))))
}

/// Whether the server replies to everything sent within `longest`. It does for a rollback, but not for a dropped query.
pub(super) async fn becomes_quiet<DB: Driver>(
    connection: &mut DB::Connection,
    longest: Duration,
) -> bool {
    let draining = AssertUnwindSafe(DB::drain(connection)).catch_unwind();
    matches!(timeout(longest, draining).await, Ok(Ok(Ok(()))))
}

/// Whether the server replies to a ping within `longest`.
pub(super) async fn answers<DB: Driver>(
    connection: &mut DB::Connection,
    longest: Duration,
) -> bool {
    let pinging = AssertUnwindSafe(connection.ping()).catch_unwind();
    matches!(timeout(longest, pinging).await, Ok(Ok(Ok(()))))
}

/// Whether the server's reply to a probe is recognized within `longest`: nothing of an earlier statement is on the wire
/// then, and no transaction is open.
pub(super) async fn recognized<DB: Driver>(
    connection: &mut DB::Connection,
    longest: Duration,
) -> bool {
    if connection.is_in_transaction() {
        // A leaked transaction: sqlx would keep counting from its depth.
        return false;
    }
    let recognizing = AssertUnwindSafe(DB::recognize(connection)).catch_unwind();
    matches!(timeout(longest, recognizing).await, Ok(Ok(Ok(true))))
}

/// Like [`recognized`], and also reads the session's identity.
pub(super) async fn identified<DB: Driver>(
    connection: &mut DB::Connection,
    session_state: &mut DB::SessionState,
    longest: Duration,
) -> bool {
    if connection.is_in_transaction() {
        return false;
    }
    let identifying = AssertUnwindSafe(DB::identify(connection, session_state)).catch_unwind();
    matches!(timeout(longest, identifying).await, Ok(Ok(Ok(true))))
}

/// The result of a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reset {
    /// The session is reset, and the server's reply that confirms it was recognized.
    Clean,
    /// The session still has some state, or may have.
    Unfit,
    /// No reply was recognized: a statement may still run.
    Lost,
}

/// Resets the session within `longest`.
pub(super) async fn reset<DB: Driver>(
    connection: &mut DB::Connection,
    session_state: &mut DB::SessionState,
    longest: Duration,
) -> Reset {
    if connection.is_in_transaction() {
        // A leaked transaction: sqlx would keep counting from its depth.
        return Reset::Unfit;
    }
    let resetting = AssertUnwindSafe(DB::reset(connection, session_state)).catch_unwind();
    match timeout(longest, resetting).await {
        Ok(Ok(Ok(Health::Healthy))) => Reset::Clean,
        Ok(Ok(Ok(_))) => Reset::Unfit,
        _ => Reset::Lost,
    }
}

/// Whether sqlx's prepared statements can still be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Validity {
    /// The server accepts them, or sqlx has cleared them.
    Valid,
    /// They are outdated, and so may be those of other sessions.
    Outdated,
    /// The reply did not arrive, or was not recognized.
    Lost,
}

/// See [`Driver::revalidate`].
pub(super) async fn revalidate<DB: Driver>(
    connection: &mut DB::Connection,
    session_state: &mut DB::SessionState,
    longest: Duration,
) -> Validity {
    let revalidating = AssertUnwindSafe(DB::revalidate(connection, session_state)).catch_unwind();
    match timeout(longest, revalidating).await {
        Ok(Ok(Ok(Health::Healthy))) => Validity::Valid,
        Ok(Ok(Ok(_))) => Validity::Outdated,
        _ => Validity::Lost,
    }
}

/// Whether a session that was just reset can be reused: see [`Driver::renew`].
pub(super) async fn renew<DB: Driver>(connection: &mut DB::Connection, longest: Duration) -> bool {
    let renewing = AssertUnwindSafe(DB::renew(connection)).catch_unwind();
    matches!(
        timeout(longest, renewing).await,
        Ok(Ok(Ok(Health::Healthy)))
    )
}

impl<DB: Driver> Drop for OpenConnection<DB> {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<DB: Driver> Deref for OpenConnection<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        match &self.raw {
            Some(raw) => raw,
            None => unreachable!("emptied by `close` only, which consumes it"),
        }
    }
}

impl<DB: Driver> DerefMut for OpenConnection<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        match &mut self.raw {
            Some(raw) => raw,
            None => unreachable!("emptied by `close` only, which consumes it"),
        }
    }
}
