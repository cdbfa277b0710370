//! Records of invocations, their phases and outcomes, as in the report.

use std::{fmt, time::Duration};

use bytes::Bytes;
use serde::{Serialize, Serializer};

use crate::clock::millis;

/// One period of an environment, in milliseconds since the start of the run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Phase {
    /// Its kind.
    pub kind: PhaseKind,
    /// When it began.
    pub from: f64,
    /// When it ended.
    pub to: f64,
}

/// Kinds of phases.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseKind {
    /// From the start of the process to its first poll.
    Init,
    /// From the restore of a snapshot to the first poll.
    Restore,
    /// The request has arrived, but is not yet delivered (thawing, or all busy).
    Wait,
    /// The function has the event and has not responded.
    Handler,
    /// The response is being streamed.
    Stream,
    /// The response has arrived; the function has not polled for the next event (still billed).
    After,
    /// From SIGTERM or SIGKILL at a deadline, or after a crash, to the end of the process.
    Kill,
    /// Stopped between two invocations.
    Frozen,
    /// From the start of the shutdown to the end of the process.
    Shutdown,
}

/// An invocation, from the caller's request to the function's next poll.
#[derive(Clone, Debug, Serialize)]
pub struct Invocation {
    /// The id that the function received.
    pub request_id: String,
    /// Counted from 1 in each environment.
    pub number: u32,
    /// Whether it had to wait for the start of a process.
    pub cold: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// The caller's waiting time, until the last byte of the response (or the failure).
    #[serde(rename = "waited_ms", serialize_with = "as_ms")]
    pub waited: Duration,
    /// From the delivery to the function until its next poll (or its end).
    #[serde(rename = "billed_ms", serialize_with = "as_ms")]
    pub billed: Duration,
    /// What happened after the response.
    pub after: After,
    /// Its phases, in order.
    pub phases: Vec<Phase>,
}

impl Invocation {
    /// Whether the caller got a response that is not an error.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        matches!(self.outcome, Outcome::Answered { .. })
    }

    /// The response as JSON, if there is one and it is valid JSON.
    #[must_use]
    pub fn json(&self) -> Option<serde_json::Value> {
        match &self.outcome {
            Outcome::Answered { body } => serde_json::from_slice(body).ok(),
            _ => None,
        }
    }

    /// The total time in phases of this kind.
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
    /// With a response.
    Answered {
        /// The body of the response; a report contains its length.
        #[serde(rename = "bytes", serialize_with = "as_length")]
        body: Bytes,
    },
    /// The function reported an error.
    Failed {
        /// The error type that the function (or the platform) reported.
        error_type: String,
        /// The error message.
        message: String,
    },
    /// No response before the deadline.
    TimedOut,
    /// The process ended during the invocation: `Runtime.ExitError`.
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
    /// Lambda's error type (`Runtime.ExitError`, `Sandbox.Timedout` ...) or the function's.
    pub error_type: String,
    /// A readable description.
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

/// What the function did after its response.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum After {
    /// It polled for the next event.
    Polled,
    /// It was still busy at the deadline, and was killed.
    KilledAtDeadline,
    /// Its process ended.
    Exited,
    /// There was no response.
    NoAnswer,
}

/// An invalid call of the function, and the reply that it got.
#[derive(Clone, Debug, Serialize)]
pub struct Violation {
    /// Milliseconds since the start of the run.
    pub at: f64,
    /// The method and path.
    pub request: String,
    /// The status of the reply.
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
