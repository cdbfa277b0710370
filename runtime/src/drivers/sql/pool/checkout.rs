//! A connection in somebody's hands, and the ways in which it leaves them.

use super::{Idle, Out, Pool};
use crate::{
    drivers::sql::{
        connection::Link,
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

/// A connection that somebody holds. Dropping it drops the connection's socket.
pub struct Checkout<DB: Driver> {
    /// Empty only when it is given back.
    pub(super) link: Option<Link<DB>>,
    number: u64,
    user: User,
    pool: Arc<Pool<DB>>,
    /// Something may run on the server although nothing is on its way: a `COPY`.
    pub(super) may_run: bool,
    /// Empty only when it is given back, or kept for what still runs.
    permit: Option<OwnedSemaphorePermit>,
}

impl<DB: Driver> Pool<DB> {
    pub(super) fn check_out(
        self: &Arc<Self>,
        user: User,
        link: Link<DB>,
        permit: OwnedSemaphorePermit,
    ) -> Checkout<DB> {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.out.push(Out {
            number,
            user,
            session: link.session().clone(),
        });
        drop(state);
        Checkout {
            link: Some(link),
            number,
            user,
            pool: Arc::clone(self),
            may_run: false,
            permit: Some(permit),
        }
    }
}

/// What is known of a connection that is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    /// Every reply has been read, and the session has been reset.
    Reset,
    /// Every reply has been read.
    Read,
    /// The rest of a reply may still be on its way.
    Unsettled,
    /// Its user had the connection itself.
    InHand,
}

impl<DB: Driver> Checkout<DB> {
    pub(super) fn user(&self) -> User {
        self.user
    }

    /// How long one reply may take where it is bound to take no longer than `bound` nearby.
    pub(in crate::drivers::sql) fn reply_within(&self, bound: Duration) -> Duration {
        self.pool.reply_within(bound)
    }

    /// Back for the next invocation: its session has been reset.
    pub(in crate::drivers::sql) fn give_back(self) {
        self.give_back_as(Given::Reset);
    }

    /// Back for the next statement of the same invocation, after one that has been answered.
    pub(in crate::drivers::sql) fn answered(self) {
        self.give_back_as(Given::Read);
    }

    /// Whether nothing of a reply is on its way, as far as that can be told without waiting.
    pub(in crate::drivers::sql) fn is_quiet(&mut self) -> bool {
        self.link.as_mut().is_some_and(Link::is_quiet)
    }

    /// Back after a statement that the server has refused: the rest of the reply may still be on its way.
    pub(in crate::drivers::sql) fn refused(mut self) {
        let quiet = self.is_quiet();
        self.give_back_as(if quiet { Given::Read } else { Given::Unsettled });
    }

    /// Back from a user who had the connection itself: it is used again only after a reply has been
    /// recognized.
    pub(in crate::drivers::sql) fn in_hand(self) {
        self.give_back_as(Given::InHand);
    }

    fn give_back_as(mut self, given: Given) {
        let Some(mut link) = self.link.take() else {
            return;
        };
        // A rollback that a dropped transaction has queued goes out now.
        let unsettled = match given {
            Given::Reset | Given::Read => false,
            Given::Unsettled => true,
            Given::InHand => {
                link.was_in_hand();
                !link.is_quiet()
            }
        };
        let mut state = self.pool.lock();
        state.out.retain(|out| out.number != self.number);
        let is_over = state.closed
            || link.epoch() < state.epoch
            || !matches!(state.users.phase(self.user), Some(Phase::Running | Phase::Over))
                // Its session was reset by somebody else's cleanup.
                && given != Given::Reset;
        if is_over {
            drop(state);
            self.abandon(link, unsettled);
        } else {
            let owner = (given != Given::Reset).then_some(self.user);
            state.idle.push(Idle {
                link,
                since: Stamp::now(),
                owner,
                unsettled,
                unrecognized: given == Given::InHand,
            });
        }
        // The permit goes with `self`: whoever waits for it finds the connection back.
    }

    /// Drops a connection. What may still run on it keeps its place until it is cancelled.
    fn abandon(&mut self, link: Link<DB>, may_run: bool) {
        let permit = self.permit.take();
        if may_run {
            self.pool
                .add_orphan(link.session().clone(), self.user, permit);
            self.pool.discard(link, None);
        } else {
            self.pool.discard(link, permit);
        }
    }

    /// How the session is found again on the server.
    #[cfg(feature = "postgres")]
    pub(in crate::drivers::sql) fn session(&self) -> &DB::Session {
        match &self.link {
            Some(link) => link.session(),
            None => unreachable!("emptied with the checkout itself"),
        }
    }

    /// What is known about the session.
    #[cfg(feature = "postgres")]
    pub(in crate::drivers::sql) fn memory(&mut self) -> &mut DB::Memory {
        match &mut self.link {
            Some(link) => link.memory(),
            None => unreachable!("emptied with the checkout itself"),
        }
    }

    /// Of no more use, and whatever it may be doing is not to be stopped on the server.
    pub(in crate::drivers::sql) fn leave(mut self) {
        if let Some(link) = self.link.take() {
            self.pool.discard(link, self.permit.take());
        }
    }

    /// Of no more use, like everything that was opened before now.
    pub(in crate::drivers::sql) fn outdated(self) {
        self.pool.outdated();
        self.leave();
    }

    /// Another connection in the place of this one, which is dead.
    pub(super) fn replace(&mut self, fresh: Link<DB>) {
        let mut state = self.pool.lock();
        if let Some(out) = state.out.iter_mut().find(|out| out.number == self.number) {
            out.session = fresh.session().clone();
        }
        drop(state);
        if let Some(dead) = self.link.replace(fresh) {
            self.pool.discard(dead, None);
        }
        self.may_run = false;
    }

    /// Says goodbye to the server. Its place is taken until then.
    pub(super) async fn close(mut self) {
        if let Some(link) = self.link.take() {
            link.close().await;
        }
    }
}

impl<DB: Driver> Drop for Checkout<DB> {
    fn drop(&mut self) {
        let link = self.link.take();
        let mut state = self.pool.lock();
        state.out.retain(|out| out.number != self.number);
        drop(state);
        if let Some(mut link) = link {
            let may_run = self.may_run || !link.is_quiet();
            self.abandon(link, may_run);
        }
        drop(self.permit.take());
        self.pool.returned.notify_waiters();
    }
}

impl<DB: Driver> Deref for Checkout<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        match &self.link {
            Some(link) => link,
            None => unreachable!("emptied with the checkout itself"),
        }
    }
}

impl<DB: Driver> DerefMut for Checkout<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        match &mut self.link {
            Some(link) => link,
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
