//! What becomes of an invocation's connections when its handler has ended: drained, cancelled, reset, reused or closed.

use super::{Checkout, History, Idle, Pool};
use crate::{
    config::{Close, POOL_QUIET, PRESSURE_ASK, QUIET},
    drivers::sql::{
        connect::warnings,
        connection::{Link, Reset, capacity, renew},
        driver::Driver,
        users::{Phase, User, Waiting},
    },
    resource::running::time_left,
    resource::{Disposition, Fitness},
};
use futures_util::future::join_all;
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout, timeout_at},
};

/// An invocation's use of a pool, which ends with this.
pub(in crate::drivers::sql) struct Using<DB: Driver> {
    pool: Arc<Pool<DB>>,
    user: User,
}

impl<DB: Driver> Using<DB> {
    pub(in crate::drivers::sql) fn user(&self) -> User {
        self.user
    }

    pub(in crate::drivers::sql) fn pool(&self) -> &Arc<Pool<DB>> {
        &self.pool
    }
}

impl<DB: Driver> Drop for Using<DB> {
    fn drop(&mut self) {
        let pool = &self.pool;
        let mut state = pool.lock();
        // What the cleanup was not given the time for. Whoever waits for such a connection resets it first;
        // otherwise it must not idle in a state that nobody knows.
        let wanted = state.users.any_waiting(Waiting::Return);
        let stopped = state.users.phase(self.user) == Some(Phase::Stopped);
        let left: Vec<Idle<DB>> = state
            .idle
            .extract_if(.., |idle| {
                idle.owner == Some(self.user) && (stopped || !wanted)
            })
            .collect();
        state.users.remove(self.user);
        drop(state);
        for idle in left {
            if idle.unsettled || idle.unrecognized {
                pool.add_orphan(idle.link.session().clone(), self.user, None);
            }
            pool.discard(idle.link, None);
        }
    }
}

impl<DB: Driver> Pool<DB> {
    /// One more invocation uses the pool.
    pub(in crate::drivers::sql) fn add_user(self: &Arc<Self>) -> Using<DB> {
        let user = self.lock().users.add();
        Using {
            pool: Arc::clone(self),
            user,
        }
    }

    /// Whether `user` may have a connection.
    pub(super) fn serves(&self, user: User) -> bool {
        let state = self.lock();
        !state.closed && state.users.phase(user) == Some(Phase::Running)
    }

    /// What this invocation still holds is not used again.
    pub(in crate::drivers::sql) fn stop(&self, user: User) {
        self.lock().users.set_phase(user, Phase::Stopped);
    }

    /// What is reused after this invocation is looked at first.
    pub(in crate::drivers::sql) fn suspect(&self, user: User) {
        self.lock().users.suspect(user);
    }

    /// Takes back what one invocation had for itself.
    pub(in crate::drivers::sql) async fn release(
        &self,
        mut checkout: Checkout<DB>,
        disposition: Disposition,
    ) {
        let Some(link) = &mut checkout.link else {
            return;
        };
        link.was_in_hand();
        // A rollback that `Transaction`'s drop has only queued goes out now.
        let discard = disposition == Disposition::Discard;
        let quiet = link.is_quiet() || !discard && link.becomes_quiet(self.quiet_within()).await;
        if !quiet {
            // Dropped in the middle of a statement: its drop says so.
            return;
        }
        let wanted = self.lock().users.any_waiting(Waiting::Return);
        if !discard && (disposition == Disposition::Reuse || wanted) {
            // A `COPY` may still run on a connection that seems quiet, and cancelling it takes time, too.
            self.reset_and_give_back(checkout, self.cleanup_within() / 2)
                .await;
            return;
        }
        // A `COPY` may still run on a connection that seems quiet.
        checkout.may_run = link.owns_session();
        if checkout.may_run && !link.recognized(self.reply_within(POOL_QUIET)).await {
            return;
        }
        checkout.may_run = false;
        if discard || self.is_within_limit(&mut checkout).await != Fitness::Fit {
            checkout.leave();
        } else {
            checkout.close().await;
        }
    }

    /// Back for the next invocation, if the session can be reset.
    async fn reset_and_give_back(&self, mut checkout: Checkout<DB>, longest: Duration) {
        let user = checkout.user();
        let Some(link) = &mut checkout.link else {
            return;
        };
        checkout.may_run = true;
        match self.reset(link, user, longest).await {
            Reset::Clean => {
                checkout.may_run = false;
                checkout.give_back();
            }
            // What did not come to its end was ours: there is nothing to be stopped.
            Reset::Unfit => {
                checkout.may_run = false;
                checkout.leave();
            }
            Reset::Lost => {}
        }
    }

    /// Waits until every connection of `user` is back, cancels on the server what is not, and makes with `reuse` what
    /// it used as good as new; closes it otherwise.
    pub(in crate::drivers::sql) async fn clean_up(
        self: &Arc<Self>,
        user: User,
        reuse: bool,
    ) -> Fitness {
        // Putting back has had its time to become quiet already.
        let longest = self.cleanup_time(user).saturating_sub(QUIET);
        let left = time_left().map_or(longest, |left| left.min(longest));
        let until = Instant::now() + left;
        // Where little time is left, it is for cancelling.
        let patience = self.quiet_within().min(left / 2);
        let all_back = timeout(patience, self.all_back(user)).await.is_ok();
        // Whoever is still connecting comes too late.
        self.lock().users.set_phase(user, Phase::Over);
        self.drain_own(user, patience).await;
        self.cancel_own(user, all_back, until).await;
        if !all_back {
            // Cancelled, they come back with an error; where the network is gone, they may not.
            let _ = timeout_at(until, self.all_back(user)).await;
            self.lock().users.lose(user);
        }
        let lost = self.lock().users.has_lost(user);
        if lost {
            // Where one connection is lost, the others cannot be trusted either.
            self.discard_idle(|idle| idle.owner.is_none_or(|owner| owner == user));
        }
        let fitness = if reuse && !lost {
            self.reset_own(user).await;
            self.ask_for_room(user).await
        } else {
            self.close_own(user).await;
            Fitness::Fit
        };
        self.await_closing().await;
        match fitness {
            // Only what nobody uses: the neighbours are not disturbed by that.
            Fitness::Unwanted => {
                let unused = |idle: &mut Idle<DB>| idle.owner.is_none();
                let idle: Vec<_> = self.lock().idle.extract_if(.., unused).collect();
                join_all(idle.into_iter().map(|idle| idle.link.close())).await;
                Fitness::Unwanted
            }
            _ if lost => Fitness::Unfit,
            _ => Fitness::Fit,
        }
    }

    /// Every connection of `user` is back.
    async fn all_back(&self, user: User) {
        loop {
            let mut returned = pin!(self.returned.notified());
            returned.as_mut().enable();
            if !self.lock().out.iter().any(|out| out.user == user) {
                return;
            }
            returned.await;
        }
    }

    /// Idle connections that `user` has used, and of which `which` says so, as long as there are permits: whoever waits
    /// for one resets the connection.
    fn check_out_own(
        self: &Arc<Self>,
        user: User,
        which: impl Fn(&Idle<DB>) -> bool,
    ) -> Vec<(Checkout<DB>, History)> {
        let mut own = Vec::new();
        while let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            let mut state = self.lock();
            let Some(at) = state.idle.iter().position(&which) else {
                break;
            };
            let idle = state.idle.remove(at);
            drop(state);
            let history = idle.history(user);
            let mut checkout = self.check_out(user, idle.link, permit);
            checkout.may_run = history.unsettled || history.unrecognized;
            own.push((checkout, history));
        }
        own
    }

    /// Lets what idles come to an end with what is still on its way, as far as that is known; what a user had
    /// in hand is asked.
    async fn drain_own(self: &Arc<Self>, user: User, longest: Duration) {
        let dirty =
            |idle: &Idle<DB>| idle.owner == Some(user) && (idle.unsettled || idle.unrecognized);
        let draining = self.check_out_own(user, dirty).into_iter();
        let draining = draining.map(async |(mut checkout, history)| {
            let Some(link) = &mut checkout.link else {
                return;
            };
            let is_quiet = !history.unsettled || link.becomes_quiet(longest).await;
            if is_quiet && (!history.unrecognized || link.recognized(longest * 2).await) {
                checkout.may_run = false;
                checkout.answered();
            } else {
                tracing::debug!(
                    handler = self.handler,
                    "a connection's reply was not recognized: discarded"
                );
            }
        });
        join_all(draining).await;
    }

    /// An idle connection for a question of our own, with its place: nobody's, or one of `user`.
    pub(super) fn pop_ready(&self, user: Option<User>) -> Option<(Idle<DB>, OwnedSemaphorePermit)> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        let mut state = self.lock();
        let ready = |idle: &Idle<DB>| {
            let is_mine = idle.owner.is_none() || idle.owner == user;
            is_mine && !idle.unsettled && !idle.unrecognized
        };
        let at = state.idle.iter().rposition(ready)?;
        Some((state.idle.remove(at), permit))
    }

    /// Makes what `user` used as good as new for the next invocation.
    async fn reset_own(self: &Arc<Self>, user: User) {
        let own = self.check_out_own(user, |idle| idle.owner == Some(user));
        let resetting = own.into_iter();
        join_all(resetting.map(|(checkout, _)| self.reset_and_give_back(checkout, Duration::MAX)))
            .await;
    }

    /// Closes what `user` used, unless somebody waits for it. Nothing stays open after the last one.
    async fn close_own(self: &Arc<Self>, user: User) {
        let (stopped, wanted, is_alone) = {
            let state = self.lock();
            (
                state.users.phase(user) == Some(Phase::Stopped),
                state.users.any_waiting(Waiting::Return),
                state.users.is_alone(user),
            )
        };
        let own = self.check_out_own(user, |idle| {
            idle.owner == Some(user) || is_alone && idle.owner.is_none()
        });
        let mut is_first = true;
        let mut closing = Vec::new();
        for (mut checkout, _) in own {
            let asks =
                std::mem::take(&mut is_first) && !stopped && self.settings.instances.is_some();
            if asks && self.is_within_limit(&mut checkout).await != Fitness::Fit {
                checkout.leave();
                continue;
            }
            closing.push(async move {
                if wanted && !stopped {
                    self.reset_and_give_back(checkout, Duration::MAX).await;
                } else {
                    checkout.close().await;
                }
            });
        }
        join_all(closing).await;
    }

    async fn is_within_limit(&self, checkout: &mut Checkout<DB>) -> Fitness {
        let longest = self.reply_within(PRESSURE_ASK);
        warnings::compare_with_limit::<DB>(self.handler, &self.settings, checkout, longest).await
    }

    /// Undoes what the session was used for, within `left` at most. That takes a round trip, which is measured.
    pub(super) async fn reset(&self, link: &mut Link<DB>, user: User, left: Duration) -> Reset {
        let longest = self.reply_within(self.settings.ping).min(left);
        let mut reset = Reset::Lost;
        let resetting = async {
            reset = link.reset(longest).await;
            reset != Reset::Lost
        };
        self.address.round_trip().of(resetting).await;
        if reset == Reset::Clean && self.address.is_demoted(link.memory()) {
            self.outdated();
            return Reset::Unfit;
        }
        // Up to two round trips, like what follows.
        if reset == Reset::Clean && !link.revalidate(longest * 2).await {
            return Reset::Lost;
        }
        let suspect = self.lock().users.is_suspect(user);
        if reset == Reset::Clean && suspect && !renew::<DB>(link, longest * 2).await {
            return Reset::Unfit;
        }
        reset
    }

    /// Whether the server has room for what is to be reused.
    async fn ask_for_room(self: &Arc<Self>, user: User) -> Fitness {
        let pressure = self.settings.close == Close::Pressure;
        if !pressure && self.settings.instances.is_none() {
            return Fitness::Fit;
        }
        let Some((idle, permit)) = self.pop_ready(Some(user)) else {
            return Fitness::Fit;
        };
        let mut checkout = self.check_out(user, idle.link, permit);
        let mut fitness = self.is_within_limit(&mut checkout).await;
        if pressure && fitness == Fitness::Fit {
            let (place, share) = (self.address.target(), self.settings.share);
            let longest = self.reply_within(PRESSURE_ASK);
            fitness = capacity::verdict::<DB>(place, share, &mut checkout, longest).await;
        }
        if fitness == Fitness::Unfit {
            // It is half-way through an answer that nobody waits for.
            checkout.leave();
        } else {
            checkout.give_back();
        }
        fitness
    }

    pub(in crate::drivers::sql) async fn close(&self) {
        self.lock().closed = true;
        let idle = std::mem::take(&mut self.lock().idle);
        join_all(idle.into_iter().map(|idle| idle.link.close())).await;
        self.await_closing().await;
    }

    pub(in crate::drivers::sql) fn abandon(&self) {
        self.lock().closed = true;
    }

    /// Whether nothing runs on the server for nobody.
    pub(in crate::drivers::sql) fn may_close(&self) -> bool {
        self.lock().orphans.is_empty()
    }

    /// Waits for those that were let go.
    async fn await_closing(&self) {
        let closing = std::mem::take(&mut self.lock().closing);
        let closing = closing.into_iter().map(async |(link, _permit)| {
            link.close().await;
        });
        join_all(closing).await;
    }
}
