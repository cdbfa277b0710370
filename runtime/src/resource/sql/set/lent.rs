//! A connection in somebody's hands, and the ways in which it leaves them.

use super::{Idle, Out, Phase, Set};
use crate::{
    clock::Stamp,
    resource::sql::{driver::Driver, link::Link},
};
use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
};
use tokio::sync::OwnedSemaphorePermit;

/// A connection that somebody holds. Dropping it drops the connection's socket.
pub struct Lent<DB: Driver> {
    /// Empty only when it is given back.
    pub(super) link: Option<Link<DB>>,
    number: u64,
    set: Arc<Set<DB>>,
    /// Goes last: whoever waits for it finds the connection back.
    _permit: OwnedSemaphorePermit,
}

impl<DB: Driver> Set<DB> {
    pub(super) fn lend(self: &Arc<Self>, link: Link<DB>, permit: OwnedSemaphorePermit) -> Lent<DB> {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.out.push(Out {
            number,
            session: link.session().clone(),
        });
        drop(state);
        Lent {
            link: Some(link),
            number,
            set: Arc::clone(self),
            _permit: permit,
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

impl<DB: Driver> Lent<DB> {
    /// Back for the next user: every statement has been answered.
    pub(in crate::resource::sql) fn give_back(self) {
        self.give_back_as(Given::Reset);
    }

    /// Back for the next user of the same invocation, after a statement that has been answered.
    pub(in crate::resource::sql) fn answered(self) {
        self.give_back_as(Given::Read);
    }

    /// Whether nothing of a reply is on its way, as far as that can be told without waiting.
    pub(in crate::resource::sql) fn is_quiet(&mut self) -> bool {
        self.link.as_mut().is_some_and(Link::is_quiet)
    }

    /// Back after a statement that the server has refused: the rest of the reply may still be on its way.
    pub(in crate::resource::sql) fn refused(mut self) {
        let quiet = self.is_quiet();
        self.give_back_as(if quiet { Given::Read } else { Given::Unsettled });
    }

    /// Back from a user who had the connection itself: it is used again only after a reply has been
    /// recognized.
    pub(in crate::resource::sql) fn in_hand(self) {
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
            Given::InHand => !link.is_quiet(),
        };
        let idle = Idle {
            link,
            since: Stamp::now(),
            unsettled,
            unrecognized: given == Given::InHand,
            used: given != Given::Reset,
        };
        let mut state = self.set.lock();
        state.out.retain(|out| out.number != self.number);
        if state.phase == Phase::Ended {
            if unsettled {
                state.strays.push(idle.link.session().clone());
            }
            drop(state);
            self.set.let_go(idle.link);
        } else {
            state.idle.push(idle);
        }
    }

    /// How the session is found again on the server.
    #[cfg(feature = "postgres")]
    pub(in crate::resource::sql) fn session(&self) -> &DB::Session {
        match &self.link {
            Some(link) => link.session(),
            None => unreachable!("emptied with the loan itself"),
        }
    }

    /// What is known about the session.
    #[cfg(feature = "postgres")]
    pub(in crate::resource::sql) fn memory(&mut self) -> &mut DB::Memory {
        match &mut self.link {
            Some(link) => link.memory(),
            None => unreachable!("emptied with the loan itself"),
        }
    }

    /// Of no more use, and whatever it may be doing is not to be stopped on the server.
    #[cfg(feature = "postgres")]
    pub(in crate::resource::sql) fn leave(self) {
        let set = Arc::clone(&self.set);
        set.let_go(self.into_link());
    }

    /// Of no more use, like everything that was opened with it.
    pub(in crate::resource::sql) fn outdated(self) {
        let set = Arc::clone(&self.set);
        set.outdated();
        set.let_go(self.into_link());
    }

    /// The connection, which goes its own way.
    pub(super) fn into_link(mut self) -> Link<DB> {
        match self.link.take() {
            Some(link) => link,
            None => unreachable!("emptied with the loan itself"),
        }
    }
}

impl<DB: Driver> Drop for Lent<DB> {
    fn drop(&mut self) {
        let link = self.link.take();
        let mut state = self.set.lock();
        state.out.retain(|out| out.number != self.number);
        drop(state);
        let Some(mut link) = link else { return };
        if !link.is_quiet() {
            self.set.stray(&link);
        }
        self.set.let_go(link);
    }
}

impl<DB: Driver> Deref for Lent<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        match &self.link {
            Some(link) => link,
            None => unreachable!("emptied with the loan itself"),
        }
    }
}

impl<DB: Driver> DerefMut for Lent<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        match &mut self.link {
            Some(link) => link,
            None => unreachable!("emptied with the loan itself"),
        }
    }
}

impl<DB: Driver> fmt::Debug for Lent<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent")
            .field("connection", &DB::CONNECTION)
            .finish_non_exhaustive()
    }
}
