//! A small AWS Lambda Runtime API: delivers events, accepts responses, and records every call with its time.
//!
//! It does not freeze functions or kill them at the deadline; the crate `db-handler-sandbox` does.

mod calls;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::header::HeaderMap;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::turn;
use crate::wait::PATIENCE;

/// A call of the function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `GET next`: the function is ready for an event.
    Next,
    /// `POST response` for the event with this id: its head has arrived.
    Response(String),
    /// The body of that response is complete.
    ResponseEnd(String),
    /// `POST error` for the event with this id.
    Error(String),
    /// `POST init/error`: the function could not start.
    InitError,
    /// An extension has registered; `lambda_runtime` does so to be notified of the shutdown.
    Extension,
}

/// A call, its time, and the observer's result at that time.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The call.
    pub call: Call,
    /// Its time.
    pub at: Instant,
    /// The result of the observer of [`RuntimeApi::observed`]; 0 without one.
    pub observed: usize,
}

/// The function's response to an event.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The id of the event.
    pub id: String,
    /// Whether it is an error.
    pub is_error: bool,
    /// The header `Lambda-Runtime-Function-Error-Type`, or the trailer of that name if a stream failed.
    pub error_type: Option<String>,
    /// All headers of the request.
    pub headers: HeaderMap,
    /// The body, with all chunks of a stream.
    pub body: Bytes,
    /// Whether the body is complete; `false` if the connection was closed before its end.
    pub is_complete: bool,
    /// The chunks of the body with their times.
    pub chunks: Vec<(Instant, Bytes)>,
    /// When the event was delivered.
    pub started: Instant,
    /// When the last byte of the response arrived.
    pub finished: Instant,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The time that the caller waited.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.finished - self.started
    }
}

type Observed = Pin<Box<dyn Future<Output = usize> + Send>>;
type Observer = Box<dyn Fn() -> Observed + Send + Sync>;

/// The platform's side of one environment.
///
/// It serves until it is dropped, on the tokio runtime of the test that started it.
pub struct RuntimeApi {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
}

struct Shared {
    state: Mutex<State>,
    /// Something in `state` has changed.
    changed: Notify,
    observer: Option<Observer>,
    /// Whether extensions can be registered.
    extensions: bool,
}

#[derive(Default)]
struct State {
    pushed: usize,
    queue: VecDeque<Event>,
    started: HashMap<String, Instant>,
    answers: HashMap<String, Answer>,
    init_errors: Vec<Answer>,
    calls: Vec<Recorded>,
    waiting: usize,
}

struct Event {
    id: String,
    body: Bytes,
    limit: Duration,
}

impl RuntimeApi {
    /// Starts it.
    ///
    /// # Panics
    /// If no loopback port is free.
    pub async fn start() -> Self {
        turn::beside();
        Self::serve(None, true).await
    }

    /// Starts one without the Extensions API, like some emulators.
    ///
    /// # Panics
    /// If no loopback port is free.
    pub async fn without_extensions() -> Self {
        turn::beside();
        Self::serve(None, false).await
    }

    /// Starts it with an observer, which reads a number, such as the connections to a database, at every call of the
    /// function. The call gets its reply after the observer has returned.
    ///
    /// # Panics
    /// If no loopback port is free.
    pub async fn observed<F, Fut>(observer: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = usize> + Send + 'static,
    {
        Self::serve(Some(Box::new(move || Box::pin(observer()))), true).await
    }

    /// The value of `AWS_LAMBDA_RUNTIME_API`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Queues an event with a deadline of `limit` after its delivery; returns its request id.
    #[expect(
        clippy::must_use_candidate,
        reason = "the effect is the point; not every test looks at the answer"
    )]
    pub fn push(&self, event: &Value, limit: Duration) -> String {
        self.push_raw(event.to_string(), limit)
    }

    /// Queues an event that need not be JSON.
    pub fn push_raw(&self, event: impl Into<Bytes>, limit: Duration) -> String {
        let mut state = self.shared.lock();
        state.pushed += 1;
        let id = format!("00000000-0000-4000-8000-{:012}", state.pushed);
        state.queue.push_back(Event {
            id: id.clone(),
            body: event.into(),
            limit,
        });
        drop(state);
        self.shared.changed.notify_waiters();
        id
    }

    /// Queues an event and waits for its response.
    ///
    /// # Panics
    /// When none comes: see [`answer`](Self::answer).
    pub async fn invoke(&self, event: &Value, limit: Duration) -> Answer {
        let id = self.push(event, limit);
        self.answer(&id).await
    }

    /// Waits for the response to the event with this id.
    ///
    /// # Panics
    /// When none comes, with the calls that came.
    pub async fn answer(&self, id: &str) -> Answer {
        let what = format!("an answer to {id}");
        self.wait(&what, |state| state.answers.get(id).cloned())
            .await
    }

    /// Waits until the function reports an init error.
    ///
    /// # Panics
    /// When it does not, with the calls that came.
    pub async fn init_error(&self) -> Answer {
        self.wait("an init error", |state| state.init_errors.first().cloned())
            .await
    }

    /// Waits until the function is idle: no event is queued, all have a response, and it polls for the next one.
    ///
    /// # Panics
    /// When that does not happen, with the calls that came.
    pub async fn idle(&self) {
        let idle = |state: &State| {
            let all_answered = state.answers.len() == state.pushed;
            (all_answered && state.waiting > 0).then_some(())
        };
        self.wait("the function to be idle", idle).await;
    }

    /// All calls so far, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<Recorded> {
        self.shared.lock().calls.clone()
    }

    /// The first `GET next` after the complete response to the event with this id. The function's cleanup runs between
    /// the two.
    ///
    /// # Panics
    /// When it does not come, with the calls that came.
    pub async fn next_after(&self, id: &str) -> Recorded {
        let ends = [Call::ResponseEnd(id.to_owned()), Call::Error(id.to_owned())];
        let next = |state: &State| {
            let after = state
                .calls
                .iter()
                .skip_while(|recorded| !ends.contains(&recorded.call));
            after
                .into_iter()
                .find(|recorded| recorded.call == Call::Next)
                .cloned()
        };
        self.wait(&format!("the `next` after {id}"), next).await
    }

    async fn serve(observer: Option<Observer>, extensions: bool) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free loopback port");
        let address = listener.local_addr().expect("the bound port");
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Notify::new(),
            observer,
            extensions,
        });
        let server = tokio::spawn(calls::accept(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            server,
        }
    }

    async fn wait<T>(&self, what: &str, look: impl Fn(&State) -> Option<T>) -> T {
        let found = tokio::time::timeout(PATIENCE, self.shared.until(|state| look(state))).await;
        found.unwrap_or_else(|_| {
            panic!(
                "waited {PATIENCE:?} for {what}; calls so far: {:#?}",
                self.calls()
            )
        })
    }
}

impl Drop for RuntimeApi {
    fn drop(&mut self) {
        // All connections end with the task.
        self.server.abort();
    }
}

impl fmt::Debug for RuntimeApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuntimeApi")
            .field("address", &self.address)
            .field("calls", &self.calls())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // After a panic in another thread the record is still valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn until<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            // Registered before reading the state, so that no change is missed.
            let changed = self.changed.notified();
            if let Some(found) = look(&mut self.lock()) {
                return found;
            }
            changed.await;
        }
    }

    async fn record(&self, call: Call) {
        let at = Instant::now();
        let observed = match &self.observer {
            Some(observer) => observer().await,
            None => 0,
        };
        self.lock().calls.push(Recorded { call, at, observed });
        self.changed.notify_waiters();
    }
}
