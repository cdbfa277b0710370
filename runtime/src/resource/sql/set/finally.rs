//! What becomes of the connections when the handler has ended: put back, settled, refreshed, closed.

use super::{Idle, Lent, Phase, Set};
use crate::{
    config::{Close, QUIET},
    lifecycle::time_left,
    resource::{
        Fate, Fitness,
        sql::{advice, driver::Driver, link::Link, pressure},
    },
};
use futures_util::future::join_all;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout, timeout_at};

impl<DB: Driver> Set<DB> {
    /// Takes back what one invocation had for itself.
    pub(in crate::resource::sql) async fn put_back(&self, mut lent: Lent<DB>, fate: Fate) {
        let Some(link) = &mut lent.link else { return };
        // A rollback that `Transaction`'s drop has only queued goes out now.
        let discarded = fate == Fate::Discarded;
        let quiet = link.is_quiet() || !discarded && link.becomes_quiet(QUIET).await;
        if !quiet {
            // Dropped in the middle of a statement: its drop says so.
            self.lock().lost = true;
            return;
        }
        match fate {
            Fate::Kept if self.phase() != Phase::Ended => {
                if link.reset(self.settings.ping).await {
                    lent.give_back();
                } else {
                    // What did not come to its end was ours: there is nothing to be stopped.
                    self.let_go(lent.into_link());
                }
            }
            Fate::Discarded => self.let_go(lent.into_link()),
            Fate::Kept | Fate::Closed => {
                if self.is_within_limit(&mut lent).await == Fitness::Fit {
                    lent.into_link().close().await;
                } else {
                    self.let_go(lent.into_link());
                }
            }
        }
    }

    /// Waits until every connection is back, and stops on the server what is not.
    pub(in crate::resource::sql) async fn settle(self: &Arc<Self>) -> Fitness {
        // Putting back has had its time to become quiet already.
        let reserve = self.settings.reserve.saturating_sub(QUIET);
        let left = time_left().map_or(reserve, |left| left.min(reserve));
        let until = Instant::now() + left;
        // Where little time is left, it is for cancelling.
        let patience = QUIET.min(left / 4);
        let all_back = timeout(patience, self.all_back()).await.is_ok();
        if !all_back {
            // Whoever is still connecting comes too late.
            self.rest();
        }
        self.quieten_idle(patience).await;
        let sessions = self.sessions_to_stop();
        if !sessions.is_empty() {
            self.stop(&sessions, all_back, until).await;
        }
        if !all_back {
            // Cancelled, they come back with an error; where the network is gone, they may not.
            let _ = timeout_at(until, self.all_back()).await;
            self.lock().lost = true;
        }
        if !self.lock().lost && self.settings.instances.is_some() {
            self.look_at_limit().await;
        }
        self.see_off().await;
        if self.lock().lost {
            Fitness::Unfit
        } else {
            Fitness::Fit
        }
    }

    /// Compares the budget with the server, if there is a connection to ask.
    async fn look_at_limit(self: &Arc<Self>) {
        let Some(mut lent) = self.lend_idle() else {
            return;
        };
        if self.is_within_limit(&mut lent).await == Fitness::Fit {
            // It may not have been reset yet.
            lent.answered();
        } else {
            self.let_go(lent.into_link());
        }
    }

    async fn is_within_limit(&self, lent: &mut Lent<DB>) -> Fitness {
        advice::compare_with_limit::<DB>(self.handler, &self.settings, lent).await
    }

    /// Every connection is back.
    async fn all_back(&self) {
        // The semaphore is never closed: there is nothing but success.
        let _ = self.permits.acquire_many(self.settings.max).await;
    }

    /// Lets what idles come to an end with what is still on its way.
    async fn quieten_idle(&self, longest: Duration) {
        let unsettled: Vec<Idle<DB>> = self
            .lock()
            .idle
            .extract_if(.., |idle| idle.unsettled)
            .collect();
        let settling = unsettled.into_iter().map(async |idle: Idle<DB>| {
            if let Some(link) = self.quietened(idle.link, longest).await {
                self.lock().idle.push(Idle {
                    link,
                    unsettled: false,
                    ..idle
                });
            }
        });
        join_all(settling).await;
    }

    fn sessions_to_stop(&self) -> Vec<DB::Session> {
        let state = self.lock();
        let out = state.out.iter().map(|out| &out.session);
        state.strays.iter().chain(out).cloned().collect()
    }

    async fn stop(&self, sessions: &[DB::Session], all_back: bool, until: Instant) {
        if all_back {
            tracing::debug!(
                handler = self.handler,
                statements = sessions.len(),
                "given up by the handler: stopping them on the server"
            );
        } else {
            tracing::warn!(
                handler = self.handler,
                connections = self.usage().in_use,
                "the handler has ended, but a task that it left behind still uses its database: that is stopped; spawn such work through `&Background`"
            );
        }
        let mut idle = self.pop_idle();
        let via = idle.as_mut().map(|idle| &mut *idle.link);
        let acquire = self.acquire_now();
        let stopped = self.address.cancel(&acquire, sessions, via, until).await;
        let mut state = self.lock();
        if stopped {
            state.strays.clear();
            state.idle.extend(idle);
        } else {
            state.lost = true;
        }
    }

    /// Makes what was used as good as new for the next invocation.
    pub(in crate::resource::sql) async fn refresh(self: &Arc<Self>) -> Fitness {
        let mut used = Vec::new();
        while let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            let mut state = self.lock();
            let Some(at) = state.idle.iter().position(|idle| idle.used) else {
                break;
            };
            let idle = state.idle.remove(at);
            drop(state);
            used.push(self.lend(idle.link, permit));
        }
        let resetting = used.into_iter().map(async |mut lent: Lent<DB>| {
            let Some(link) = &mut lent.link else { return };
            if link.reset(self.settings.ping).await {
                lent.give_back_as(false, false);
            } else {
                self.let_go(lent.into_link());
            }
        });
        join_all(resetting).await;
        let fitness = match self.settings.close {
            Close::Pressure => self.ask_for_room().await,
            _ => Fitness::Fit,
        };
        self.see_off().await;
        fitness
    }

    /// Whether the server has room for what is to be kept.
    async fn ask_for_room(self: &Arc<Self>) -> Fitness {
        let Some(mut lent) = self.lend_idle() else {
            return Fitness::Fit;
        };
        let (place, share) = (self.address.target(), self.settings.share);
        let fitness = pressure::verdict::<DB>(place, share, &mut lent).await;
        if fitness == Fitness::Unfit {
            // It is half-way through an answer that nobody waits for.
            self.let_go(lent.into_link());
        } else {
            lent.give_back();
        }
        fitness
    }

    /// An idle connection, for a question of our own.
    fn lend_idle(self: &Arc<Self>) -> Option<Lent<DB>> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        Some(self.lend(self.pop_idle()?.link, permit))
    }

    pub(in crate::resource::sql) async fn close(&self) {
        self.abandon();
        let idle = std::mem::take(&mut self.lock().idle);
        join_all(idle.into_iter().map(|idle| idle.link.close())).await;
        self.see_off().await;
    }

    /// Waits for those that were let go.
    async fn see_off(&self) {
        let leaving = std::mem::take(&mut self.lock().leaving);
        join_all(leaving.into_iter().map(Link::close)).await;
    }
}
