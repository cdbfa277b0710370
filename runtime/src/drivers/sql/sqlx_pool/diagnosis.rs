//! Why nobody gets a connection: sqlx's pool retries a refused or turned-away connection without_logging, and
//! reports every cause as one timeout.

use super::SqlxPool;
use crate::{
    config::ASK_WHY_AFTER,
    drivers::sql::{
        Driver,
        connect::{nodelay, round_trip::Waits},
        error,
        users::Waiting,
    },
    error::{Error, ErrorKind},
    resource::{Resource, Symptom},
};
use sqlx::{ConnectOptions, Connection};
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::Poll,
    time::Duration,
};
use tokio::{
    task::coop::{Unconstrained, unconstrained},
    time::{Sleep, sleep, timeout},
};

impl<DB: Driver> SqlxPool<DB> {
    /// What is known about a symptom that sqlx does not explain.
    pub(super) fn diagnosis(&self, symptom: Symptom) -> Option<Error> {
        if let Some(failure) = self.state.failure() {
            return Some(failure);
        }
        match symptom {
            Symptom::TimedOut => {}
            Symptom::Outdated => {
                self.state.outdated();
                return None;
            }
            _ => return None,
        }
        let connecting = || error::connect_timed_out::<DB>(&self.acquire, &self.state.target());
        match self.state.waiting_for() {
            Some(Waiting::Opening) => Some(self.state.reason().unwrap_or_else(connecting)),
            Some(Waiting::Return) => Some(error::all_in_use(&self.acquire)),
            None => self.has_lost_one().then(connecting),
        }
    }

    /// Whether the pool has lost a connection without our doing.
    pub(super) fn has_lost_one(&self) -> bool {
        self.state.opening(self.pool.size());
        self.state.has_lost_one()
    }

    /// Waits until the server has turned the pool away for longer than usual, and asks the server itself
    /// why. When it is the one answer that sqlx would keep to itself and that does not pass, whoever
    /// tries to connect gets it as an error.
    ///
    /// As long as the pool's own try may succeed nobody asks: the connection that asks is one that the
    /// pool has not got.
    pub(super) async fn find_out(&self) {
        let mut patience = ASK_WHY_AFTER;
        loop {
            self.turned_away_for(patience).await;
            // One question at a time, however many invocations wait.
            if let Some(_asking) = Asking::begin(&self.state.asking) {
                let options = self.state.options();
                let asked = timeout(self.acquire.within(), Box::pin(options.connect())).await;
                match asked {
                    Ok(Err(error)) => {
                        self.learn(error::connecting::<DB>(
                            &self.acquire,
                            &DB::target(&options),
                            error,
                        ));
                    }
                    Ok(Ok(connection)) => {
                        self.state.may_pass(None);
                        let _ = timeout(self.acquire.within(), connection.close()).await;
                    }
                    Err(_) => self.state.may_pass(None),
                }
            }
            if self.state.failure().is_some() {
                return;
            }
            // The server answers, or does not even do that: no reason to ask more and more often.
            patience *= 2;
        }
    }

    fn learn(&self, why: Error) {
        // What may pass while `acquire_ms` lasts, sqlx tries again, and is right.
        if why.kind() == ErrorKind::Refused {
            self.state.give_up(why);
        } else {
            self.state.may_pass(Some(why));
        }
    }

    /// Resolves when a connection has been on its way for `patience`, and the pool has been turned away
    /// meanwhile.
    async fn turned_away_for(&self, patience: Duration) {
        let mut opening: Option<Opening> = None;
        let port = DB::port(&self.state.options());
        poll_fn(|cx| {
            let on_the_way = self.state.opening(self.pool.size());
            let waiting_for = if on_the_way > 0 {
                Some(Waiting::Opening)
            } else if self.usage().in_use >= self.state.settings.max {
                Some(Waiting::Return)
            } else {
                None
            };
            self.state.wait_for(waiting_for);
            if waiting_for != Some(Waiting::Opening) {
                opening = None;
                return Poll::Pending;
            }
            let turned_away = self.state.turned_away(on_the_way);
            let now = opening.get_or_insert_with(|| Opening {
                alarm: Box::pin(unconstrained(sleep(patience))),
                turned_away,
                prompt: false,
                waits: Waits::default(),
            });
            // Polled whenever the handler is, so after each step of the login.
            now.waits.end();
            let waited = now.waits.longest();
            if !waited.is_zero() {
                self.state.address.round_trip().guess(waited);
            }
            if let Some(port) = port.filter(|_| !now.prompt) {
                now.prompt = nodelay::set_on_all(port);
            }
            // Who connects in a task of their own wakes nobody here.
            while now.alarm.as_mut().poll(cx).is_ready() {
                if turned_away > now.turned_away {
                    return Poll::Ready(());
                }
                now.alarm = Box::pin(unconstrained(sleep(ASK_WHY_AFTER)));
            }
            now.waits.begin();
            Poll::Pending
        })
        .await;
    }
}

/// Connections on their way, since the first of them is.
struct Opening {
    alarm: Pin<Box<Unconstrained<Sleep>>>,
    /// How often the pool had been turned away by then.
    turned_away: u32,
    /// The socket sends without delay.
    prompt: bool,
    waits: Waits,
}

/// The one who asks.
struct Asking<'a>(&'a AtomicBool);

impl<'a> Asking<'a> {
    fn begin(asking: &'a AtomicBool) -> Option<Self> {
        let is_first = !asking.swap(true, Ordering::AcqRel);
        is_first.then_some(Self(asking))
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
