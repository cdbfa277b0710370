//! Tasks that a handler starts and does not wait for: tracked, so that none is alive when the sandbox
//! freezes.

use crate::{
    error::{Error, ErrorKind, Stage},
    resource::TransactionPoolingSafe,
    util::{catch_panic, lock::lock},
};
use futures_util::{FutureExt, future::BoxFuture};
use std::{
    any::Any,
    collections::HashMap,
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};
use tokio::{
    runtime,
    sync::{Notify, oneshot},
    task::AbortHandle,
    time::{Instant, timeout_at},
};
use tracing::Instrument;

/// Tasks that belong to an invocation, without keeping its caller waiting: an audit record, a cache to
/// be filled, a message to be sent.
///
/// A handler takes it by reference, as it takes a pool. What it [spawns](Self::spawn) is part of the
/// invocation: with [`run`](crate::run) the answer goes out first, and then, before anything is closed
/// and before the next event is asked for, the tasks are waited for or stopped, as the attribute's
/// `background = "wait"` or `"abort"` says. A task of `tokio::spawn` would be frozen half-way, and resume
/// in a later invocation with a connection that is no longer there.
///
/// * `"wait"` lasts until the moment at which the handler itself would be stopped
///   (`deadline(reserve_ms = ..)`), or for [`BACKGROUND`](crate::config::BACKGROUND) where no deadline is
///   known. What is still running then is stopped, and reported.
/// * After a panic, at the deadline, and when the handler's future is dropped, tasks are stopped in any
///   case.
/// * A task is stopped at its next `.await`. One that has none cannot be stopped: it is reported.
///
/// A clone can be given to a task, which may spawn further ones. It cannot outlive the invocation: what
/// is spawned afterwards is refused.
///
/// ```
/// use db_handler::{Background, Error, LambdaEvent, db_handler};
/// # use db_handler::Context;
///
/// #[db_handler(background = "wait")]
/// async fn greet(event: LambdaEvent<String>, background: &Background) -> Result<String, Error> {
///     let name = event.payload.clone();
///     background.spawn(async move { println!("greeted {name}") });
///     Ok(format!("hello, {}", event.payload))
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// #     let greeting = greet(LambdaEvent::new("Ada".into(), Context::default())).await;
/// #     assert_eq!(greeting.unwrap(), "hello, Ada");
/// # }
/// ```
#[derive(Clone)]
pub struct Background(Arc<Tracker>);

struct Tracker {
    handler: &'static str,
    tasks: Mutex<Tasks>,
    /// The last task has ended.
    quiet: Notify,
}

#[derive(Default)]
struct Tasks {
    /// What is spawned now is refused.
    over: bool,
    started: u64,
    /// `None` for a task that is just about to be started.
    running: HashMap<u64, Option<AbortHandle>>,
}

impl Background {
    pub(crate) fn new(handler: &'static str) -> Self {
        Self(Arc::new(Tracker {
            handler,
            tasks: Mutex::default(),
            quiet: Notify::new(),
        }))
    }

    /// Starts `future` on the running tokio runtime, as a part of this invocation.
    ///
    /// What comes back can be awaited, and may be dropped: the task goes on. A panic in it is reported,
    /// with the handler's name, and fails nobody but who awaits it.
    ///
    /// Once the invocation is over, or without a tokio runtime, `future` is dropped unpolled, which is
    /// reported and told to whoever awaits it.
    pub fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let (done, outcome) = oneshot::channel();
        let tracker = Arc::clone(&self.0);
        let work = async move {
            let outcome = AssertUnwindSafe(future).catch_unwind().await;
            // Nobody may be waiting for it.
            let _ = done.send(outcome.map_err(|panic| tracker.panicked(&*panic)));
        };
        if let Err(error) = self.0.start(Box::pin(work.in_current_span())) {
            tracing::error!(%error, "a background task was refused");
            return Task(Outcome::Refused(error));
        }
        Task(Outcome::Pending {
            outcome,
            handler: self.0.handler,
        })
    }

    /// How many tasks are running.
    #[must_use]
    pub fn running(&self) -> usize {
        lock(&self.0.tasks).running.len()
    }

    /// Waits until nothing runs any more; what the tasks themselves spawn meanwhile counts. Dropped
    /// before that, it stops them.
    pub(crate) async fn wait(&self, until: Instant) {
        let unless_quiet = AbortOnDrop(self);
        let _ = timeout_at(until, self.0.quiet()).await;
        std::mem::forget(unless_quiet);
    }

    /// Refuses what is spawned from now on, and stops what runs: how many tasks that were.
    pub(crate) fn abort(&self) -> usize {
        let mut tasks = lock(&self.0.tasks);
        tasks.over = true;
        let running: Vec<_> = tasks.running.values().flatten().cloned().collect();
        let count = tasks.running.len();
        // A task may be dropped in here, and ends with a look at the list.
        drop(tasks);
        for task in running {
            task.abort();
        }
        count
    }
}

struct AbortOnDrop<'a>(&'a Background);

impl Drop for AbortOnDrop<'_> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Background")
            .field("handler", &self.0.handler)
            .field("running", &self.running())
            .finish()
    }
}

impl Tracker {
    fn start(self: &Arc<Self>, work: BoxFuture<'static, ()>) -> Result<(), Error> {
        let Ok(runtime) = runtime::Handle::try_current() else {
            return Err(self.error("a background task needs a tokio runtime to run on"));
        };
        let number = {
            let mut tasks = lock(&self.tasks);
            if tasks.over {
                return Err(self.error(
                    "the invocation is over, and with it its background tasks: spawn it earlier",
                ));
            }
            tasks.started += 1;
            let number = tasks.started;
            tasks.running.insert(number, None);
            number
        };
        // Without the lock: a runtime that is shutting down drops the task at once.
        let started = runtime.spawn(Tracked {
            work,
            _running: Running {
                tracker: Arc::clone(self),
                number,
            },
        });
        let mut tasks = lock(&self.tasks);
        let over = tasks.over;
        if let Some(running) = tasks.running.get_mut(&number) {
            *running = Some(started.abort_handle());
        }
        drop(tasks);
        if over {
            started.abort();
        }
        Ok(())
    }

    async fn quiet(&self) {
        loop {
            let quiet = self.quiet.notified();
            if lock(&self.tasks).running.is_empty() {
                return;
            }
            quiet.await;
        }
    }

    fn panicked(&self, panic: &(dyn Any + Send)) -> Error {
        let message = catch_panic::message(panic);
        let error = self.error(format!("a background task panicked: {message}"));
        tracing::error!(%error, "a background task panicked");
        error
    }

    fn error(&self, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Background, message)
            .at(Stage::Handler)
            .in_handler(self.handler)
    }
}

/// A task's future, which is gone before it counts as ended.
struct Tracked {
    work: BoxFuture<'static, ()>,
    _running: Running,
}

impl Future for Tracked {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.work.poll_unpin(cx)
    }
}

struct Running {
    tracker: Arc<Tracker>,
    number: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut tasks = lock(&self.tracker.tasks);
        tasks.running.remove(&self.number);
        if tasks.running.is_empty() {
            self.tracker.quiet.notify_waiters();
        }
    }
}

/// A task that was [spawned](Background::spawn). Dropping it lets the task go on.
///
/// It resolves to what the task returned, or to an [`Error`] of the kind [`ErrorKind::Background`] when
/// it panicked, was stopped with its invocation, or was never started.
pub struct Task<T>(Outcome<T>);

enum Outcome<T> {
    Pending {
        outcome: oneshot::Receiver<Result<T, Error>>,
        handler: &'static str,
    },
    Refused(Error),
}

impl<T> Unpin for Task<T> {}

impl<T> Future for Task<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let stopped = |handler| {
            Error::new(
                ErrorKind::Background,
                "a background task was stopped with its invocation",
            )
            .in_handler(handler)
        };
        Poll::Ready(match &mut self.0 {
            Outcome::Pending { outcome, handler } => {
                ready!(outcome.poll_unpin(cx)).unwrap_or_else(|_| Err(stopped(handler)))
            }
            Outcome::Refused(error) => Err(error.clone()),
        })
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").finish_non_exhaustive()
    }
}

impl TransactionPoolingSafe for Background {}
