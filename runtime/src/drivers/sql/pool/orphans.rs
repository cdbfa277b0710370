//! Orphaned queries: each keeps its permit until it is cancelled.

use super::Pool;
use crate::{
    drivers::sql::{driver::Driver, users::User},
    resource::AcquireContext,
};
use std::{pin::pin, sync::Arc};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

/// How many times cancelling a query may fail.
const TRIES: u32 = 2;

/// A query that was dropped, and may still run on the server.
pub(super) struct Orphan<DB: Driver> {
    number: u64,
    session: DB::Session,
    user: User,
    failures: u32,
    /// The number of tasks that are cancelling it now.
    cancelling: u32,
    _permit: Option<OwnedSemaphorePermit>,
}

/// Orphaned queries that one task is cancelling.
struct Cancelling<'a, DB: Driver> {
    pool: &'a Pool<DB>,
    numbers: Vec<u64>,
    sessions: Vec<DB::Session>,
}

impl<DB: Driver> Cancelling<'_, DB> {
    fn end(self, all: bool) {
        let mut state = self.pool.lock();
        for orphan in &mut state.orphans {
            if self.numbers.contains(&orphan.number) {
                orphan.failures += 1;
            }
        }
        let is_gone = |orphan: &mut Orphan<DB>| {
            self.numbers.contains(&orphan.number) && (all || orphan.failures == TRIES)
        };
        let gone: Vec<_> = state.orphans.extract_if(.., is_gone).collect();
        // The tasks that get their permits take the lock.
        drop(state);
        drop(gone);
    }
}

impl<DB: Driver> Drop for Cancelling<'_, DB> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        for orphan in &mut state.orphans {
            if self.numbers.contains(&orphan.number) {
                orphan.cancelling -= 1;
            }
        }
        drop(state);
        self.pool.orphaned.notify_waiters();
    }
}

impl<DB: Driver> Pool<DB> {
    pub(super) fn add_orphan(
        &self,
        session: DB::Session,
        user: User,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.orphans.push(Orphan {
            number,
            session,
            user,
            failures: 0,
            cancelling: 0,
            _permit: permit,
        });
        drop(state);
        self.orphaned.notify_waiters();
    }

    /// Cancels orphaned queries, present and future ones, until `acquire` ends. If it is dropped, other tasks cancel
    /// the rest, at the latest the cleanup.
    pub(super) async fn keep_cancelling(&self, acquire: &AcquireContext) {
        loop {
            let mut orphaned = pin!(self.orphaned.notified());
            orphaned.as_mut().enable();
            let cancelling = self.begin_to_cancel(|orphan| orphan.cancelling == 0);
            if cancelling.numbers.is_empty() {
                orphaned.await;
            } else {
                let sessions = cancelling.sessions.clone();
                let address = &self.address;
                let stopped = address
                    .cancel_quietly(acquire, &sessions, None, acquire.until())
                    .await;
                cancelling.end(stopped.all);
            }
        }
    }

    /// Cancels the orphaned queries of `user` and of invocations that have ended, and the queries of connections that
    /// `user` still has checked out.
    pub(super) async fn cancel_own(self: &Arc<Self>, user: User, all_back: bool, until: Instant) {
        let ended = {
            let state = self.lock();
            let owners = state.orphans.iter().map(|orphan| orphan.user);
            let ended: Vec<User> = owners.filter(|owner| !state.users.has(*owner)).collect();
            ended
        };
        let cancelling =
            self.begin_to_cancel(|orphan| orphan.user == user || ended.contains(&orphan.user));
        let out = self.sessions_of(user);
        if cancelling.numbers.is_empty() && out.is_empty() {
            return;
        }
        if all_back {
            tracing::debug!(
                handler = self.handler,
                statements = cancelling.numbers.len(),
                "dropped by the handler: cancelling them on the server"
            );
        } else {
            tracing::warn!(
                handler = self.handler,
                connections = out.len(),
                "the handler has ended, but a task that it spawned still uses the database: cancelling it; spawn such work with `Background::spawn`"
            );
        }
        let mut sessions = cancelling.sessions.clone();
        sessions.extend(out);
        let acquire = self.acquire_now();
        let mut via = self.pop_ready(Some(user));
        let idle = via.as_mut().map(|(idle, _)| &mut *idle.connection);
        let stopped = self.address.cancel(&acquire, &sessions, idle, until).await;
        cancelling.end(stopped.all);
        if let Some((idle, permit)) = via {
            if stopped.idle_works {
                self.lock().idle.push(idle);
            } else {
                self.discard(idle.connection, Some(permit));
            }
        }
        if !(stopped.all && stopped.idle_works) {
            self.lock().users.lose(user);
        }
    }

    fn begin_to_cancel(&self, which: impl Fn(&Orphan<DB>) -> bool) -> Cancelling<'_, DB> {
        let mut state = self.lock();
        let mut cancelling = Cancelling {
            pool: self,
            numbers: Vec::new(),
            sessions: Vec::new(),
        };
        for orphan in state.orphans.iter_mut().filter(|orphan| which(orphan)) {
            orphan.cancelling += 1;
            cancelling.numbers.push(orphan.number);
            cancelling.sessions.push(orphan.session.clone());
        }
        cancelling
    }

    fn sessions_of(&self, user: User) -> Vec<DB::Session> {
        let state = self.lock();
        let mine = state.out.iter().filter(|out| out.user == user);
        mine.map(|out| out.session.clone()).collect()
    }
}
