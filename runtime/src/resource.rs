//! What can be lent to a handler: the traits that a database, or a client of one's own, implements.
//!
//! * [`Resource`] is the thing that is opened once, kept or closed: a pool, a client, a set of
//!   connections.
//! * [`InjectRef`] says what a handler gets for `&T`, [`InjectMut`] what it gets for `&mut T`. Every
//!   `Resource` can be injected as itself, so that a client of your own needs the first trait only.
//! * [`Handle`] is one invocation's hold on a resource: it knows what this invocation used, and cleans up
//!   that alone.

use crate::{config::Defaults, error::Error};
use futures_util::future::BoxFuture;
use std::{
    fmt,
    future::{Future, ready},
    ops::DerefMut,
    time::Duration,
};

pub use acquire::Acquire;
pub(crate) use acquire::url;
pub use handle::{Handle, SharedHandle};
pub use proxy::{RdsProxySafe, TransactionPoolingSafe};

mod acquire;
mod handle;
pub(crate) mod param;
pub(crate) mod running;

pub(crate) mod proxy;

/// Something that is opened once, lent to every invocation, and closed in the end.
///
/// Implement it for a client of your own, and handlers can take it by reference:
///
/// ```
/// use db_handler::{Error, config::Defaults, resource::{Acquire, Resource}};
///
/// /// Exchange rates, read once per instance.
/// struct Rates(Vec<(String, f64)>);
///
/// impl Resource for Rates {
///     const NAME: &'static str = "exchange rates";
///     const DEFAULTS: Defaults = Defaults::KEPT;
///
///     async fn open(_: &Acquire) -> Result<Self, Error> {
///         Ok(Self(vec![("EUR".into(), 1.08)]))
///     }
/// }
/// ```
///
/// A client that is somebody else's type is wrapped in one of yours.
///
/// Every method is called with a bound on its time and may be dropped at any `.await`. None is
/// called twice at once for the same purpose, but several invocations may hold the resource at once.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be lent to a handler",
    label = "not a resource",
    note = "implement `db_handler::resource::Resource` for it to open it once and lend it to every invocation"
)]
pub trait Resource: Send + Sync + Sized + 'static {
    /// What it is called in errors and in the local mode's drawing.
    const NAME: &'static str;

    /// What holds where the attribute says nothing.
    const DEFAULTS: Defaults;

    /// Whether its connections are checked, reset and closed one by one, each by the invocation that used it.
    /// Otherwise the resource is replaced as a whole: when it has idled for too long, is too old, or an
    /// invocation that held it has ended abnormally.
    #[doc(hidden)]
    const PER_CONNECTION: bool = false;

    /// Opens it. Called by one invocation at a time; a failure is not remembered.
    ///
    /// # Errors
    /// Whatever keeps it from being opened; the caller is told.
    fn open(acquire: &Acquire) -> impl Future<Output = Result<Self, Error>> + Send;

    /// Connects now, for `connect = "eager"` and `pool(min = ..)`; `open` need not.
    ///
    /// # Errors
    /// Whatever keeps it from connecting.
    fn connect(&self, acquire: &Acquire) -> impl Future<Output = Result<(), Error>> + Send {
        let _ = acquire;
        ready(Ok(()))
    }

    /// Looks at a kept resource before it is lent again, after `idle` without any use.
    fn reset(&self, idle: Duration) -> impl Future<Output = Fitness> + Send {
        let _ = idle;
        ready(Fitness::Fit)
    }

    /// Driven beside the handler while it runs, to find out why it has to wait; `None` if there is
    /// nothing to watch.
    fn watch(&self) -> Option<BoxFuture<'_, ()>> {
        None
    }

    /// What this resource knows about a symptom whose cause the driver hides.
    fn explain(&self, symptom: Symptom) -> Option<Error> {
        let _ = symptom;
        None
    }

    /// The invocation ended abnormally (panic, deadline, dropped): nothing that is still out may be
    /// used again. Called before the handler's future is dropped, but after a panic has unwound it; must
    /// not block.
    fn abandon(&self) {}

    /// The handler has ended, and this is going to be closed: what comes back from now on need not be
    /// fit for another invocation. Called at the end of a failed handler, before anything else can run,
    /// and again before the close; must not block.
    fn closing(&self) {}

    /// Waits until everything lent is back and nothing runs elsewhere on its behalf, so that nothing is
    /// half-way when the sandbox freezes; stops what does not come to an end by itself. Called when the
    /// last invocation that holds it has ended, before it is kept or closed.
    fn settle(&self) -> impl Future<Output = Fitness> + Send {
        ready(Fitness::Fit)
    }

    /// Undoes what an invocation has changed, for the next one to find it as good as new. Called before
    /// it is kept.
    fn refresh(&self) -> impl Future<Output = Fitness> + Send {
        ready(Fitness::Fit)
    }

    /// It is kept, and nobody holds it any more: who uses it before it is [`reset`](Self::reset) has
    /// escaped from an invocation. Must not block.
    fn rest(&self) {}

    /// Closes it, in good order where the time allows. It is dropped afterwards in any case.
    fn close(&self) -> impl Future<Output = ()> + Send {
        ready(())
    }

    /// How many connections are open and in use.
    fn usage(&self) -> Usage {
        Usage::default()
    }

    /// How long a message to the other end and its reply take, as measured; zero if that is not known.
    /// What is done after the handler may take longer than `reserve_ms` on a slow network, if the
    /// deadline leaves the time.
    fn round_trip(&self) -> Duration {
        Duration::ZERO
    }
}

/// Whether a resource can go on serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fitness {
    /// It can.
    Fit,
    /// It cannot, and is replaced.
    Unfit,
    /// It could, but others need its place more: it is closed.
    Unwanted,
}

/// What a driver reports when it does not say why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Symptom {
    /// No connection became available in time.
    TimedOut,
    /// The pool was closed under the caller.
    Closed,
    /// The network failed.
    Disconnected,
    /// The server did not accept the user.
    Denied,
    /// The connections are of no more use to anybody, although they are open: what they have prepared
    /// has changed on the server, or the server has become read-only. There is nothing to explain: the
    /// resource replaces them before the next invocation.
    Outdated,
    /// The handler failed with an error in which nobody can look for [`Outdated`](Self::Outdated): one of its own
    /// type, a text, or that of a commit. There is nothing to explain: the resource makes sure that it is not.
    Unknown,
}

/// Connections of a resource at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Connections that are open, in use or idle.
    pub open: u32,
    /// Connections that somebody holds.
    pub in_use: u32,
}

impl Usage {
    /// `open` connections, of which somebody holds `in_use`.
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

/// What a handler gets for a parameter `&T`.
#[diagnostic::on_unimplemented(
    message = "`&{Self}` cannot be lent to a handler",
    label = "not a resource",
    note = "known resources are `&Db<Postgres>`, `&PgPool` and their siblings for `MySql` and `Sqlite` (features `postgres`, `mysql`, `sqlite`), from the `sqlx` that `db_handler` re-exports",
    note = "a single connection is lent as `&mut PgConnection` and its siblings, background tasks as `&Background`",
    note = "with the feature `mongodb`: `&mongodb::Client` and `&mongodb::Database`, from the `mongodb` that `db_handler` re-exports",
    note = "implement `db_handler::resource::Resource` for a type of your own"
)]
pub trait InjectRef: Send + Sync + 'static {
    /// The invocation's handle that `&Self` is borrowed from.
    type Handle: Handle;

    /// Borrows it.
    fn borrow(handle: &Self::Handle) -> &Self;
}

#[diagnostic::do_not_recommend]
impl<R: Resource> InjectRef for R {
    type Handle = SharedHandle<R>;

    fn borrow(handle: &SharedHandle<R>) -> &Self {
        handle.resource()
    }
}

/// What a handler gets for a parameter `&mut T`: one invocation has it for itself.
#[diagnostic::on_unimplemented(
    message = "`&mut {Self}` cannot be lent to a handler",
    label = "not a resource that one invocation can have for itself",
    note = "known ones are `&mut PgConnection`, `&mut MySqlConnection`, `&mut SqliteConnection` (features `postgres`, `mysql`, `sqlite`), from the `sqlx` that `db_handler` re-exports",
    note = "a transaction that is committed when the handler returns `Ok` is lent as `&mut PgTransaction<'_>` and its siblings",
    note = "what several queries may use at once is lent as `&Db<Postgres>` or `&PgPool`, and their siblings"
)]
pub trait InjectMut: Send + 'static {
    /// The invocation's handle on the resource that it is taken from.
    type Handle: Handle;

    /// What holds it while the handler runs.
    type Guard: DerefMut<Target = Self> + Send + 'static;

    /// Takes one out.
    ///
    /// # Errors
    /// When none is free in time, or a new one cannot be had.
    fn acquire(
        handle: &Self::Handle,
        acquire: &Acquire,
    ) -> impl Future<Output = Result<Self::Guard, Error>> + Send;

    /// The handler has returned: its work is committed after a success and rolled back after a failure. Called
    /// before its response goes out, and only if it came to its end: after a panic, at the deadline and for a
    /// dropped future there is [`release`](Self::release) alone, with [`Disposition::Discard`].
    ///
    /// It has what is left of the handler's own time. Several are called one after the other, in the order of
    /// the parameters; once one has failed, the others are told [`Outcome::Failed`].
    ///
    /// # Errors
    /// After [`Outcome::Succeeded`]: whatever keeps the work from being committed. It becomes the handler's
    /// response in the place of its `Ok`. After [`Outcome::Failed`] nobody hears of an error: the handler's own
    /// is the response.
    fn conclude(
        guard: &mut Self::Guard,
        outcome: Outcome,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        let _ = (guard, outcome);
        ready(Ok(()))
    }

    /// Puts it back after the invocation.
    fn release(
        handle: &Self::Handle,
        guard: Self::Guard,
        disposition: Disposition,
    ) -> impl Future<Output = ()> + Send;
}

/// What a handler has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// `Ok`: what it did is to last.
    Succeeded,
    /// `Err`, or another part of the same handler's work could not be made to last.
    Failed,
}

/// What becomes of something that an invocation had for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disposition {
    /// It is put back for the next invocation, if it is in a state to serve.
    Reuse,
    /// It is closed in good order.
    Close,
    /// The invocation ended abnormally: it must not serve again.
    Discard,
}
