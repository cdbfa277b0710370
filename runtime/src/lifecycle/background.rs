//! Background tasks: tracked, so that none is running when the environment is frozen.

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

/// Spawns tasks that belong to an invocation but do not delay its response: writing an audit record, filling a
/// cache, sending a message.
///
/// A handler takes it by reference, like a pool. A task that it [spawns](Self::spawn) is part of the
/// invocation: with [`run`](crate::run) the response is posted first. Then, before any resource is closed and
/// before the next event is fetched, the tasks are awaited or cancelled, as the attribute's
/// `background = "wait"` or `"abort"` says. A task of `tokio::spawn` would be frozen, and would resume in a
/// later invocation with a connection that no longer exists.
///
/// * `"wait"` waits until the moment at which the handler itself would be cancelled
///   (`deadline(reserve_ms = ..)`), or for [`BACKGROUND`](crate::config::BACKGROUND) if the deadline is
///   unknown. Tasks that are still running then are cancelled and logged.
/// * After a panic, at the deadline, and when the handler's future is dropped, tasks are always cancelled.
/// * A task is cancelled at its next `.await`. A task that never yields cannot be cancelled: it is logged.
///
/// A clone can be moved into a task, which may spawn further tasks. It cannot outlive the invocation: spawning
/// afterwards is an error.
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
    /// Notified when the last task has ended.
    quiet: Notify,
}

#[derive(Default)]
struct Tasks {
    /// The invocation has ended: no task can be spawned.
    over: bool,
    started: u64,
    /// `None` for a task that is being started.
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

    /// Spawns `future` on the current tokio runtime, as a part of this invocation.
    ///
    /// The returned [`BackgroundTask`] can be awaited or dropped; dropping it does not cancel the task. A panic
    /// is logged with the handler's name, and returned to the awaiting caller. It does not affect other tasks.
    ///
    /// After the end of the invocation, or without a tokio runtime, `future` is dropped without being polled.
    /// The error is logged, and returned to the awaiting caller.
    pub fn spawn<F>(&self, future: F) -> BackgroundTask<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let (done, outcome) = oneshot::channel();
        let tracker = Arc::clone(&self.0);
        let work = async move {
            let outcome = AssertUnwindSafe(future).catch_unwind().await;
            // The `BackgroundTask` may have been dropped.
            let _ = done.send(outcome.map_err(|panic| tracker.panicked(&*panic)));
        };
        if let Err(error) = self.0.start(Box::pin(work.in_current_span())) {
            tracing::error!(%error, "a background task was refused");
            return BackgroundTask(TaskState::Refused(error));
        }
        BackgroundTask(TaskState::Pending {
            outcome,
            handler: self.0.handler,
        })
    }

    /// Returns the number of running tasks.
    #[must_use]
    pub fn running(&self) -> usize {
        lock(&self.0.tasks).running.len()
    }

    /// Waits until no task is running, including tasks that are spawned meanwhile. Dropping this future cancels
    /// the tasks.
    pub(crate) async fn wait(&self, until: Instant) {
        let unless_quiet = AbortOnDrop(self);
        let _ = timeout_at(until, self.0.quiet()).await;
        std::mem::forget(unless_quiet);
    }

    /// Rejects new tasks, and cancels the running ones. Returns how many were running.
    pub(crate) fn abort(&self) -> usize {
        let mut tasks = lock(&self.0.tasks);
        tasks.over = true;
        let running: Vec<_> = tasks.running.values().flatten().cloned().collect();
        let count = tasks.running.len();
        // Aborting may drop a task right here, and dropping it locks the list.
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
                return Err(self.error("cannot spawn a background task: the invocation has ended"));
            }
            tasks.started += 1;
            let number = tasks.started;
            tasks.running.insert(number, None);
            number
        };
        // Without the lock: a runtime that is shutting down drops the task immediately.
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

/// A task's future. Its fields are dropped in order, so the future is dropped before the task counts as ended.
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

/// A [spawned](Background::spawn) task. Dropping it does not cancel the task.
///
/// Resolves to the task's output, or to an [`Error`] of the kind [`ErrorKind::Background`] if the task
/// panicked, was cancelled with its invocation, or was not started.
pub struct BackgroundTask<T>(TaskState<T>);

enum TaskState<T> {
    Pending {
        outcome: oneshot::Receiver<Result<T, Error>>,
        handler: &'static str,
    },
    Refused(Error),
}

impl<T> Unpin for BackgroundTask<T> {}

impl<T> Future for BackgroundTask<T> {
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
            TaskState::Pending { outcome, handler } => {
                ready!(outcome.poll_unpin(cx)).unwrap_or_else(|_| Err(stopped(handler)))
            }
            TaskState::Refused(error) => Err(error.clone()),
        })
    }
}

impl<T> fmt::Debug for BackgroundTask<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").finish_non_exhaustive()
    }
}

impl TransactionPoolingSafe for Background {}
