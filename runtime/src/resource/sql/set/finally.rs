//! What becomes of the connections when the handler has ended: put back, settled, refreshed, closed.

use super::{Idle, Lent, Phase, Set};
use crate::{
    config::{Close, POOL_QUIET, PRESSURE_ASK, QUIET},
    lifecycle::time_left,
    resource::{
        Fate, Fitness,
        sql::{
            advice,
            driver::Driver,
            link::{Link, Reset, renew},
            pressure,
        },
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
        let quiet = link.is_quiet() || !discarded && link.becomes_quiet(self.quiet_within()).await;
        if !quiet {
            // Dropped in the middle of a statement: its drop says so.
            self.lock().lost = true;
            return;
        }
        if fate == Fate::Kept && self.phase() != Phase::Ended {
            // A `COPY` may still run on a connection that seems quiet, and cancelling it takes time, too.
            match self.reset(link, self.cleanup_within() / 2).await {
                Reset::Clean => lent.give_back(),
                // What did not come to its end was ours: there is nothing to be stopped.
                Reset::Unfit => self.let_go(lent.into_link()),
                Reset::Lost => self.discard_half_way(lent),
            }
            return;
        }
        // A `COPY` may still run on a connection that seems quiet.
        if link.owns_session() && !link.recognized(self.reply_within(POOL_QUIET)).await {
            self.discard_half_way(lent);
        } else if discarded || self.is_within_limit(&mut lent).await != Fitness::Fit {
            self.let_go(lent.into_link());
        } else {
            lent.into_link().close().await;
        }
    }

    /// Discards a connection on which something may still run, which is then stopped.
    fn discard_half_way(&self, lent: Lent<DB>) {
        let link = lent.into_link();
        self.stray(&link);
        self.let_go(link);
    }

    /// Waits until every connection is back, and stops on the server what is not.
    pub(in crate::resource::sql) async fn settle(self: &Arc<Self>) -> Fitness {
        // Putting back has had its time to become quiet already.
        let longest = self.cleanup_within().saturating_sub(QUIET);
        let left = time_left().map_or(longest, |left| left.min(longest));
        let until = Instant::now() + left;
        // Where little time is left, it is for cancelling.
        let patience = self.quiet_within().min(left / 2);
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
        let longest = self.reply_within(PRESSURE_ASK);
        advice::compare_with_limit::<DB>(self.handler, &self.settings, lent, longest).await
    }

    /// Every connection is back.
    async fn all_back(&self) {
        // The semaphore is never closed: there is nothing but success.
        let _ = self.permits.acquire_many(self.settings.max).await;
    }

    /// Lets what idles come to an end with what is still on its way, as far as that is known; what a user had
    /// in hand is asked.
    async fn quieten_idle(&self, longest: Duration) {
        let unsettled: Vec<Idle<DB>> = self
            .lock()
            .idle
            .extract_if(.., |idle| idle.unsettled || idle.unrecognized)
            .collect();
        let settling = unsettled.into_iter().map(async |idle: Idle<DB>| {
            let mut link = Some(idle.link);
            if idle.unsettled {
                link = self.quietened(link.take()?, longest).await;
            }
            if idle.unrecognized {
                link = self.recognized(link.take()?, longest * 2).await;
            }
            self.lock().idle.push(Idle {
                link: link?,
                unsettled: false,
                unrecognized: false,
                ..idle
            });
            Some(())
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
        let mut idle = self.pop_recognized();
        let via = idle.as_mut().map(|idle| &mut *idle.link);
        let acquire = self.acquire_now();
        let stopped = self.address.cancel(&acquire, sessions, via, until).await;
        let mut state = self.lock();
        if stopped.all {
            state.strays.clear();
        }
        if stopped.all && stopped.idle_works {
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
            if self.reset(link, Duration::MAX).await == Reset::Clean {
                lent.give_back();
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

    /// Undoes what the session was used for, within `left` at most. That takes a round trip, which is measured.
    async fn reset(&self, link: &mut Link<DB>, left: Duration) -> Reset {
        let longest = self.reply_within(self.settings.ping).min(left);
        let mut reset = Reset::Lost;
        let resetting = async {
            reset = link.reset(longest).await;
            reset != Reset::Lost
        };
        self.address.round_trip().of(resetting).await;
        let suspect = self.lock().suspect;
        // Two round trips.
        if reset == Reset::Clean && suspect && !renew::<DB>(link, longest * 2).await {
            return Reset::Unfit;
        }
        reset
    }

    /// Whether the server has room for what is to be kept.
    async fn ask_for_room(self: &Arc<Self>) -> Fitness {
        let Some(mut lent) = self.lend_idle() else {
            return Fitness::Fit;
        };
        let (place, share) = (self.address.target(), self.settings.share);
        let longest = self.reply_within(PRESSURE_ASK);
        let fitness = pressure::verdict::<DB>(place, share, &mut lent, longest).await;
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
        Some(self.lend(self.pop_recognized()?.link, permit))
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
