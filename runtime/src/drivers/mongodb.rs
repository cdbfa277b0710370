//! MongoDB: `&mongodb::Client` and `&mongodb::Database`.
//!
//! The driver is made to be opened once and kept, and so it is: unlike a SQL database it is closed
//! after every invocation only if the attribute says `close = "always"`. What a frozen sandbox does to
//! it is looked after here:
//!
//! * After a pause a client is asked for one `ping`, within a bound, before it is lent; one that does
//!   not answer is replaced. The driver alone would wait on a dead socket for ever.
//! * Every wait for a server has `acquire_ms` as its bound, where the driver's default is 30 s. The wait
//!   for a free connection of the pool has none in the driver: the deadline ends it, with an error that
//!   says that all are in use.
//! * The servers are watched by polling, which needs one connection for each server, and not by two
//!   streams that a freeze would cut.
//! * Operations that were given up are stopped on the server before the client is closed.
//! * A client that lost a connection is not kept.
//!
//! A handler that takes both a `&Client` and a `&Database` has two clients: each parameter has a slot
//! of its own. Take the `&Client`, and ask it for the database.

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
        Acquire, Fitness, Handle, InjectRef, Resource, SharedHandle, Symptom,
        TransactionPoolingSafe, Usage,
    },
};
use ::mongodb::{Client, Database, bson::doc, options::ClientOptions};
use std::{fmt, sync::Arc, time::Duration};
use tokio::time::timeout;

pub(crate) use error::{kind, symptom};

/// A client that is opened, reset and closed with the invocations: the resource behind
/// `&mongodb::Client` (`T` is `Client`) and `&mongodb::Database` (`T` is `Database`).
pub struct Connected<T> {
    lent: T,
    client: Client,
    options: ClientOptions,
    settings: Settings,
    acquire: Acquire,
    state: Arc<State>,
}

/// What is lent of a client. Sealed: implemented for `mongodb::Client` and `mongodb::Database`.
pub trait Lent: sealed::Sealed + Clone + Send + Sync + 'static {
    /// What it is called in errors and in the local mode's drawing.
    const NAME: &'static str;

    /// Takes it from the client, which was opened with a URL.
    ///
    /// # Errors
    /// When the URL does not say what is needed.
    fn of(client: &Client, acquire: &Acquire) -> Result<Self, Error>;
}

impl sealed::Sealed for Client {}

impl Lent for Client {
    const NAME: &'static str = "MongoDB client";

    fn of(client: &Client, _: &Acquire) -> Result<Self, Error> {
        Ok(client.clone())
    }
}

impl sealed::Sealed for Database {}

impl Lent for Database {
    const NAME: &'static str = "MongoDB database";

    fn of(client: &Client, acquire: &Acquire) -> Result<Self, Error> {
        client
            .default_database()
            .ok_or_else(|| options::no_database(acquire))
    }
}

impl InjectRef for Client {
    type Handle = SharedHandle<Connected<Self>>;

    fn borrow(handle: &Self::Handle) -> &Self {
        &handle.resource().lent
    }
}

impl InjectRef for Database {
    type Handle = SharedHandle<Connected<Self>>;

    fn borrow(handle: &Self::Handle) -> &Self {
        &handle.resource().lent
    }
}

impl<T: Lent> Connected<T> {
    /// One round trip to the server, over the connection that the next operation will use.
    async fn ping(&self) -> Result<(), ::mongodb::error::Error> {
        let ping = doc! { "ping": 1 };
        self.client.database("admin").run_command(ping).await?;
        Ok(())
    }

    /// Closes the client without waiting for anybody's cursors and sessions.
    async fn shut_down(&self) {
        self.client.clone().shutdown().immediate(true).await;
    }

    /// The same for a client whose connections may be dead. The driver says goodbye to its sessions on
    /// the way, over whatever connection it has: each attempt that is given up costs it a dead one.
    async fn shut_down_hard(&self) {
        for _ in 0..=self.state.usage().open {
            if timeout(self.settings.ping, self.shut_down()).await.is_ok() {
                return;
            }
        }
    }
}

impl<T: Lent> Resource for Connected<T> {
    const NAME: &'static str = T::NAME;
    const DEFAULTS: Defaults = Defaults::KEPT
        .with_env(Some("MONGODB_URI"))
        .with_idle(DEFAULT_KEPT_IDLE);

    async fn open(acquire: &Acquire) -> Result<Self, Error> {
        let settings = *acquire.settings();
        // The driver takes its patience once and for all: only what is closed with this invocation may
        // have it cut short by this invocation's deadline.
        let acquire = match settings.close {
            Close::Always => *acquire,
            _ => acquire.unclamped(),
        };
        let mut options = options::read(&acquire).await?;
        let state = State::attach(&mut options);
        let client = Client::with_options(options.clone())
            .map_err(|error| options::not_taken(&acquire, &error))?;
        Ok(Self {
            lent: T::of(&client, &acquire)?,
            client,
            options,
            settings,
            acquire,
            state,
        })
    }

    async fn connect(&self, acquire: &Acquire) -> Result<(), Error> {
        let connecting = async {
            // The driver's pools take connections ahead only when their server has been heard of.
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

    async fn reset(&self, idle: Duration) -> Fitness {
        if self.state.is_spoilt() {
            return Fitness::Unfit;
        }
        // Without a connection there is none that could be dead.
        if idle <= self.settings.trust || self.state.usage().open == 0 {
            return Fitness::Fit;
        }
        if let Ok(Ok(())) = timeout(self.settings.ping, self.ping()).await {
            return Fitness::Fit;
        }
        self.state.spoil();
        Fitness::Unfit
    }

    fn explain(&self, symptom: Symptom) -> Option<Error> {
        match symptom {
            Symptom::TimedOut => {}
            // The pool was given up because of another connection, for which there is a reason.
            Symptom::Disconnected => {
                let (address, failure) = self.state.failure()?;
                let (acquire, options) = (&self.acquire, &self.options);
                return Some(error::unreachable(acquire, options, &address, failure));
            }
            // The connection of one that is let in is not lost.
            Symptom::Denied if self.state.is_spoilt() => {
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

    fn abandon(&self) {
        self.state.abandon();
    }

    async fn settle(&self) -> Fitness {
        let patience = self.settings.reserve / 2;
        let all_back = timeout(patience, self.state.quiet()).await.is_ok();
        if self.state.left_something_running() {
            self.stop_what_runs().await;
        }
        if all_back && !self.state.is_spoilt() {
            Fitness::Fit
        } else {
            Fitness::Unfit
        }
    }

    async fn close(&self) {
        if self.state.is_spoilt() {
            self.shut_down_hard().await;
        } else {
            self.shut_down().await;
        }
    }

    fn usage(&self) -> Usage {
        self.state.usage()
    }
}

impl<T: Lent> fmt::Debug for Connected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connected")
            .field("target", &options::target(&self.options))
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}

mod sealed {
    /// Keeps [`Lent`](super::Lent) for what is known here.
    pub trait Sealed {}
}

impl TransactionPoolingSafe for Client {}
impl TransactionPoolingSafe for Database {}
