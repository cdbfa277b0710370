//! Traits for values that a handler can take as parameters.
//!
//! * [`Resource`] is opened once, and reused or closed: a pool, a client, a set of connections.
//! * [`InjectRef`] defines what is injected for `&T`, [`InjectMut`] what is injected for `&mut T`. Every
//!   `Resource` can be injected as itself, so a client of your own needs only the first trait.
//! * [`Handle`] is one invocation's hold on a resource. It tracks what this invocation used, and cleans up only
//!   that.

use crate::{config::Defaults, error::Error};
use futures_util::future::BoxFuture;
use std::{
    fmt,
    future::{Future, ready},
    ops::DerefMut,
    time::Duration,
};

pub use acquire::AcquireContext;
pub(crate) use acquire::url;
pub use handle::{Handle, SharedHandle};
pub use proxy::{RdsProxySafe, TransactionPoolingSafe};

mod acquire;
mod handle;
pub(crate) mod param;
pub(crate) mod running;

pub(crate) mod proxy;

/// A resource that is opened once, injected into every invocation, and closed at the end.
///
/// Implement it for a client of your own, and handlers can take the client by reference:
///
/// ```
/// use db_handler::{Error, config::Defaults, resource::{AcquireContext, Resource}};
///
/// /// Exchange rates, read once per environment.
/// struct Rates(Vec<(String, f64)>);
///
/// impl Resource for Rates {
///     const NAME: &'static str = "exchange rates";
///     const DEFAULTS: Defaults = Defaults::KEPT;
///
///     async fn open(_: &AcquireContext) -> Result<Self, Error> {
///         Ok(Self(vec![("EUR".into(), 1.08)]))
///     }
/// }
/// ```
///
/// Wrap a client of a foreign type in a type of your own.
///
/// Every method call is bounded in time, and its future may be dropped at any `.await`. Several invocations may
/// hold the resource, and call its methods, at once.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be injected into a handler",
    label = "not a resource",
    note = "implement `db_handler::resource::Resource` for it to open it once and inject it into every invocation"
)]
pub trait Resource: Send + Sync + Sized + 'static {
    /// Name of the resource in errors and in the timeline of the local mode.
    const NAME: &'static str;

    /// Settings for what the attribute does not set.
    const DEFAULTS: Defaults;

    /// Whether its connections are checked, reset and closed one by one, each by the invocation that used it.
    /// Otherwise the resource is replaced as a whole: when it has idled for too long, is too old, or an
    /// invocation that held it ended abnormally.
    #[doc(hidden)]
    const PER_CONNECTION: bool = false;

    /// Opens the resource. Called by one invocation at a time. The next invocation tries again after an error.
    ///
    /// # Errors
    /// If it cannot be opened. The error becomes the response.
    fn open(acquire: &AcquireContext) -> impl Future<Output = Result<Self, Error>> + Send;

    /// Connects, for `connect = "eager"` and `pool(min = ..)`. `open` need not connect.
    ///
    /// # Errors
    /// If it cannot connect.
    fn connect(&self, acquire: &AcquireContext) -> impl Future<Output = Result<(), Error>> + Send {
        let _ = acquire;
        ready(Ok(()))
    }

    /// Checks a reused resource before it is injected again, after `idle` without any use.
    fn check(&self, idle: Duration) -> impl Future<Output = Health> + Send {
        let _ = idle;
        ready(Health::Healthy)
    }

    /// Returns a future that is polled beside the handler to find out why it waits, or `None` if there is
    /// nothing to watch.
    fn watch(&self) -> Option<BoxFuture<'_, ()>> {
        None
    }

    /// Returns the cause of a symptom that the driver does not explain, if this resource knows it.
    fn explain(&self, symptom: Symptom) -> Option<Error> {
        let _ = symptom;
        None
    }

    /// Called when an invocation ended abnormally (panic, deadline, dropped future): connections that are still
    /// checked out must not be reused. Called before the handler's future is dropped, but after a panic has
    /// unwound it. Must not block.
    fn stop(&self) {}

    /// Called when the handler has ended and this resource is about to be closed: connections that are released
    /// from now on need not be reusable. Called at the end of a failed handler, before anything else can run,
    /// and again before the close. Must not block.
    fn closing(&self) {}

    /// Drains the resource: waits until every connection is released and no operation runs, so that none is
    /// unfinished when the environment is frozen. Cancels operations that do not end by themselves. Called when
    /// the last invocation that holds the resource has ended, before it is reused or closed. With `reuse`, it also
    /// resets the state that an invocation has changed.
    fn recycle(&self, reuse: bool) -> impl Future<Output = Health> + Send {
        let _ = reuse;
        ready(Health::Healthy)
    }

    /// Called when the resource becomes idle: no invocation holds it. Any use before the next
    /// [`check`](Self::check) is that of a leaked clone. Must not block.
    fn park(&self) {}

    /// Closes the resource, gracefully if the time allows. It is dropped afterwards in any case.
    fn close(&self) -> impl Future<Output = ()> + Send {
        ready(())
    }

    /// Returns how many connections are open and in use.
    fn usage(&self) -> Usage {
        Usage::default()
    }

    /// Returns the measured round trip to the server; zero if it is unknown. On a slow network the cleanup may
    /// take longer than `reserve_ms`, if the deadline leaves the time.
    fn round_trip(&self) -> Duration {
        Duration::ZERO
    }
}

/// Whether a resource can be reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Healthy: it can be reused.
    Healthy,
    /// Broken: it is replaced.
    Broken,
    /// Healthy, but closed to free a server connection.
    Surplus,
}

/// A driver error whose cause the driver does not report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Symptom {
    /// No connection became available in time.
    TimedOut,
    /// The pool was closed while it was in use.
    Closed,
    /// The network failed.
    Disconnected,
    /// The server rejected the user.
    Denied,
    /// The connections are open, but no longer usable: an object that their prepared statements use has changed
    /// on the server, or the server has become read-only. Needs no explanation: the resource replaces them
    /// before the next invocation.
    Outdated,
    /// The handler failed with an error that cannot be checked for [`Outdated`](Self::Outdated): one of its own
    /// type, a text, or that of a commit. Needs no explanation: the resource checks its connections itself.
    Unknown,
}

/// The number of a resource's connections at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Open connections, in use or idle.
    pub open: u32,
    /// Connections in use.
    pub in_use: u32,
}

impl Usage {
    /// Creates a usage of `open` connections, `in_use` of them in use.
    #[must_use]
    pub const fn new(open: u32, in_use: u32) -> Self {
        Self { open, in_use }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} open, {} in use", self.open, self.in_use)
    }
}

/// A type that can be injected as `&T`.
#[diagnostic::on_unimplemented(
    message = "`&{Self}` cannot be injected into a handler",
    label = "not a resource",
    note = "known resources are `&PgDb`, `&PgPool` and their siblings for MySQL and SQLite (features `postgres`, `mysql`, `sqlite`), from the `sqlx` that `db_handler` re-exports",
    note = "a single connection is injected as `&mut PgConnection` and its siblings, background tasks as `&Background`",
    note = "with the feature `mongodb`: `&mongodb::Client` and `&mongodb::Database`, from the `mongodb` that `db_handler` re-exports",
    note = "implement `db_handler::resource::Resource` for a type of your own"
)]
pub trait InjectRef: Send + Sync + 'static {
    /// The handle that `&Self` is borrowed from.
    type Handle: Handle;

    /// Borrows the value from the invocation's handle.
    fn borrow(handle: &Self::Handle) -> &Self;
}

#[diagnostic::do_not_recommend]
impl<R: Resource> InjectRef for R {
    type Handle = SharedHandle<R>;

    fn borrow(handle: &SharedHandle<R>) -> &Self {
        handle.resource()
    }
}

/// A type that can be injected as `&mut T`: one invocation has exclusive use of it.
#[diagnostic::on_unimplemented(
    message = "`&mut {Self}` cannot be injected into a handler",
    label = "not a resource that can be taken by `&mut`",
    note = "known ones are `&mut PgConnection`, `&mut MySqlConnection`, `&mut SqliteConnection` (features `postgres`, `mysql`, `sqlite`), from the `sqlx` that `db_handler` re-exports",
    note = "a transaction that is committed when the handler returns `Ok` is injected as `&mut PgTransaction<'_>` and its siblings",
    note = "for queries that run at the same time, take `&PgDb` or `&PgPool` or their siblings"
)]
pub trait InjectMut: Send + 'static {
    /// The handle on the resource from which it is acquired.
    type Handle: Handle;

    /// The guard that holds it while the handler runs.
    type Guard: DerefMut<Target = Self> + Send + 'static;

    /// Acquires a value for one invocation.
    ///
    /// # Errors
    /// If none becomes free in time, or a new one cannot be opened.
    fn acquire(
        handle: &Self::Handle,
        acquire: &AcquireContext,
    ) -> impl Future<Output = Result<Self::Guard, Error>> + Send;

    /// Commits the handler's work after it has succeeded, before its response is posted and within the time
    /// that is left. Several parameters are committed one after the other, in their order.
    ///
    /// # Errors
    /// If the commit fails. The error becomes the response, and the parameters that follow are rolled back.
    fn commit(guard: &mut Self::Guard) -> impl Future<Output = Result<(), Error>> + Send {
        let _ = guard;
        ready(Ok(()))
    }

    /// Rolls back the handler's work after it has failed, instead of [`commit`](Self::commit).
    ///
    /// After a panic, at the deadline and for a dropped future, neither is called: such an invocation ends with
    /// [`release`](Self::release) and [`Disposition::Discard`] alone.
    fn rollback(guard: &mut Self::Guard) -> impl Future<Output = ()> + Send {
        let _ = guard;
        ready(())
    }

    /// Releases the value after the invocation.
    fn release(
        handle: &Self::Handle,
        guard: Self::Guard,
        disposition: Disposition,
    ) -> impl Future<Output = ()> + Send;
}

/// What happens to an acquired value when its invocation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disposition {
    /// It is reused by the next invocation, if it is healthy.
    Reuse,
    /// It is closed gracefully.
    Close,
    /// It is closed without reuse: the invocation ended abnormally.
    Discard,
}
