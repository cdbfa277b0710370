//! How a connection comes to be: a new one, or an idle one that is still alive.

use super::{Idle, Set, Waiting};
use crate::{
    clock::Stamp,
    config::{HEDGE_AFTER, HEDGE_ROUND_TRIPS},
    error::{Error, ErrorKind},
    resource::{
        Acquire,
        sql::{
            driver::Driver,
            link::Link,
            retry::Retry,
            thaw::{Thawed, thaw},
        },
    },
};
use tokio::time::{sleep, timeout_at};

/// What became of an idle connection.
enum Looked<DB: Driver> {
    /// It can be used as it is.
    Serves(Link<DB>),
    /// It has idled for so long that it has to be asked first.
    HasSlept(Link<DB>),
    Gone,
}

impl<DB: Driver> Set<DB> {
    /// A new connection. A server without room for it is asked again within the acquire; until it has
    /// some, what somebody else gives back does as well.
    pub(super) async fn open(&self, acquire: &Acquire) -> Result<Link<DB>, Error> {
        let retry = Retry::new(acquire.until());
        match self.address.dial(acquire).await {
            Ok(link) => Ok(link),
            // Boxed: it is large, and few invocations meet a full server.
            Err(denied) if denied.for_lack_of_room => {
                Box::pin(self.open_in_a_full_server(denied.why, retry, acquire)).await
            }
            Err(denied) => Err(denied.why),
        }
    }

    async fn open_in_a_full_server(
        &self,
        mut why: Error,
        mut retry: Retry,
        acquire: &Acquire,
    ) -> Result<Link<DB>, Error> {
        while let Some(wait) = retry.next_wait() {
            self.lock().turned_away = Some(retry.told(why.clone()));
            sleep(wait).await;
            if let Some(link) = self.given_back().await {
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
                Err(denied) if denied.for_lack_of_room => why = denied.why,
                Err(denied) if denied.why.kind() == ErrorKind::ConnectTimeout => break,
                Err(denied) => return Err(retry.told(denied.why)),
            }
        }
        Err(retry.told(why))
    }

    /// An idle connection, if there is one by now and it serves.
    async fn given_back(&self) -> Option<Link<DB>> {
        match self.look_at(self.pop_idle()?).await {
            Looked::Serves(link) => Some(link),
            Looked::HasSlept(mut link) => {
                if self.replies(&mut link).await {
                    return Some(link);
                }
                self.let_go(link);
                None
            }
            Looked::Gone => None,
        }
    }

    /// Whether the server replies to a ping.
    async fn replies(&self, link: &mut Link<DB>) -> bool {
        let longest = self.reply_within(self.settings.ping);
        self.address.round_trip().of(link.answers(longest)).await
    }

    /// What can be told of an idle connection without asking the server.
    async fn look_at(&self, idle: Idle<DB>) -> Looked<DB> {
        let now = Stamp::now();
        let idle_for = now.since(idle.since);
        let mut link = idle.link;
        if idle.unrecognized {
            let longest = self.reply_within(self.settings.ping);
            let Some(recognized) = self.recognized(link, longest).await else {
                return Looked::Gone;
            };
            link = recognized;
        } else if idle.unsettled {
            let longest = self.reply_within(self.settings.ping);
            let Some(quiet) = self.quietened(link, longest).await else {
                return Looked::Gone;
            };
            link = quiet;
        }
        let too_old = self
            .settings
            .lifetime
            .is_some_and(|longest| link.age(now) > longest);
        if too_old {
            link.close().await;
            return Looked::Gone;
        }
        if idle_for > self.settings.idle {
            self.forget_idle();
            return Looked::Gone;
        }
        if idle_for <= self.settings.trust {
            Looked::Serves(link)
        } else {
            Looked::HasSlept(link)
        }
    }

    /// The connection if it is young and alive, or a new one in its place.
    pub(super) async fn revive(
        &self,
        idle: Idle<DB>,
        acquire: &Acquire,
    ) -> Result<Link<DB>, Error> {
        let mut link = match self.look_at(idle).await {
            Looked::Serves(link) => return Ok(link),
            Looked::HasSlept(link) => link,
            Looked::Gone => return self.open(acquire).await,
        };
        let round_trip = self.address.round_trip();
        let hedge_after = round_trip.at_least(HEDGE_AFTER, HEDGE_ROUND_TRIPS);
        let patience = self.reply_within(self.settings.ping);
        let ping = round_trip.of(link.answers(acquire.left()));
        match thaw(ping, hedge_after, patience, self.open(acquire)).await {
            Thawed::Kept => Ok(link),
            Thawed::Fresh(fresh) => {
                // The others have idled for longer still: what ended this one has ended them.
                self.forget_idle();
                Ok(fresh)
            }
            Thawed::Neither(error) => {
                self.forget_idle();
                Err(error)
            }
        }
    }

    /// Opens up to `wanted` connections ahead of their use.
    pub(in crate::resource::sql) async fn connect(
        &self,
        wanted: u32,
        acquire: &Acquire,
    ) -> Result<(), Error> {
        let _opening = self.waits_for(Waiting::Opening);
        for _ in 0..wanted {
            let link = self.open(acquire).await?;
            self.lock().idle.push(Idle {
                link,
                since: Stamp::now(),
                unsettled: false,
                unrecognized: false,
                used: false,
            });
        }
        Ok(())
    }
}
