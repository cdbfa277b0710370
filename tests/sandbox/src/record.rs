//! What happened: invocations, their phases and their outcomes, as the report has them.

use std::{fmt, time::Duration};

use bytes::Bytes;
use serde::{Serialize, Serializer};

use crate::clock::millis;

/// One stretch of an environment's life, in milliseconds since the start of the run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Phase {
    /// What was going on.
    pub kind: PhaseKind,
    /// When it began.
    pub from: f64,
    /// When it was over.
    pub to: f64,
}

/// What an environment can be doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseKind {
    /// From the start of the process to its first poll.
    Init,
    /// From the restore of a snapshot to the first poll.
    Restore,
    /// The caller's request is there, the function has not got it yet (thawing, or all busy).
    Wait,
    /// The function has the event and has sent nothing.
    Handler,
    /// The answer is on its way, in pieces.
    Stream,
    /// The answer is in; the function has not asked for the next event (still billed).
    After,
    /// From SIGTERM or SIGKILL at a deadline, or after a crash, to the end of the process.
    Kill,
    /// Stopped between two invocations.
    Frozen,
    /// From the shutdown's beginning to the end of the process.
    Shutdown,
}

/// An invocation, from the caller's request to the function's next poll.
#[derive(Clone, Debug, Serialize)]
pub struct Invocation {
    /// The id that the function got.
    pub request_id: String,
    /// Counted from 1 in each environment.
    pub number: u32,
    /// Whether it had to wait for the start of a process.
    pub cold: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// What the caller waited, until the last byte of the answer (or the failure).
    #[serde(rename = "waited_ms", serialize_with = "as_ms")]
    pub waited: Duration,
    /// From the hand-over to the function until its next poll (or its end).
    #[serde(rename = "billed_ms", serialize_with = "as_ms")]
    pub billed: Duration,
    /// What happened after the answer.
    pub after: After,
    /// Its stretches, in order.
    pub phases: Vec<Phase>,
}

impl Invocation {
    /// Whether the caller got an answer that is no error.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        matches!(self.outcome, Outcome::Answered { .. })
    }

    /// The answer as JSON, where there is one and it is JSON.
    #[must_use]
    pub fn json(&self) -> Option<serde_json::Value> {
        match &self.outcome {
            Outcome::Answered { body } => serde_json::from_slice(body).ok(),
            _ => None,
        }
    }

    /// How long it was in phases of this kind.
    #[must_use]
    pub fn spent(&self, kind: PhaseKind) -> Duration {
        let ms: f64 = self
            .phases
            .iter()
            .filter(|p| p.kind == kind)
            .map(|p| p.to - p.from)
            .sum();
        Duration::from_secs_f64(ms.max(0.0) / 1000.0)
    }
}

/// How an invocation ended for the caller.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// With an answer.
    Answered {
        /// The answer's bytes; a report has their number.
        #[serde(rename = "bytes", serialize_with = "as_length")]
        body: Bytes,
    },
    /// The function reported an error.
    Failed {
        /// What the function (or the platform) calls it.
        error_type: String,
        /// Its words.
        message: String,
    },
    /// No answer until the deadline.
    TimedOut,
    /// The process ended in the middle: `Runtime.ExitError`.
    Crashed {
        /// Exit status or signal.
        status: String,
    },
    /// The process that was started for it never became ready.
    InitFailed(InitFailure),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered { body } => write!(f, "answered, {} bytes", body.len()),
            Self::Failed {
                error_type,
                message,
            } => write!(f, "failed: {error_type}: {message}"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Crashed { status } => write!(f, "crashed: {status}"),
            Self::InitFailed(failure) => failure.fmt(f),
        }
    }
}

/// Why a function never became ready.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct InitFailure {
    /// As Lambda names it: `Runtime.ExitError`, `Runtime.InvalidEntrypoint`, `Sandbox.Timedout` ..., or the function's own.
    pub error_type: String,
    /// What happened, for people.
    pub message: String,
    /// The last lines that the function wrote.
    pub output: Vec<String>,
}

impl fmt::Display for InitFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.error_type, self.message)?;
        for line in &self.output {
            write!(f, "\n  | {line}")?;
        }
        Ok(())
    }
}

impl std::error::Error for InitFailure {}

/// What the function did after its answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum After {
    /// It asked for the next event.
    Polled,
    /// It was still busy at the deadline, and was killed.
    KilledAtDeadline,
    /// Its process ended.
    Exited,
    /// There was no answer to come after.
    NoAnswer,
}

/// Something that the function should not have sent, and what it was told.
#[derive(Clone, Debug, Serialize)]
pub struct Violation {
    /// Milliseconds since the start of the run.
    pub at: f64,
    /// The method and path.
    pub request: String,
    /// The status that it got.
    pub status: u16,
    /// What was wrong.
    pub message: String,
}

fn as_ms<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(millis(*duration))
}

fn as_length<S: Serializer>(body: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(body.len() as u64)
}
