//! Cleans up an invocation's connections after its handler: drains, cancels, resets, reuses or closes them.

use super::{Checkout, History, Idle, Pool};
use crate::{
    config::{Close, DRAIN_TIMEOUT, POOL_DRAIN_TIMEOUT, PRESSURE_ASK},
    drivers::sql::{
        connect::warnings,
        connection::{OpenConnection, Reset, Validity, capacity, renew},
        driver::Driver,
        users::{Phase, User, Waiting},
    },
    resource::running::time_left,
    resource::{Disposition, Health},
};
use futures_util::future::join_all;
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout, timeout_at},
};

/// An invocation's use of a pool, which ends when this is dropped.
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
        // Connections that the cleanup had no time for. An acquire that waits for one resets it first; without such an
        // acquire, they must not idle in an unknown state.
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
            if idle.dirty || idle.unrecognized {
                pool.add_orphan(idle.connection.session().clone(), self.user, None);
            }
            pool.discard(idle.connection, None);
        }
    }
}

impl<DB: Driver> Pool<DB> {
    /// Registers one more invocation.
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

    /// Prevents the reuse of connections that this invocation still holds.
    pub(in crate::drivers::sql) fn stop(&self, user: User) {
        self.lock().users.set_phase(user, Phase::Stopped);
    }

    /// Has this invocation's connections checked before they are reused.
    pub(in crate::drivers::sql) fn suspect(&self, user: User) {
        self.lock().users.suspect(user);
    }

    /// Releases a connection that one invocation had for itself.
    pub(in crate::drivers::sql) async fn release(
        &self,
        mut checkout: Checkout<DB>,
        disposition: Disposition,
    ) {
        let Some(connection) = &mut checkout.connection else {
            return;
        };
        connection.was_in_hand();
        // This also sends the rollback that the drop of a `Transaction` has only queued.
        let discard = disposition == Disposition::Discard;
        let quiet = connection.is_quiet()
            || !discard && connection.becomes_quiet(self.quiet_within()).await;
        if !quiet {
            // It was dropped during a statement: the drop of `checkout` orphans that.
            return;
        }
        let wanted = self.lock().users.any_waiting(Waiting::Return);
        if !discard && (disposition == Disposition::Reuse || wanted) {
            // A `COPY` may still run although nothing is on the wire, and cancelling it takes time, too.
            self.reset_and_give_back(checkout, self.cleanup_within(false) / 2)
                .await;
            return;
        }
        // A `COPY` may still run although nothing is on the wire.
        checkout.may_run = connection.owns_session();
        if checkout.may_run
            && !connection
                .recognized(self.reply_within(POOL_DRAIN_TIMEOUT))
                .await
        {
            return;
        }
        checkout.may_run = false;
        if discard || self.is_within_limit(&mut checkout).await != Health::Healthy {
            checkout.leave();
        } else {
            checkout.close().await;
        }
    }

    /// Resets the session and releases the connection to the next invocation, or discards it if the reset fails.
    async fn reset_and_give_back(&self, mut checkout: Checkout<DB>, longest: Duration) {
        let user = checkout.user();
        let Some(connection) = &mut checkout.connection else {
            return;
        };
        checkout.may_run = true;
        match self.reset(connection, user, longest).await {
            Reset::Clean => {
                checkout.may_run = false;
                checkout.give_back();
            }
            // Only a statement of the reset can be unfinished here: there is nothing to cancel.
            Reset::Unfit => {
                checkout.may_run = false;
                checkout.leave();
            }
            Reset::Lost => {}
        }
    }

    /// Waits until every connection of `user` is released, and cancels the rest on the server. With `reuse`, resets the
    /// connections that `user` used; otherwise closes them.
    pub(in crate::drivers::sql) async fn clean_up(
        self: &Arc<Self>,
        user: User,
        reuse: bool,
    ) -> Health {
        // The release has already spent its time for draining.
        let longest = self.cleanup_time(user).saturating_sub(DRAIN_TIMEOUT);
        let left = time_left().map_or(longest, |left| left.min(longest));
        let until = Instant::now() + left;
        // If little time is left, it is reserved for cancelling.
        let patience = self.quiet_within().min(left / 2);
        let all_back = timeout(patience, self.all_back(user)).await.is_ok();
        // An acquire that is still connecting is too late.
        self.lock().users.set_phase(user, Phase::Over);
        self.drain_own(user, patience).await;
        self.cancel_own(user, all_back, until).await;
        if !all_back {
            // After the cancellation they are released with an error, unless the network is down.
            let _ = timeout_at(until, self.all_back(user)).await;
            self.lock().users.lose(user);
        }
        let lost = self.lock().users.has_lost(user);
        if lost {
            // If one connection is lost, the others cannot be trusted either.
            self.discard_idle(|idle| idle.owner.is_none_or(|owner| owner == user));
        }
        let health = if reuse && !lost {
            self.reset_own(user).await;
            self.ask_for_room(user).await
        } else {
            self.close_own(user).await;
            Health::Healthy
        };
        self.await_closing().await;
        match health {
            // Only connections without an owner: this does not disturb other invocations.
            Health::Surplus => {
                let unused = |idle: &mut Idle<DB>| idle.owner.is_none();
                let idle: Vec<_> = self.lock().idle.extract_if(.., unused).collect();
                join_all(idle.into_iter().map(|idle| idle.connection.close())).await;
                Health::Surplus
            }
            _ if lost => Health::Broken,
            _ => Health::Healthy,
        }
    }

    /// Waits until every connection of `user` is released.
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

    /// Checks out the idle connections of `user` for which `which` returns `true`, as long as there are permits. An
    /// acquire that waits for a permit resets the connection itself.
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
            let mut checkout = self.check_out(user, idle.connection, permit);
            checkout.may_run = history.dirty || history.unrecognized;
            own.push((checkout, history));
        }
        own
    }

    /// Drains the idle connections of `user`, as far as necessary, and probes those whose raw connection was used.
    async fn drain_own(self: &Arc<Self>, user: User, longest: Duration) {
        let dirty = |idle: &Idle<DB>| idle.owner == Some(user) && (idle.dirty || idle.unrecognized);
        let draining = self.check_out_own(user, dirty).into_iter();
        let draining = draining.map(async |(mut checkout, history)| {
            let Some(connection) = &mut checkout.connection else {
                return;
            };
            let is_quiet = !history.dirty || connection.becomes_quiet(longest).await;
            if is_quiet && (!history.unrecognized || connection.recognized(longest * 2).await) {
                checkout.may_run = false;
                checkout.responded();
            } else {
                tracing::debug!(
                    handler = self.handler,
                    "a connection's reply was not recognized: discarded"
                );
            }
        });
        join_all(draining).await;
    }

    /// Removes an idle connection for a statement of the pool's own, with a permit: one without an owner, or one of
    /// `user`.
    pub(super) fn pop_ready(&self, user: Option<User>) -> Option<(Idle<DB>, OwnedSemaphorePermit)> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        let mut state = self.lock();
        let ready = |idle: &Idle<DB>| {
            let is_mine = idle.owner.is_none() || idle.owner == user;
            is_mine && !idle.dirty && !idle.unrecognized
        };
        let at = state.idle.iter().rposition(ready)?;
        Some((state.idle.remove(at), permit))
    }

    /// Resets the connections of `user` for the next invocation.
    async fn reset_own(self: &Arc<Self>, user: User) {
        let own = self.check_out_own(user, |idle| idle.owner == Some(user));
        let resetting = own.into_iter();
        join_all(resetting.map(|(checkout, _)| self.reset_and_give_back(checkout, Duration::MAX)))
            .await;
    }

    /// Closes the connections of `user`, unless an acquire waits for one. The last invocation leaves none open.
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
            if asks && self.is_within_limit(&mut checkout).await != Health::Healthy {
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

    async fn is_within_limit(&self, checkout: &mut Checkout<DB>) -> Health {
        let longest = self.reply_within(PRESSURE_ASK);
        warnings::compare_with_limit::<DB>(self.handler, &self.settings, checkout, longest).await
    }

    /// Resets the session, within `left` at most. The round trip is measured.
    pub(super) async fn reset(
        &self,
        connection: &mut OpenConnection<DB>,
        user: User,
        left: Duration,
    ) -> Reset {
        let longest = self.reply_within(self.settings.ping).min(left);
        let mut reset = Reset::Lost;
        let resetting = async {
            reset = connection.reset(longest).await;
            reset != Reset::Lost
        };
        self.address.round_trip().of(resetting).await;
        if reset == Reset::Clean && self.address.is_demoted(connection.session_state()) {
            self.outdated();
            return Reset::Unfit;
        }
        // Up to two round trips, as in the next step.
        if reset == Reset::Clean {
            match connection.revalidate(longest * 2).await {
                Validity::Valid => {}
                Validity::Outdated => {
                    self.outdated();
                    return Reset::Unfit;
                }
                Validity::Lost => return Reset::Lost,
            }
        }
        let suspect = self.lock().users.is_suspect(user);
        if reset == Reset::Clean && suspect && !renew::<DB>(connection, longest * 2).await {
            return Reset::Unfit;
        }
        reset
    }

    /// Whether the server has room for the connections that are about to be reused.
    async fn ask_for_room(self: &Arc<Self>, user: User) -> Health {
        let pressure = self.settings.close == Close::Pressure;
        if !pressure && self.settings.instances.is_none() {
            return Health::Healthy;
        }
        let Some((idle, permit)) = self.pop_ready(Some(user)) else {
            return Health::Healthy;
        };
        let mut checkout = self.check_out(user, idle.connection, permit);
        let mut health = self.is_within_limit(&mut checkout).await;
        if pressure && health == Health::Healthy {
            let (place, share) = (self.address.target(), self.settings.share);
            let longest = self.reply_within(PRESSURE_ASK);
            health = capacity::check::<DB>(place, share, &mut checkout, longest).await;
        }
        if health == Health::Broken {
            // It has an unread reply.
            checkout.leave();
        } else {
            checkout.give_back();
        }
        health
    }

    pub(in crate::drivers::sql) async fn close(&self) {
        self.lock().closed = true;
        let idle = std::mem::take(&mut self.lock().idle);
        join_all(idle.into_iter().map(|idle| idle.connection.close())).await;
        self.await_closing().await;
    }

    pub(in crate::drivers::sql) fn mark_closed(&self) {
        self.lock().closed = true;
    }

    /// Whether no orphaned query is left.
    pub(in crate::drivers::sql) fn may_close(&self) -> bool {
        self.lock().orphans.is_empty()
    }

    /// Waits for discarded connections to end.
    async fn await_closing(&self) {
        let closing = std::mem::take(&mut self.lock().closing);
        let closing = closing.into_iter().map(async |(connection, _permit)| {
            connection.close().await;
        });
        join_all(closing).await;
    }
}
