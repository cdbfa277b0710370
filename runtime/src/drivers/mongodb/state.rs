//! What the driver's events say about a client's connections.

use crate::{resource::Usage, util::lock::lock};
use ::mongodb::{
    error::{Error, ErrorKind},
    event::{
        EventHandler,
        cmap::{CmapEvent, ConnectionClosedReason},
        sdam::SdamEvent,
    },
    options::{ClientOptions, ServerAddress},
};
use std::{
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};
use tokio::sync::Notify;

/// See the module.
#[derive(Default)]
pub(super) struct State {
    open: AtomicU32,
    in_use: AtomicU32,
    /// A connection came back.
    returned: Notify,
    /// A connection was lost, or the whole pool was: the others cannot be trusted either.
    lost: AtomicBool,
    /// Somebody dropped an operation that the server has begun.
    given_up: AtomicBool,
    abandoned: AtomicBool,
    /// The server that answered last; `None` if none has ever answered.
    heard: Mutex<Option<Heard>>,
    /// Why a server could not be reached, or has not let us in, when that was last tried; `None` once it could or has.
    failure: Mutex<Option<(ServerAddress, Error)>>,
}

/// A server's answer.
#[derive(Clone)]
pub(super) struct Heard {
    /// The replica set that the server is in.
    pub(super) set: Option<String>,
}

impl State {
    /// The state of a client that is going to be opened with `options`.
    pub(super) fn attach(options: &mut ClientOptions) -> Arc<Self> {
        let state = Arc::<Self>::default();
        let pools = Arc::clone(&state);
        options.cmap_event_handler = Some(EventHandler::callback(move |event| pools.pool(&event)));
        let servers = Arc::clone(&state);
        options.sdam_event_handler =
            Some(EventHandler::callback(move |event| servers.server(event)));
        state
    }

    fn pool(&self, event: &CmapEvent) {
        match event {
            CmapEvent::ConnectionCreated(_) => add_one(&self.open),
            CmapEvent::ConnectionClosed(closed) => {
                take_one(&self.open);
                match closed.reason {
                    ConnectionClosedReason::Error => self.spoil(),
                    ConnectionClosedReason::Dropped => self.given_up.store(true, Ordering::Release),
                    _ => {}
                }
            }
            CmapEvent::ConnectionReady(_) => *lock(&self.failure) = None,
            CmapEvent::ConnectionCheckedOut(_) => add_one(&self.in_use),
            CmapEvent::ConnectionCheckedIn(_) => {
                take_one(&self.in_use);
                self.returned.notify_waiters();
            }
            CmapEvent::PoolCleared(_) => self.spoil(),
            _ => {}
        }
    }

    fn server(&self, event: SdamEvent) {
        match event {
            SdamEvent::ServerHeartbeatFailed(failed) => {
                *lock(&self.failure) = Some((failed.server_address, failed.failure));
            }
            SdamEvent::ServerHeartbeatSucceeded(succeeded) => {
                let set = succeeded.reply.get_str("setName").ok();
                *lock(&self.heard) = Some(Heard {
                    set: set.map(str::to_owned),
                });
                // It answers also those whom it does not let in.
                lock(&self.failure).take_if(|(_, failure)| !is_denial(failure));
            }
            SdamEvent::ServerDescriptionChanged(changed) => {
                let failure = changed.new_description.error().cloned();
                if let Some(failure) = failure.filter(is_denial) {
                    *lock(&self.failure) = Some((changed.address, failure));
                }
            }
            _ => {}
        }
    }

    pub(super) fn usage(&self) -> Usage {
        Usage::new(
            self.open.load(Ordering::Acquire),
            self.in_use.load(Ordering::Acquire),
        )
    }

    pub(super) fn failure(&self) -> Option<(ServerAddress, Error)> {
        lock(&self.failure).clone()
    }

    /// What the server that answered last said, if any has ever answered.
    pub(super) fn heard(&self) -> Option<Heard> {
        lock(&self.heard).clone()
    }

    /// Waits until every connection is back in its pool.
    pub(super) async fn quiet(&self) {
        loop {
            let mut returned = pin!(self.returned.notified());
            returned.as_mut().enable();
            if self.in_use.load(Ordering::Acquire) == 0 {
                return;
            }
            returned.await;
        }
    }

    pub(super) fn spoil(&self) {
        self.lost.store(true, Ordering::Release);
    }

    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    /// Whether the client must serve no further invocation.
    pub(super) fn is_spoilt(&self) -> bool {
        self.lost.load(Ordering::Acquire) || self.left_something()
    }

    /// Whether the server may still be at work for nobody.
    pub(super) fn left_something_running(&self) -> bool {
        self.left_something() || self.in_use.load(Ordering::Acquire) > 0
    }

    fn left_something(&self) -> bool {
        self.given_up.load(Ordering::Acquire) || self.abandoned.load(Ordering::Acquire)
    }
}

/// Whether a server was reached that has not let us in.
fn is_denial(failure: &Error) -> bool {
    matches!(&*failure.kind, ErrorKind::Authentication { .. })
}

fn add_one(count: &AtomicU32) {
    count.fetch_add(1, Ordering::AcqRel);
}

fn take_one(count: &AtomicU32) {
    let less = |count: u32| Some(count.saturating_sub(1));
    // Never refused: it always says `Some`.
    let _ = count.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
}
