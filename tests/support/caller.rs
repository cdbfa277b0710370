//! Calls the test function once per event in its local mode, without a platform.

use crate::function::{Function, FunctionBuilder};
use serde_json::Value;
use std::path::Path;

/// The result of one run of a function in local mode.
#[derive(Debug)]
pub struct Called {
    /// One response per event; an error is an object with `errorType` and `errorMessage`.
    pub answers: Vec<Value>,
    /// The timeline and log lines.
    pub log: String,
    /// The process's exit code.
    pub code: Option<i32>,
}

impl Called {
    /// The only response.
    ///
    /// # Panics
    /// When there is not exactly one.
    #[must_use]
    pub fn answer(&self) -> &Value {
        match self.answers.as_slice() {
            [answer] => answer,
            other => panic!(
                "expected one answer, not {other:?}; it logged:\n{}",
                self.log
            ),
        }
    }

    /// Type and message of the only response, which must be an error.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn error(&self) -> (&str, &str) {
        let answer = self.answer();
        match (
            answer["errorType"].as_str(),
            answer["errorMessage"].as_str(),
        ) {
            (Some(error_type), Some(message)) => (error_type, message),
            _ => panic!("expected an error, not {answer}"),
        }
    }
}

/// A local run of `binary`.
pub fn local(binary: &Path) -> FunctionBuilder {
    Function::without_platform(binary)
}

/// Runs it with `events` as its arguments, to the end.
///
/// # Panics
/// If it prints invalid JSON, or does not end.
pub async fn call(function: FunctionBuilder, events: &[Value]) -> Called {
    let function = events
        .iter()
        .fold(function, |function, event| function.arg(event.to_string()));
    finish(function).await
}

/// Runs it to the end.
///
/// # Panics
/// If it prints invalid JSON, or does not end.
pub async fn finish(function: FunctionBuilder) -> Called {
    let mut function = function.start();
    let status = function.ended().await;
    let answers = function
        .stdout()
        .lines()
        .map(|line| {
            serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{line:?} is not valid JSON: {error}"))
        })
        .collect();
    Called {
        answers,
        log: function.stderr(),
        code: status.code(),
    }
}
