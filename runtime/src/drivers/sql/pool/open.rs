//! How a connection comes to be: a new one, or an idle one that is still alive.

use super::{Checkout, History, Idle, Pool};
use crate::{
    config::{HEDGE_AFTER, HEDGE_ROUND_TRIPS},
    drivers::sql::{
        connect::retry::Retry,
        connection::{
            Link, Reset,
            hedge::{HedgeOutcome, hedge},
        },
        driver::Driver,
        users::{User, Waiting},
    },
    error::{Error, ErrorKind},
    resource::Acquire,
    util::clock::Stamp,
};
use std::sync::Arc;
use tokio::time::{sleep, timeout_at};

/// Whether an idle connection can be used.
enum IdleCheck {
    /// As it is.
    Ready,
    /// It has idled for so long that it has to be asked first.
    NeedsPing,
    /// No.
    Gone,
    /// No, and something may still run on it.
    Running,
}

impl<DB: Driver> Pool<DB> {
    /// A new connection. A server without room for it is asked again within the acquire; until it has
    /// some, what somebody else gives back does as well.
    pub(super) async fn open(
        self: &Arc<Self>,
        user: User,
        acquire: &Acquire,
    ) -> Result<Link<DB>, Error> {
        let epoch = self.lock().epoch;
        let retry = Retry::new(acquire.until());
        let link = match self.address.dial(acquire).await {
            Ok(link) => link,
            // Boxed: it is large, and few invocations meet a full server.
            Err(denied) if denied.is_server_full => {
                Box::pin(self.open_in_a_full_server(user, denied.why, retry, acquire)).await?
            }
            Err(denied) => return Err(denied.why),
        };
        Ok(link.of_epoch(epoch))
    }

    async fn open_in_a_full_server(
        self: &Arc<Self>,
        user: User,
        mut why: Error,
        mut retry: Retry,
        acquire: &Acquire,
    ) -> Result<Link<DB>, Error> {
        while let Some(wait) = retry.next_wait() {
            self.lock().turned_away = Some(retry.told(why.clone()));
            sleep(wait).await;
            if let Some(link) = self.given_back(user).await {
                return Ok(link);
            }
            // A last try that runs out of time knows less than the one before, and whoever waits for the
            // whole acquire nothing at all: it is over a little sooner.
            let dialling = self.address.dial(acquire);
            let Ok(dialled) = timeout_at(retry.last_moment(), dialling).await else {
                break;
            };
            match dialled {
                Ok(link) => return Ok(link),
                Err(denied) if denied.is_server_full => why = denied.why,
                Err(denied) if denied.why.kind() == ErrorKind::ConnectTimeout => break,
                Err(denied) => return Err(retry.told(denied.why)),
            }
        }
        Err(retry.told(why))
    }

    /// An idle connection, if there is one by now and it can be used.
    async fn given_back(self: &Arc<Self>, user: User) -> Option<Link<DB>> {
        // The caller's permit is for the connection that it opens: this one needs another one until it is known
        // that it is used instead.
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        let idle = self.pop_idle(user)?;
        let history = idle.history(user);
        let mut checkout = self.check_out(user, idle.link, permit);
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
            return checkout.link.take();
        }
        if !checkout.may_run {
            checkout.leave();
        }
        None
    }

    /// Whether the server replies to a ping.
    async fn replies(&self, checkout: &mut Checkout<DB>) -> bool {
        let Some(link) = &mut checkout.link else {
            return false;
        };
        let longest = self.reply_within(self.settings.ping);
        self.address.round_trip().of(link.answers(longest)).await
    }

    /// What can be told of an idle connection without a ping. What another invocation has left in its session is
    /// reset first.
    async fn check_idle(&self, checkout: &mut Checkout<DB>, history: &History) -> IdleCheck {
        let user = checkout.user();
        let epoch = self.lock().epoch;
        // Given up half-way, nobody knows what still runs.
        checkout.may_run = history.unsettled || history.unrecognized || history.is_foreign;
        let Some(link) = &mut checkout.link else {
            return IdleCheck::Gone;
        };
        let now = Stamp::now();
        let longest = self.reply_within(self.settings.ping);
        if history.unsettled && !link.becomes_quiet(longest).await {
            return IdleCheck::Running;
        }
        let too_old = self
            .settings
            .lifetime
            .is_some_and(|lifetime| link.age(now) > lifetime);
        let is_gone = too_old || link.epoch() < epoch || history.idle_for > self.settings.idle;
        if history.is_foreign && !is_gone {
            match self.reset(link, user, longest).await {
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
        // A reset is a reply that was recognized.
        if history.unrecognized && !link.recognized(longest).await {
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

    /// The connection if it is young and alive, or a new one in its place; `None` if something still runs on it.
    pub(super) async fn reuse_or_open(
        self: &Arc<Self>,
        mut checkout: Checkout<DB>,
        history: &History,
        acquire: &Acquire,
    ) -> Result<Option<Checkout<DB>>, Error> {
        let user = checkout.user();
        match self.check_idle(&mut checkout, history).await {
            IdleCheck::Ready => return Ok(Some(checkout)),
            IdleCheck::NeedsPing => {}
            IdleCheck::Gone => {
                if history.idle_for > self.settings.idle {
                    // The others have idled for longer still.
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
        let Some(link) = &mut checkout.link else {
            return Ok(None);
        };
        let ping = round_trip.of(link.answers(acquire.left()));
        match hedge(ping, hedge_after, patience, self.open(user, acquire)).await {
            HedgeOutcome::Kept => return Ok(Some(checkout)),
            HedgeOutcome::Fresh(fresh) => checkout.replace(fresh),
            HedgeOutcome::Neither(error) => {
                self.discard_idle(|idle| idle.owner.is_none());
                checkout.leave();
                return Err(error);
            }
        }
        // The others have idled for longer still: what ended this one has ended them.
        self.discard_idle(|idle| idle.owner.is_none());
        Ok(Some(checkout))
    }

    /// Opens up to `wanted` connections ahead of their use.
    pub(in crate::drivers::sql) async fn connect(
        self: &Arc<Self>,
        wanted: u32,
        acquire: &Acquire,
    ) -> Result<(), Error> {
        let ahead = self.add_user();
        let _opening = self.waits_for(ahead.user(), Waiting::Opening);
        for _ in 0..wanted {
            let link = self.open(ahead.user(), acquire).await?;
            self.lock().idle.push(Idle {
                link,
                since: Stamp::now(),
                owner: None,
                unsettled: false,
                unrecognized: false,
            });
        }
        Ok(())
    }
}
