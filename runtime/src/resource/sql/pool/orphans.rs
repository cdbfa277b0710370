//! Queries that outlive their client: each keeps its place among `max` until it is cancelled.

use super::{Pool, User};
use crate::resource::{Acquire, sql::driver::Driver};
use std::{pin::pin, sync::Arc};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

/// How often cancelling one is tried.
const TRIES: u32 = 2;

/// What was dropped in the middle of a statement, which may still run on the server.
pub(super) struct Orphan<DB: Driver> {
    session: DB::Session,
    user: User,
    tries: u32,
    /// Its place.
    _permit: Option<OwnedSemaphorePermit>,
}

/// Orphans that somebody is cancelling. What is left of them when this is dropped is tried again.
struct Cancelling<'a, DB: Driver> {
    pool: &'a Pool<DB>,
    orphans: Vec<Orphan<DB>>,
}

impl<DB: Driver> Drop for Cancelling<'_, DB> {
    fn drop(&mut self) {
        if self.orphans.is_empty() {
            return;
        }
        let mut state = self.pool.lock();
        state.orphans.append(&mut self.orphans);
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
        self.lock().orphans.push(Orphan {
            session,
            user,
            tries: 0,
            _permit: permit,
        });
        self.orphaned.notify_waiters();
    }

    /// Cancels whatever outlives its client, now and later, until `acquire` is over.
    pub(super) async fn keep_cancelling(&self, acquire: &Acquire) {
        loop {
            let mut orphaned = pin!(self.orphaned.notified());
            orphaned.as_mut().enable();
            let orphans = std::mem::take(&mut self.lock().orphans);
            if orphans.is_empty() {
                orphaned.await;
            } else {
                self.cancel(None, orphans, Vec::new(), acquire, acquire.until())
                    .await;
            }
        }
    }

    /// Cancels the orphans of `user`, and what runs on its sessions that are still checked out.
    pub(super) async fn cancel_own(self: &Arc<Self>, user: User, all_back: bool, until: Instant) {
        let (orphans, out) = self.running_for(user);
        if orphans.is_empty() && out.is_empty() {
            return;
        }
        if all_back {
            tracing::debug!(
                handler = self.handler,
                statements = orphans.len(),
                "dropped by the handler: cancelling them on the server"
            );
        } else {
            tracing::warn!(
                handler = self.handler,
                connections = out.len(),
                "the handler has ended, but a task that it left behind still uses its database: that is stopped; spawn such work through `&Background`"
            );
        }
        let acquire = self.acquire_now();
        let cancelling = self.cancel(Some(user), orphans, out, &acquire, until);
        if !cancelling.await {
            self.lock().users.lose(user);
        }
    }

    /// The orphans of `user`, and its sessions that are still checked out.
    fn running_for(&self, user: User) -> (Vec<Orphan<DB>>, Vec<DB::Session>) {
        let mut state = self.lock();
        let own = |orphan: &mut Orphan<DB>| orphan.user == user;
        let orphans = state.orphans.extract_if(.., own).collect();
        let mine = state.out.iter().filter(|out| out.user == user);
        (orphans, mine.map(|out| out.session.clone()).collect())
    }

    /// Whether nothing of it runs any more, as far as the server tells.
    async fn cancel(
        &self,
        user: Option<User>,
        orphans: Vec<Orphan<DB>>,
        mut sessions: Vec<DB::Session>,
        acquire: &Acquire,
        until: Instant,
    ) -> bool {
        let mut cancelling = Cancelling {
            pool: self,
            orphans,
        };
        for orphan in &mut cancelling.orphans {
            orphan.tries += 1;
            sessions.push(orphan.session.clone());
        }
        let mut via = self.pop_ready(user);
        let idle = via.as_mut().map(|(idle, _)| &mut *idle.link);
        let stopped = self.address.cancel(acquire, &sessions, idle, until).await;
        if stopped.all {
            cancelling.orphans.clear();
        }
        cancelling.orphans.retain(|orphan| orphan.tries < TRIES);
        if let Some((idle, permit)) = via {
            if stopped.idle_works {
                self.lock().idle.push(idle);
            } else {
                self.discard(idle.link, Some(permit));
            }
        }
        stopped.all && stopped.idle_works
    }
}
