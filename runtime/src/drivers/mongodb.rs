//! MongoDB: `&mongodb::Client` and `&mongodb::Database`.
//!
//! The driver's client is made to be opened once and reused. Unlike a SQL database, it is closed after every invocation
//! only with `close = "always"`. This module adapts it to frozen environments:
//!
//! * After a pause, a client is pinged before it is injected, with a timeout. A client that does not reply is replaced.
//!   The driver alone would wait on a dead socket forever.
//! * Server selection and connecting are bounded by `acquire_ms`; the driver's default is 30 s. The driver has no
//!   timeout for a free connection of the pool: the deadline ends that wait, with an error that says that all
//!   connections are in use.
//! * Servers are monitored by polling, which needs one connection per server, instead of two streams that a freeze
//!   would break.
//! * Dropped operations are stopped on the server before the client is closed.
//! * A client that lost a connection is not reused.
//!
//! A handler that takes both a `&Client` and a `&Database` has two clients: each parameter has its own slot. Take the
//! `&Client`, and get the database from it.

mod blame;
mod error;
mod options;
mod state;
mod stop;

use self::state::State;
use crate::{
    config::{Close, DEFAULT_KEPT_IDLE, Defaults, Settings},
    error::Error,
    resource::{
        AcquireContext, Handle, Health, InjectRef, Resource, SharedHandle, Symptom,
        TransactionPoolingSafe, Usage,
    },
};
use ::mongodb::{Client, Database, bson::doc, options::ClientOptions};
use std::{fmt, sync::Arc, time::Duration};
use tokio::time::timeout;

pub(crate) use error::{kind, symptom};

/// A client that is opened, reset and closed by invocations: the resource behind `&mongodb::Client` (`T` is `Client`)
/// and `&mongodb::Database` (`T` is `Database`).
pub struct MongoResource<T> {
    injected: T,
    client: Client,
    options: ClientOptions,
    settings: Settings,
    acquire: AcquireContext,
    state: Arc<State>,
}

/// A type that is injected from a client. Sealed: implemented for `mongodb::Client` and `mongodb::Database`.
pub trait MongoHandle: sealed::Sealed + Clone + Send + Sync + 'static {
    /// The name in errors and in the timeline of local mode.
    const NAME: &'static str;

    /// Gets the value from the client, which was opened with a URL.
    ///
    /// # Errors
    /// If the URL lacks a required part.
    fn of(client: &Client, acquire: &AcquireContext) -> Result<Self, Error>;
}

impl sealed::Sealed for Client {}

impl MongoHandle for Client {
    const NAME: &'static str = "MongoDB client";

    fn of(client: &Client, _: &AcquireContext) -> Result<Self, Error> {
        Ok(client.clone())
    }
}

impl sealed::Sealed for Database {}

impl MongoHandle for Database {
    const NAME: &'static str = "MongoDB database";

    fn of(client: &Client, acquire: &AcquireContext) -> Result<Self, Error> {
        client
            .default_database()
            .ok_or_else(|| options::no_database(acquire))
    }
}

impl InjectRef for Client {
    type Handle = SharedHandle<MongoResource<Self>>;

    fn borrow(handle: &Self::Handle) -> &Self {
        &handle.resource().injected
    }
}

impl InjectRef for Database {
    type Handle = SharedHandle<MongoResource<Self>>;

    fn borrow(handle: &Self::Handle) -> &Self {
        &handle.resource().injected
    }
}

impl<T: MongoHandle> MongoResource<T> {
    /// Sends one `ping`, over the connection that the next operation will use.
    async fn ping(&self) -> Result<(), ::mongodb::error::Error> {
        let ping = doc! { "ping": 1 };
        self.client.database("admin").run_command(ping).await?;
        Ok(())
    }

    /// Closes the client without waiting for open cursors and sessions.
    async fn shut_down(&self) {
        self.client.clone().shutdown().immediate(true).await;
    }

    /// Closes a client whose connections may be dead. The driver ends its sessions on the way, over any of its
    /// connections: each attempt that times out uses up a dead one.
    async fn force_shutdown(&self) {
        for _ in 0..=self.state.usage().open {
            if timeout(self.settings.ping, self.shut_down()).await.is_ok() {
                return;
            }
        }
    }
}

impl<T: MongoHandle> Resource for MongoResource<T> {
    const NAME: &'static str = T::NAME;
    const DEFAULTS: Defaults = Defaults::KEPT
        .with_env(Some("MONGODB_URI"))
        .with_idle(DEFAULT_KEPT_IDLE);

    async fn open(acquire: &AcquireContext) -> Result<Self, Error> {
        let settings = *acquire.settings();
        // The driver's timeouts are fixed when the client is opened. Only a client that this invocation closes may have
        // them shortened to this invocation's deadline.
        let acquire = match settings.close {
            Close::Always => *acquire,
            _ => acquire.unclamped(),
        };
        let mut options = options::read(&acquire).await?;
        let state = State::attach(&mut options);
        let client = Client::with_options(options.clone())
            .map_err(|error| options::not_taken(&acquire, &error))?;
        Ok(Self {
            injected: T::of(&client, &acquire)?,
            client,
            options,
            settings,
            acquire,
            state,
        })
    }

    async fn connect(&self, acquire: &AcquireContext) -> Result<(), Error> {
        let connecting = async {
            // The driver's pools connect ahead only after their server has replied.
            self.ping().await?;
            if self.settings.min > 0 {
                self.client.warm_connection_pool().await;
            }
            Ok(())
        };
        connecting.await.map_err(|error| {
            symptom(&error)
                .and_then(|symptom| self.explain(symptom))
                .unwrap_or_else(|| error::connecting(acquire, &self.options, error))
        })
    }

    async fn check(&self, idle: Duration) -> Health {
        if self.state.is_broken() {
            return Health::Broken;
        }
        // Without an open connection there is no dead one.
        if idle <= self.settings.trust || self.state.usage().open == 0 {
            return Health::Healthy;
        }
        if let Ok(Ok(())) = timeout(self.settings.ping, self.ping()).await {
            return Health::Healthy;
        }
        self.state.mark_broken();
        Health::Broken
    }

    fn explain(&self, symptom: Symptom) -> Option<Error> {
        match symptom {
            Symptom::TimedOut => {}
            // The pool was cleared because another connection failed, and the cause of that failure is known.
            Symptom::Disconnected => {
                let (address, failure) = self.state.failure()?;
                let (acquire, options) = (&self.acquire, &self.options);
                return Some(error::unreachable(acquire, options, &address, failure));
            }
            // Once the server has accepted the login, the connection is not lost.
            Symptom::Denied if self.state.is_broken() => {
                return Some(error::denied(&self.acquire, &self.options));
            }
            _ => return None,
        }
        if let Some((address, failure)) = self.state.failure() {
            let options = &self.options;
            return Some(error::unreachable(
                &self.acquire,
                options,
                &address,
                failure,
            ));
        }
        if self.state.usage().in_use >= self.settings.max {
            return Some(error::all_in_use(&self.acquire));
        }
        Some(match self.state.heard() {
            None => error::unanswered(&self.acquire, &self.options),
            Some(heard) => error::unsuitable(&self.acquire, &self.options, heard.set.as_deref()),
        })
    }

    fn stop(&self) {
        self.state.stop();
    }

    async fn recycle(&self, _: bool) -> Health {
        let patience = self.settings.reserve / 2;
        let all_back = timeout(patience, self.state.quiet()).await.is_ok();
        if self.state.left_something_running() {
            self.cancel_running_ops().await;
        }
        if all_back && !self.state.is_broken() {
            Health::Healthy
        } else {
            Health::Broken
        }
    }

    async fn close(&self) {
        if self.state.is_broken() {
            self.force_shutdown().await;
        } else {
            self.shut_down().await;
        }
    }

    fn usage(&self) -> Usage {
        self.state.usage()
    }
}

impl<T: MongoHandle> fmt::Debug for MongoResource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoResource")
            .field("target", &options::target(&self.options))
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}

mod sealed {
    /// Seals [`MongoHandle`](super::MongoHandle).
    pub trait Sealed {}
}

impl TransactionPoolingSafe for Client {}
impl TransactionPoolingSafe for Database {}
