//! Finds out why no connection is available: sqlx's pool silently retries a refused connection, and reports every cause
//! as the same timeout.

use super::SqlxPool;
use crate::{
    config::CONNECT_DIAGNOSIS_DELAY,
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
    /// The error that explains a symptom that sqlx does not explain.
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

    /// Whether the pool has lost a connection that was not discarded here.
    pub(super) fn has_lost_one(&self) -> bool {
        self.state.opening(self.pool.size());
        self.state.has_lost_one()
    }

    /// Waits until the server has refused the pool's connections for longer than usual, and opens a connection to find
    /// out why. If the cause is permanent and sqlx would hide it, it becomes the error of every later attempt to
    /// connect.
    ///
    /// While the pool's own attempt may still succeed, no such connection is opened: the pool could not have it.
    pub(super) async fn probe_server(&self) {
        let mut patience = CONNECT_DIAGNOSIS_DELAY;
        loop {
            self.turned_away_for(patience).await;
            // One probe at a time, however many invocations wait.
            if let Some(_asking) = Asking::begin(&self.state.asking) {
                let options = self.state.options();
                let asked = timeout(self.acquire.timeout(), Box::pin(options.connect())).await;
                match asked {
                    Ok(Err(error)) => {
                        self.record(error::connecting::<DB>(
                            &self.acquire,
                            &DB::target(&options),
                            error,
                        ));
                    }
                    Ok(Ok(connection)) => {
                        self.state.may_pass(None);
                        let _ = timeout(self.acquire.timeout(), connection.close()).await;
                    }
                    Err(_) => self.state.may_pass(None),
                }
            }
            if self.state.failure().is_some() {
                return;
            }
            // The server accepts connections, or does not even reply: probe less often.
            patience *= 2;
        }
    }

    fn record(&self, why: Error) {
        // A cause that may pass within `acquire_ms`: sqlx is right to retry.
        if why.kind() == ErrorKind::ConnectionRefused {
            self.state.fail_connecting(why);
        } else {
            self.state.may_pass(Some(why));
        }
    }

    /// Resolves when a connection has been opening for `patience`, and the server has refused the pool meanwhile.
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
            let refusals = self.state.refusals(on_the_way);
            let now = opening.get_or_insert_with(|| Opening {
                alarm: Box::pin(unconstrained(sleep(patience))),
                refusals,
                prompt: false,
                waits: Waits::default(),
            });
            // It is polled whenever the handler is, and so after each step of the login.
            now.waits.end();
            let waited = now.waits.longest();
            if !waited.is_zero() {
                self.state.address.round_trip().guess(waited);
            }
            if let Some(port) = port.filter(|_| !now.prompt) {
                now.prompt = nodelay::set_on_all(port);
            }
            // A task that connects on its own does not wake this one.
            while now.alarm.as_mut().poll(cx).is_ready() {
                if refusals > now.refusals {
                    return Poll::Ready(());
                }
                now.alarm = Box::pin(unconstrained(sleep(CONNECT_DIAGNOSIS_DELAY)));
            }
            now.waits.begin();
            Poll::Pending
        })
        .await;
    }
}

/// Connections that are being opened, since the first of them.
struct Opening {
    alarm: Pin<Box<Unconstrained<Sleep>>>,
    /// The number of refusals at that time.
    refusals: u32,
    /// The socket has `TCP_NODELAY`.
    prompt: bool,
    waits: Waits,
}

/// Marks a probe that is running.
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
