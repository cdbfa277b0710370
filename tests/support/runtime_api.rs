//! A small AWS Lambda Runtime API: hands out events, takes answers, and keeps a record of who called what when.
//!
//! It has no sandbox: nothing is frozen or killed at its deadline. That is for the crate `db-handler-sandbox`.

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

/// What the function asked for or said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `GET next`: it is ready for an event.
    Next,
    /// `POST response` for the event with this id: its head has arrived.
    Response(String),
    /// The body of that response is complete.
    ResponseEnd(String),
    /// `POST error` for the event with this id.
    Error(String),
    /// `POST init/error`: it could not start.
    InitError,
    /// An extension has registered; `lambda_runtime` does so in order to be told about the shutdown.
    Extension,
}

/// A call, when it came, and what the observer saw at that moment.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// What was called.
    pub call: Call,
    /// When.
    pub at: Instant,
    /// What the observer of [`RuntimeApi::observed`] returned; 0 without one.
    pub observed: usize,
}

/// What the function answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The id of the event.
    pub id: String,
    /// Whether it came as an error.
    pub is_error: bool,
    /// The header `Lambda-Runtime-Function-Error-Type`, or the trailer of that name if a stream broke off.
    pub error_type: Option<String>,
    /// All headers of the request.
    pub headers: HeaderMap,
    /// The body; of a streamed one all chunks together.
    pub body: Bytes,
    /// Whether the body came to its end; `false` if the connection was closed in the middle of it.
    pub is_complete: bool,
    /// The pieces of the body as they came.
    pub chunks: Vec<(Instant, Bytes)>,
    /// When the event was handed out.
    pub started: Instant,
    /// When the last byte of the answer had come.
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

    /// How long the caller waited for it.
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
    /// When there is no free loopback port.
    pub async fn start() -> Self {
        turn::beside();
        Self::serve(None, true).await
    }

    /// Starts one that knows no extensions, as some emulators do not.
    ///
    /// # Panics
    /// When there is no free loopback port.
    pub async fn without_extensions() -> Self {
        turn::beside();
        Self::serve(None, false).await
    }

    /// Starts it with an observer, which looks at something, such as the number of connections to the database, at every
    /// call of the function. The function's call is not answered before the observer has returned.
    ///
    /// # Panics
    /// When there is no free loopback port.
    pub async fn observed<F, Fut>(observer: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = usize> + Send + 'static,
    {
        Self::serve(Some(Box::new(move || Box::pin(observer()))), true).await
    }

    /// What the function finds in `AWS_LAMBDA_RUNTIME_API`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Queues an event, to be answered within `limit` of being handed out; returns its request id.
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

    /// Queues an event and waits for its answer.
    ///
    /// # Panics
    /// When none comes: see [`answer`](Self::answer).
    pub async fn invoke(&self, event: &Value, limit: Duration) -> Answer {
        let id = self.push(event, limit);
        self.answer(&id).await
    }

    /// Waits for the answer to the event with this id.
    ///
    /// # Panics
    /// When none comes, with the calls that came.
    pub async fn answer(&self, id: &str) -> Answer {
        let what = format!("an answer to {id}");
        self.wait(&what, |state| state.answers.get(id).cloned())
            .await
    }

    /// Waits until the function says that it could not start.
    ///
    /// # Panics
    /// When it does not, with the calls that came.
    pub async fn init_error(&self) -> Answer {
        self.wait("an init error", |state| state.init_errors.first().cloned())
            .await
    }

    /// Waits until the function has nothing left to do: no event is queued, all are answered, and it asks for the next one.
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

    /// All calls so far, in the order in which they came.
    #[must_use]
    pub fn calls(&self) -> Vec<Recorded> {
        self.shared.lock().calls.clone()
    }

    /// The first `GET next` after the answer to the event with this id was complete: between the two lies what the function
    /// does behind its caller's back.
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
        // With the task go all connections.
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
        // A test that panicked elsewhere leaves the record as it was: it is still worth reading.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn until<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            // Before the look: a change after it is not missed.
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
