//! A client's connections, as the driver's events report them.

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

/// The state of one client's connections.
#[derive(Default)]
pub(super) struct State {
    open: AtomicU32,
    in_use: AtomicU32,
    /// Notified when a connection returns to the pool.
    returned: Notify,
    /// A connection was lost, or a pool was cleared: the other connections cannot be trusted either.
    lost: AtomicBool,
    /// The client dropped an operation that the server had started.
    given_up: AtomicBool,
    abandoned: AtomicBool,
    /// The last reply of a server; `None` if none has ever replied.
    heard: Mutex<Option<Heard>>,
    /// Why a server could not be reached or refused the login at the last try; `None` after a success.
    failure: Mutex<Option<(ServerAddress, Error)>>,
}

/// A server's reply.
#[derive(Clone)]
pub(super) struct Heard {
    /// The server's replica set.
    pub(super) set: Option<String>,
}

impl State {
    /// Attaches a new state to the options of a client that is about to be opened.
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
                    ConnectionClosedReason::Error => self.mark_broken(),
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
            CmapEvent::PoolCleared(_) => self.mark_broken(),
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
                // The server also replies to clients whose login it refuses.
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

    /// The last reply of a server, if any has ever replied.
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

    pub(super) fn mark_broken(&self) {
        self.lost.store(true, Ordering::Release);
    }

    pub(super) fn stop(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    /// Whether the client must not be reused.
    pub(super) fn is_broken(&self) -> bool {
        self.lost.load(Ordering::Acquire) || self.left_something()
    }

    /// Whether the server may still run operations of this client.
    pub(super) fn left_something_running(&self) -> bool {
        self.left_something() || self.in_use.load(Ordering::Acquire) > 0
    }

    fn left_something(&self) -> bool {
        self.given_up.load(Ordering::Acquire) || self.abandoned.load(Ordering::Acquire)
    }
}

/// Whether the server was reached and refused the login.
fn is_denial(failure: &Error) -> bool {
    matches!(&*failure.kind, ErrorKind::Authentication { .. })
}

fn add_one(count: &AtomicU32) {
    count.fetch_add(1, Ordering::AcqRel);
}

fn take_one(count: &AtomicU32) {
    let less = |count: u32| Some(count.saturating_sub(1));
    // Cannot fail: the closure always returns `Some`.
    let _ = count.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
}
