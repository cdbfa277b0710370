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
            let message = without_ports(message);
            // lambda_runtime names the type of a boxed error by the box.
            if error_type.starts_with('&') {
                shortened(&message)
            } else {
                shortened(&format!("{error_type}: {message}"))
            }
        }
        Outcome::InitFailed(failure) => format!("init failed: {}", failure.error_type),
    }
}

/// Every environment has a port of its own, and the same trouble.
fn without_ports(message: &str) -> String {
    const HOST: &str = "127.0.0.1:";
    let mut parts = message.split(HOST);
    let mut told = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        told.push_str(HOST.trim_end_matches(':'));
        told.push_str(part.trim_start_matches(|letter: char| letter.is_ascii_digit()));
    }
    told
}

fn shortened(words: &str) -> String {
    words.chars().take(140).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_trouble_at_another_port_is_the_same() {
        let told = without_ports("PostgreSQL at 127.0.0.1:3310/app is full, 127.0.0.1:44");
        assert_eq!(told, "PostgreSQL at 127.0.0.1/app is full, 127.0.0.1");
    }
}
