//! Cleans up an invocation's connections after its handler: drains, cancels, resets, reuses or closes them.

use super::{
    LOOK_AGAIN, SqlxPool,
    owners::{Owned, Owners, Place},
    state::State,
};
use crate::{
    config::{Close, DRAIN_TIMEOUT, PRESSURE_ASK},
    drivers::sql::{
        Driver,
        connect::warnings,
        connection::{self, Reset, capacity},
        users::{Phase, User},
    },
    resource::running::time_left,
    resource::{Health, Resource},
};
use futures_util::future::{FutureExt, join_all};
use sqlx::pool::PoolConnection;
use std::{collections::HashSet, pin::pin, time::Duration};
use tokio::{
    task::coop::unconstrained,
    time::{Instant, sleep, timeout, timeout_at},
};

/// An idle connection that was acquired for the cleanup, and its number.
type Taken<DB> = (PoolConnection<DB>, u64);

impl<DB: Driver> SqlxPool<DB> {
    /// Waits until every connection of `user` is released, and cancels the rest on the server. With `reuse`, resets the
    /// connections that `user` used; otherwise closes them.
    pub(super) async fn clean_up(&self, user: User, reuse: bool) -> Health {
        let quiet = self.quiet_within();
        let longest = self.cleanup_time(user).saturating_sub(DRAIN_TIMEOUT);
        let left = time_left().map_or(longest, |left| left.min(longest));
        let until = Instant::now() + left;
        // If little time is left, it is reserved for cancelling.
        let patience = quiet.min(left / 2);
        let all_back = timeout(patience, self.all_back(user)).await.is_ok();
        // An acquire that is still connecting is too late.
        self.owners().users.set_phase(user, Phase::Over);
        let cancelled = self.cancel_own(user, all_back, until).await;
        if cancelled {
            // They are released with an error, unless the network is down.
            let _ = timeout_at(until, self.all_gone(user)).await;
        }
        let has_lost_one = self.has_lost_one();
        let lost = has_lost_one || !all_back || self.owners().users.has_lost(user);
        if lost || self.state.is_outdated() {
            let is_alone = self.owners().users.is_alone(user);
            if !is_alone {
                self.discard_own(user, has_lost_one, until).await;
            }
            return Health::Broken;
        }
        if self.state.settings.instances.is_some() {
            let health = self.look_at_limit(user).await;
            if health != Health::Healthy {
                return health;
            }
        }
        let health = if reuse {
            self.reset_own(user, Instant::now() + patience).await
        } else {
            if self.owners().users.others_run(Some(user)) {
                self.close_own(user, Instant::now() + patience).await;
            }
            Health::Healthy
        };
        if !self.owners().users.others_run(Some(user)) {
            // The pool itself must not be in the middle of anything when the process is frozen.
            let quiet = timeout(patience, self.is_quiet()).await.is_ok();
            if !quiet && reuse {
                return Health::Broken;
            }
        }
        health
    }

    /// How long the cleanup of `user` may take.
    pub(super) fn cleanup_time(&self, user: User) -> Duration {
        let may_cancel = |one: &Owned<DB>| {
            one.place != Place::Idle && one.user.is_none_or(|owner| owner == user)
        };
        let may_cancel = self.owners().any(may_cancel);
        let round_trip = self.state.address.round_trip();
        round_trip.cleanup(self.state.settings.reserve, may_cancel)
    }

    fn owners(&self) -> std::sync::MutexGuard<'_, Owners<DB>> {
        self.state.owners()
    }

    /// Waits until every connection of `user` is released, or known to be lost.
    async fn all_back(&self, user: User) {
        let mine = |one: &Owned<DB>| one.user == Some(user) && one.place == Place::Out;
        self.wait_until(|owners| {
            if !owners.users.is_alone(user) {
                // While no other invocation runs, a task that one of them left holds what has no user.
                let is_last = !owners.users.others_run(Some(user));
                return !owners.any(|one| {
                    mine(one) || is_last && one.user.is_none() && one.place == Place::Out
                });
            }
            // No other invocation has any: each connection missing from the pool belongs to this one, even if no hook
            // has seen it.
            let waits = |one: &Owned<DB>| matches!(one.place, Place::Orphan | Place::Cancelling);
            let waiting = owners.numbers(waits).len();
            self.usage().in_use as usize <= waiting
        })
        .await;
        if self.owners().users.is_alone(user) {
            // The pool lost it without running a hook.
            self.owners().remove_all(mine);
        }
    }

    /// Waits until no connection of `user` is checked out or has to be cancelled.
    async fn all_gone(&self, user: User) {
        let mine = |one: &Owned<DB>| {
            one.user == Some(user) && !matches!(one.place, Place::Idle | Place::Dropped)
        };
        self.wait_until(|owners| {
            let quiet = owners.users.is_alone(user) && self.usage().in_use == 0;
            quiet || !owners.any(mine)
        })
        .await;
    }

    /// Polls: sqlx has no event for an idle connection, and one may still be on its way after its hook.
    async fn wait_until(&self, done: impl Fn(&Owners<DB>) -> bool) {
        let from = Instant::now();
        loop {
            let mut returned = pin!(self.state.returned.notified());
            returned.as_mut().enable();
            if done(&self.owners()) {
                return;
            }
            if from.elapsed() < super::LOOK_ALL_THE_TIME {
                tokio::task::yield_now().await;
            } else {
                let _ = timeout(LOOK_AGAIN, returned).await;
            }
        }
    }

    /// Cancels the queries that `user` has left on the server, and nothing else. Returns whether there were any.
    async fn cancel_own(&self, user: User, all_back: bool, until: Instant) -> bool {
        let (is_alone, is_last) = {
            let owners = self.owners();
            // Not only if it is alone: of two cleanups at the same time, each would leave it to the other.
            let is_last = !owners.users.others_run(Some(user));
            (owners.users.is_alone(user), is_last)
        };
        let mine = |one: &Owned<DB>| {
            // A query that an earlier cleanup could not cancel has no owner, and neither has one of a task that used a
            // clone while several invocations ran.
            let is_left = one.user.is_none() && (is_last || one.place == Place::Dropped);
            one.user == Some(user) || is_left
        };
        let runs = |one: &Owned<DB>| {
            let runs = matches!(one.place, Place::Orphan | Place::Dropped)
                || !all_back && one.place == Place::Out;
            runs && mine(one)
        };
        let mut numbers = self.owners().numbers(runs);
        let being_cancelled = self
            .owners()
            .any(|one| one.user == Some(user) && one.place == Place::Cancelling);
        if numbers.is_empty() && !all_back && is_alone && !being_cancelled {
            // A connection is in use that no hook has seen.
            numbers = self.owners().numbers(|one| one.place == Place::Idle);
        }
        if numbers.is_empty() {
            return being_cancelled;
        }
        let handler = self.acquire.handler();
        if all_back {
            tracing::debug!(
                handler,
                "the handler dropped a query: cancelling it on the server"
            );
        } else {
            tracing::warn!(
                handler,
                connections = numbers.len(),
                "the handler has ended, but a dropped query or a task that it spawned still uses the database: cancelling it; spawn such work with `Background::spawn`"
            );
        }
        self.owners().users.lose(user);
        self.owners().doom(|one| numbers.contains(&one.number));
        let (sessions, by_name) = self.state.to_cancel(&numbers);
        if by_name.is_some() {
            // Cancelling by name would also end idle sessions of that name.
            let nameless = |one: &Owned<DB>| mine(one) && !DB::is_identified(&one.session);
            let idle = self.take_idle(nameless, Instant::now()).await;
            join_all(idle.into_iter().map(|taken| self.discard(taken))).await;
        }
        let mut via = self.look();
        let idle = via.as_mut().map(|(idle, _)| &mut **idle);
        let acquire = self.acquire.restarted();
        let stopped = self
            .state
            .address
            .cancel(&acquire, &sessions, idle, until)
            .await;
        drop(by_name);
        if let Some(via) = via {
            if stopped.idle_works {
                self.give_back(via);
            } else {
                self.discard(via).await;
            }
        }
        self.owners().cancelled(&numbers, stopped.all);
        self.state.returned.notify_waiters();
        true
    }

    /// Acquires an idle connection without changing its state, if there is one that no acquire waits for.
    fn look(&self) -> Option<Taken<DB>> {
        if self.pool.num_idle() == 0 {
            return None;
        }
        // The acquire succeeds at once or not at all: it must not wait in the pool's queue.
        let looking = unconstrained(State::<DB>::looking(self.pool.acquire()));
        let (connection, number) = looking.now_or_never()?;
        Some((connection.ok()?, number.unwrap_or_default()))
    }

    /// Releases a connection whose state has not changed.
    fn give_back(&self, (connection, number): Taken<DB>) {
        if let Some(owned) = self.owners().get_mut(number) {
            owned.untouched = true;
        }
        drop(connection);
    }

    async fn discard(&self, (connection, number): Taken<DB>) {
        self.state.connection_gone();
        self.owners().remove(number);
        if DB::IN_PROCESS {
            // If it were only dropped, it would end at some later time.
            let _ = connection.close().await;
        } else {
            drop(connection.detach());
        }
    }

    /// Acquires the idle connections for which `which` returns `true`. Waits for one that is still on its way into the
    /// pool.
    async fn take_idle(
        &self,
        which: impl Fn(&Owned<DB>) -> bool,
        until: Instant,
    ) -> Vec<Taken<DB>> {
        let (mut taken, mut others): (Vec<Taken<DB>>, Vec<Taken<DB>>) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        loop {
            let idle = |one: &Owned<DB>| one.place == Place::Idle && which(one);
            if !self.owners().any(idle) {
                break;
            }
            if let Some((connection, number)) = self.look() {
                seen.insert(number);
                let wanted = self.owners().get(number).is_some_and(&which);
                let those = if wanted { &mut taken } else { &mut others };
                those.push((connection, number));
            } else if Instant::now() < until {
                for other in others.drain(..) {
                    self.give_back(other);
                }
                sleep(LOOK_AGAIN).await;
            } else {
                // The connection has not appeared in time: if it still exists, it is not reused.
                self.owners().doom(|one| idle(one));
                break;
            }
        }
        for other in others {
            self.give_back(other);
        }
        taken
    }

    /// Discards the connections of `user`, and with `unused` also those without an owner.
    async fn discard_own(&self, user: User, unused: bool, until: Instant) {
        let which = |one: &Owned<DB>| one.user == Some(user) || unused && one.user.is_none();
        self.owners().doom(which);
        let idle = self.take_idle(which, Instant::now().min(until)).await;
        join_all(idle.into_iter().map(|taken| self.discard(taken))).await;
        if unused {
            self.state.reset_lost();
        }
    }

    /// Resets the connections of `user` for the next invocation.
    async fn reset_own(&self, user: User, until: Instant) -> Health {
        let suspect = self.owners().users.is_suspect(user);
        let which = |one: &Owned<DB>| one.user == Some(user) && (suspect || !one.clean);
        let own = self.take_idle(which, until).await;
        let resetting = own.into_iter().map(async |mut taken: Taken<DB>| {
            let longest = self.state.reply_within(self.state.settings.ping);
            let reset = self.state.reset(&mut taken.0, taken.1).await;
            // Two round trips.
            let fit = reset == Reset::Clean
                && (!suspect || connection::renew::<DB>(&mut taken.0, longest * 2).await);
            if fit {
                self.give_back(taken);
            } else {
                self.discard(taken).await;
            }
        });
        join_all(resetting).await;
        match self.state.settings.close {
            Close::Pressure => {
                if !self.owners().users.others_run(Some(user)) {
                    self.is_quiet().await;
                }
                self.ask_for_room().await
            }
            _ => Health::Healthy,
        }
    }

    /// Closes the connections of `user` while other invocations run, unless one of them waits for a connection.
    async fn close_own(&self, user: User, until: Instant) {
        let wanted = self.state.is_wanted(Some(user));
        let which = |one: &Owned<DB>| one.user == Some(user) && (!wanted || !one.clean);
        let own = self.take_idle(which, until).await;
        let closing = own.into_iter().map(async |mut taken: Taken<DB>| {
            if wanted && self.state.reset(&mut taken.0, taken.1).await == Reset::Clean {
                self.give_back(taken);
                return;
            }
            let (connection, number) = taken;
            self.state.connection_gone();
            self.owners().remove(number);
            let _ = connection.close().await;
        });
        join_all(closing).await;
    }

    /// Whether the server has room for the connections that are about to be reused.
    async fn ask_for_room(&self) -> Health {
        let Some(mut idle) = self.look() else {
            return Health::Healthy;
        };
        let (place, share) = (self.state.target(), self.state.settings.share);
        let longest = self.state.reply_within(PRESSURE_ASK);
        let health = capacity::check::<DB>(&place, share, &mut idle.0, longest).await;
        self.asked(idle, health).await
    }

    /// Compares the budget with the server's limit, if there is an idle connection to query it.
    async fn look_at_limit(&self, user: User) -> Health {
        if !self.owners().users.others_run(Some(user)) {
            self.is_quiet().await;
        }
        let Some(mut idle) = self.look() else {
            return Health::Healthy;
        };
        let (handler, settings) = (self.acquire.handler(), &self.state.settings);
        let longest = self.state.reply_within(PRESSURE_ASK);
        let health =
            warnings::compare_with_limit::<DB>(handler, settings, &mut idle.0, longest).await;
        self.asked(idle, health).await
    }

    /// Releases a connection after a query of the cleanup.
    async fn asked(&self, idle: Taken<DB>, health: Health) -> Health {
        if health == Health::Broken {
            // It has an unread reply.
            self.discard(idle).await;
        } else {
            let number = idle.1;
            self.give_back(idle);
            let is_back = |one: &Owned<DB>| {
                one.number != number || !matches!(one.place, Place::Out | Place::Held)
            };
            self.wait_until(|owners| !owners.any(|one| !is_back(one)))
                .await;
        }
        health
    }
}
