//! The state of one process of a function. The request handlers write it; the environment reads it and
//! waits for changes.

use std::{
    collections::{HashMap, VecDeque},
    process::ExitStatus,
    time::Instant,
};

use bytes::Bytes;

use crate::{
    function::Event,
    record::{InitFailure, Violation},
};

/// The state of one process, under a `tokio::sync::watch`.
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// Polls for the next event that are waiting now.
    pub(crate) polls: usize,
    pub(crate) first_poll: Option<Instant>,
    /// SCF: the function has reported the end of its init.
    pub(crate) ready: bool,
    /// Calls that are not yet delivered.
    pub(crate) queue: VecDeque<String>,
    pub(crate) calls: HashMap<String, Call>,
    pub(crate) init_error: Option<InitFailure>,
    pub(crate) restore: Restore,
    pub(crate) extensions: Vec<Extension>,
    pub(crate) shutdown: Option<Shutdown>,
    pub(crate) violations: Vec<Violation>,
    /// The end of the function's process.
    pub(crate) exited: Option<(ExitStatus, Instant)>,
    /// External extensions whose process is running.
    pub(crate) helpers: usize,
}

/// One invocation, as the Runtime API sees it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) event: Event,
    pub(crate) trace: String,
    pub(crate) state: CallState,
    pub(crate) dispatched: Option<Instant>,
    pub(crate) deadline_ms: u64,
    pub(crate) first_byte: Option<Instant>,
    pub(crate) answered: Option<Instant>,
    pub(crate) polled: Option<Instant>,
}

#[derive(Debug)]
pub(crate) enum CallState {
    Queued,
    Running,
    /// The headers of the response have arrived, but not its end.
    Answering,
    Answered(Answer),
    /// The caller has stopped waiting: a response is too late.
    Expired,
}

#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Response { body: Bytes, streamed: bool },
    Error { error_type: String, message: String },
}

/// The state of a SnapStart function.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Restore {
    #[default]
    NotAsked,
    /// `restore/next` is waiting: the moment of the snapshot.
    Waiting,
    /// Restored: `restore/next` may return.
    Released,
}

#[derive(Debug)]
pub(crate) struct Extension {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) external: bool,
    pub(crate) invoke: bool,
    pub(crate) shutdown: bool,
    /// Events not yet taken.
    pub(crate) events: VecDeque<String>,
    /// Since when `event/next` has been waiting.
    pub(crate) waiting: Option<Instant>,
    pub(crate) error: Option<String>,
}

/// The shutdown that is announced to extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shutdown {
    pub(crate) reason: &'static str,
    pub(crate) deadline_ms: u64,
}

impl Call {
    pub(crate) fn new(event: Event, trace: String) -> Self {
        Self {
            event,
            trace,
            state: CallState::Queued,
            dispatched: None,
            deadline_ms: 0,
            first_byte: None,
            answered: None,
            polled: None,
        }
    }

    /// Delivered, and the caller still waits.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, CallState::Running | CallState::Answering)
    }

    pub(crate) fn answer(&mut self, answer: Answer) {
        self.answered = Some(Instant::now());
        self.state = CallState::Answered(answer);
    }
}

impl Board {
    /// A poll has arrived: work on the oldest call with a response has ended.
    pub(crate) fn poll_begins(&mut self) {
        let now = Instant::now();
        self.polls += 1;
        self.first_poll.get_or_insert(now);
        let oldest = self
            .calls
            .values_mut()
            .filter(|call| call.polled.is_none() && matches!(call.state, CallState::Answered(_)))
            .min_by_key(|call| call.answered);
        if let Some(call) = oldest {
            call.polled = Some(now);
        }
    }

    /// Whether every extension that wants events is waiting for the next one.
    pub(crate) fn extensions_ready(&self) -> bool {
        self.extensions
            .iter()
            .all(|extension| extension.waiting.is_some() && extension.events.is_empty())
    }

    /// When the last extension finished the invocation delivered at `dispatched`.
    pub(crate) fn extensions_done(&self, dispatched: Instant) -> Option<Instant> {
        let interested = self.extensions.iter().filter(|extension| extension.invoke);
        interested
            .map(|extension| extension.waiting.filter(|since| *since > dispatched))
            .try_fold(dispatched, |latest, done| Some(latest.max(done?)))
    }

    /// The error that an extension reported, or that its process ended.
    pub(crate) fn extension_error(&self) -> Option<&str> {
        self.extensions
            .iter()
            .find_map(|extension| extension.error.as_deref())
    }

    pub(crate) fn has_external_extension(&self) -> bool {
        self.extensions.iter().any(|extension| extension.external)
    }
}
