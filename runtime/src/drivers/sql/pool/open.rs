//! Provides a connection: a new one, or an idle one that is still alive.

use super::{Checkout, History, Idle, Pool};
use crate::{
    config::{HEDGE_AFTER, HEDGE_ROUND_TRIPS},
    drivers::sql::{
        connect::retry::Retry,
        connection::{
            OpenConnection, Reset,
            hedge::{HedgeOutcome, hedge},
        },
        driver::Driver,
        users::{User, Waiting},
    },
    error::{Error, ErrorKind},
    resource::AcquireContext,
    util::clock::Stamp,
};
use std::sync::Arc;
use tokio::time::{sleep, timeout_at};

/// The result of checking an idle connection.
enum IdleCheck {
    /// It can be used.
    Ready,
    /// It has been idle for so long that it must be pinged first.
    NeedsPing,
    /// It cannot be used.
    Gone,
    /// It cannot be used, and a statement may still run on it.
    Running,
}

impl<DB: Driver> Pool<DB> {
    /// Opens a connection. While the server is at its connection limit, retries within the acquire, or uses a
    /// connection that is released meanwhile.
    pub(super) async fn open(
        self: &Arc<Self>,
        user: User,
        acquire: &AcquireContext,
    ) -> Result<OpenConnection<DB>, Error> {
        let epoch = self.lock().epoch;
        let retry = Retry::new(acquire.until());
        let connection = match self.address.connect(acquire).await {
            Ok(connection) => connection,
            // Boxed: the future is large, and few invocations meet a full server.
            Err(denied) if denied.is_server_full => {
                Box::pin(self.open_in_a_full_server(user, denied.why, retry, acquire)).await?
            }
            Err(denied) => return Err(denied.why),
        };
        Ok(connection.of_epoch(epoch))
    }

    async fn open_in_a_full_server(
        self: &Arc<Self>,
        user: User,
        mut why: Error,
        mut retry: Retry,
        acquire: &AcquireContext,
    ) -> Result<OpenConnection<DB>, Error> {
        while let Some(wait) = retry.next_wait() {
            self.lock().refused = Some(retry.annotate(why.clone()));
            sleep(wait).await;
            if let Some(connection) = self.given_back(user).await {
                return Ok(connection);
            }
            // The last try ends a little before the acquire: after a timeout, the error of the try before is more
            // specific, and an acquire that itself timed out would report no cause.
            let dialling = self.address.connect(acquire);
            let Ok(known_target) = timeout_at(retry.last_moment(), dialling).await else {
                break;
            };
            match known_target {
                Ok(connection) => return Ok(connection),
                Err(denied) if denied.is_server_full => why = denied.why,
                Err(denied) if denied.why.kind() == ErrorKind::ConnectTimeout => break,
                Err(denied) => return Err(retry.annotate(denied.why)),
            }
        }
        Err(retry.annotate(why))
    }

    /// An idle connection, if there is one now and it can be used.
    async fn given_back(self: &Arc<Self>, user: User) -> Option<OpenConnection<DB>> {
        // The caller's permit is for the connection that it opens. This one needs its own permit until it is known to
        // be used instead.
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        let idle = self.pop_idle(user)?;
        let history = idle.history(user);
        let mut checkout = self.check_out(user, idle.connection, permit);
        let usable = match self.check_idle(&mut checkout, &history).await {
            IdleCheck::Ready => true,
            IdleCheck::NeedsPing => self.replies(&mut checkout).await,
            IdleCheck::Gone => false,
            IdleCheck::Running => {
                checkout.may_run = true;
                false
            }
        };
        if usable {
            return checkout.connection.take();
        }
        if !checkout.may_run {
            checkout.leave();
        }
        None
    }

    /// Whether the server replies to a ping.
    async fn replies(&self, checkout: &mut Checkout<DB>) -> bool {
        let Some(connection) = &mut checkout.connection else {
            return false;
        };
        let longest = self.reply_within(self.settings.ping);
        self.address
            .round_trip()
            .of(connection.answers(longest))
            .await
    }

    /// Checks an idle connection without a ping. If its session has another invocation's state, it is reset first.
    async fn check_idle(&self, checkout: &mut Checkout<DB>, history: &History) -> IdleCheck {
        let user = checkout.user();
        let epoch = self.lock().epoch;
        // If this future is dropped, it is unknown what still runs.
        checkout.may_run = history.dirty || history.unrecognized || history.is_foreign;
        let Some(connection) = &mut checkout.connection else {
            return IdleCheck::Gone;
        };
        let now = Stamp::now();
        let longest = self.reply_within(self.settings.ping);
        if history.dirty && !connection.becomes_quiet(longest).await {
            return IdleCheck::Running;
        }
        let too_old = self
            .settings
            .lifetime
            .is_some_and(|lifetime| connection.age(now) > lifetime);
        let is_gone =
            too_old || connection.epoch() < epoch || history.idle_for > self.settings.idle;
        if history.is_foreign && !is_gone {
            match self.reset(connection, user, longest).await {
                Reset::Clean => {
                    checkout.may_run = false;
                    return IdleCheck::Ready;
                }
                Reset::Unfit => {
                    checkout.may_run = false;
                    return IdleCheck::Gone;
                }
                Reset::Lost => return IdleCheck::Running,
            }
        }
        // A reset has already recognized a reply.
        if history.unrecognized && !connection.recognized(longest).await {
            return IdleCheck::Running;
        }
        checkout.may_run = false;
        if is_gone {
            return IdleCheck::Gone;
        }
        if history.idle_for <= self.settings.trust {
            IdleCheck::Ready
        } else {
            IdleCheck::NeedsPing
        }
    }

    /// Returns the connection if it is young and alive, or a new one in its place; `None` if a statement still runs on
    /// it.
    pub(super) async fn reuse_or_open(
        self: &Arc<Self>,
        mut checkout: Checkout<DB>,
        history: &History,
        acquire: &AcquireContext,
    ) -> Result<Option<Checkout<DB>>, Error> {
        let user = checkout.user();
        match self.check_idle(&mut checkout, history).await {
            IdleCheck::Ready => return Ok(Some(checkout)),
            IdleCheck::NeedsPing => {}
            IdleCheck::Gone => {
                if history.idle_for > self.settings.idle {
                    // The others have been idle even longer.
                    self.discard_idle(|idle| idle.owner.is_none());
                }
                checkout.replace(self.open(user, acquire).await?);
                return Ok(Some(checkout));
            }
            IdleCheck::Running => {
                checkout.may_run = true;
                return Ok(None);
            }
        }
        let round_trip = self.address.round_trip();
        let hedge_after = round_trip.at_least(HEDGE_AFTER, HEDGE_ROUND_TRIPS);
        let patience = self.reply_within(self.settings.ping);
        let Some(connection) = &mut checkout.connection else {
            return Ok(None);
        };
        let ping = round_trip.of(connection.answers(acquire.remaining()));
        match hedge(ping, hedge_after, patience, self.open(user, acquire)).await {
            HedgeOutcome::Kept => return Ok(Some(checkout)),
            HedgeOutcome::Fresh(fresh) => checkout.replace(fresh),
            HedgeOutcome::Neither(error) => {
                self.discard_idle(|idle| idle.owner.is_none());
                checkout.leave();
                return Err(error);
            }
        }
        // The others have been idle even longer: they are dead for the same reason.
        self.discard_idle(|idle| idle.owner.is_none());
        Ok(Some(checkout))
    }

    /// Opens up to `wanted` connections ahead of their use.
    pub(in crate::drivers::sql) async fn connect(
        self: &Arc<Self>,
        wanted: u32,
        acquire: &AcquireContext,
    ) -> Result<(), Error> {
        let ahead = self.add_user();
        let _opening = self.waits_for(ahead.user(), Waiting::Opening);
        for _ in 0..wanted {
            let connection = self.open(ahead.user(), acquire).await?;
            self.lock().idle.push(Idle {
                connection,
                since: Stamp::now(),
                owner: None,
                dirty: false,
                unrecognized: false,
            });
        }
        Ok(())
    }
}
