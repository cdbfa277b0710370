//! A checked-out connection, and the ways to release it.

use super::{Idle, Out, Pool};
use crate::{
    drivers::sql::{
        connection::OpenConnection,
        driver::Driver,
        users::{Phase, User},
    },
    util::clock::Stamp,
};
use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};
use tokio::sync::OwnedSemaphorePermit;

/// A checked-out connection. Dropping it closes the connection's socket.
pub struct Checkout<DB: Driver> {
    /// `None` only while it is released.
    pub(super) connection: Option<OpenConnection<DB>>,
    number: u64,
    user: User,
    pool: Arc<Pool<DB>>,
    /// A statement may run on the server although nothing is on the wire: a `COPY`.
    pub(super) may_run: bool,
    /// `None` only while it is released, or if an orphaned query keeps it.
    permit: Option<OwnedSemaphorePermit>,
}

impl<DB: Driver> Pool<DB> {
    pub(super) fn check_out(
        self: &Arc<Self>,
        user: User,
        connection: OpenConnection<DB>,
        permit: OwnedSemaphorePermit,
    ) -> Checkout<DB> {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.out.push(Out {
            number,
            user,
            session: connection.session().clone(),
        });
        drop(state);
        Checkout {
            connection: Some(connection),
            number,
            user,
            pool: Arc::clone(self),
            may_run: false,
            permit: Some(permit),
        }
    }
}

/// The state of a released connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    /// Every reply has been read, and the session has been reset.
    Reset,
    /// Every reply has been read.
    Read,
    /// The rest of a reply may still be on the wire.
    Unsettled,
    /// The user had the raw connection.
    InHand,
}

impl<DB: Driver> Checkout<DB> {
    pub(super) fn user(&self) -> User {
        self.user
    }

    /// The timeout for one reply: `bound` for a nearby server, more for a distant one.
    pub(in crate::drivers::sql) fn reply_within(&self, bound: Duration) -> Duration {
        self.pool.reply_within(bound)
    }

    /// Releases the connection to the next invocation: its session has been reset.
    pub(in crate::drivers::sql) fn give_back(self) {
        self.give_back_as(Given::Reset);
    }

    /// Releases the connection after a statement whose reply has been read.
    pub(in crate::drivers::sql) fn responded(self) {
        self.give_back_as(Given::Read);
    }

    /// Whether nothing is on the wire, as far as that is known without waiting.
    pub(in crate::drivers::sql) fn is_quiet(&mut self) -> bool {
        self.connection
            .as_mut()
            .is_some_and(OpenConnection::is_quiet)
    }

    /// Releases the connection after a statement that the server rejected: the rest of the reply may still be on the
    /// wire.
    pub(in crate::drivers::sql) fn refused(mut self) {
        let quiet = self.is_quiet();
        self.give_back_as(if quiet { Given::Read } else { Given::Unsettled });
    }

    /// Releases the connection after use of the raw connection. It is reused only after a reply has been recognized.
    pub(in crate::drivers::sql) fn in_hand(self) {
        self.give_back_as(Given::InHand);
    }

    fn give_back_as(mut self, given: Given) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        // This also sends the queued rollback of a dropped transaction.
        let dirty = match given {
            Given::Reset | Given::Read => false,
            Given::Unsettled => true,
            Given::InHand => {
                connection.was_in_hand();
                !connection.is_quiet()
            }
        };
        let mut state = self.pool.lock();
        state.out.retain(|out| out.number != self.number);
        let is_over = state.closed
            || connection.epoch() < state.epoch
            || !matches!(state.users.phase(self.user), Some(Phase::Running | Phase::Over))
                // Another invocation's cleanup has reset its session.
                && given != Given::Reset;
        if is_over {
            drop(state);
            self.discard(connection, dirty);
        } else {
            let owner = (given != Given::Reset).then_some(self.user);
            state.idle.push(Idle {
                connection,
                since: Stamp::now(),
                owner,
                dirty,
                unrecognized: given == Given::InHand,
            });
        }
        // The permit is dropped with `self`: an acquire that waits for it finds the connection.
    }

    /// Drops a connection. A statement that may still run on it keeps the permit until it is cancelled.
    fn discard(&mut self, connection: OpenConnection<DB>, may_run: bool) {
        let permit = self.permit.take();
        if may_run {
            self.pool
                .add_orphan(connection.session().clone(), self.user, permit);
            self.pool.discard(connection, None);
        } else {
            self.pool.discard(connection, permit);
        }
    }

    /// The session's identity on the server.
    #[cfg(feature = "postgres")]
    pub(in crate::drivers::sql) fn session(&self) -> &DB::Session {
        match &self.connection {
            Some(connection) => connection.session(),
            None => unreachable!("emptied with the checkout itself"),
        }
    }

    /// What is known about the session.
    #[cfg(feature = "postgres")]
    pub(in crate::drivers::sql) fn session_state(&mut self) -> &mut DB::SessionState {
        match &mut self.connection {
            Some(connection) => connection.session_state(),
            None => unreachable!("emptied with the checkout itself"),
        }
    }

    /// Discards the connection. A statement that may run on it is not cancelled.
    pub(in crate::drivers::sql) fn leave(mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.discard(connection, self.permit.take());
        }
    }

    /// Discards this connection, and retires all others that are open.
    pub(in crate::drivers::sql) fn outdated(self) {
        self.pool.outdated();
        self.leave();
    }

    /// Replaces a dead connection by a new one.
    pub(super) fn replace(&mut self, fresh: OpenConnection<DB>) {
        let mut state = self.pool.lock();
        if let Some(out) = state.out.iter_mut().find(|out| out.number == self.number) {
            out.session = fresh.session().clone();
        }
        drop(state);
        if let Some(dead) = self.connection.replace(fresh) {
            self.pool.discard(dead, None);
        }
        self.may_run = false;
    }

    /// Closes the connection gracefully, and keeps its permit until then.
    pub(super) async fn close(mut self) {
        if let Some(connection) = self.connection.take() {
            connection.close().await;
        }
    }
}

impl<DB: Driver> Drop for Checkout<DB> {
    fn drop(&mut self) {
        let connection = self.connection.take();
        let mut state = self.pool.lock();
        state.out.retain(|out| out.number != self.number);
        drop(state);
        if let Some(mut connection) = connection {
            let may_run = self.may_run || !connection.is_quiet();
            self.discard(connection, may_run);
        }
        drop(self.permit.take());
        self.pool.returned.notify_waiters();
    }
}

impl<DB: Driver> Deref for Checkout<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        match &self.connection {
            Some(connection) => connection,
            None => unreachable!("emptied with the checkout itself"),
        }
    }
}

impl<DB: Driver> DerefMut for Checkout<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        match &mut self.connection {
            Some(connection) => connection,
            None => unreachable!("emptied with the checkout itself"),
        }
    }
}

impl<DB: Driver> fmt::Debug for Checkout<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkout")
            .field("connection", &DB::CONNECTION)
            .finish_non_exhaustive()
    }
}
