//! The sections: each measures one thing, and writes one file.

pub(crate) mod burst;
pub(crate) mod cold;
pub(crate) mod dark;
pub(crate) mod instructions;
pub(crate) mod latency;
pub(crate) mod trace;

use sandbox::{Invocation, Outcome, PhaseKind};
use std::time::Duration;

/// The function's timeout where nothing is expected to take long.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What the caller waited, without the thaw and without a cold start: from the hand-over of the event to the answer.
fn caller_ms(invocation: &Invocation) -> f64 {
    let spent = invocation.spent(PhaseKind::Handler)
        + invocation.spent(PhaseKind::Stream)
        + invocation.spent(PhaseKind::Kill);
    spent.as_secs_f64() * 1000.0
}

/// What happened, in a few words that can be counted.
fn words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Answered { .. } => "answered".into(),
        Outcome::TimedOut => "function timed out".into(),
        Outcome::Crashed { .. } => "function crashed".into(),
        Outcome::Failed {
            error_type,
            message,
        } => {
            let message: String = message.chars().take(120).collect();
            format!("{error_type}: {message}")
        }
        Outcome::InitFailed(failure) => format!("init failed: {}", failure.error_type),
    }
}
