//! Calls the test function once per event, without a platform: its local mode.

use crate::function::{Function, FunctionBuilder};
use serde_json::Value;
use std::path::Path;

/// What came of one run of a function in its local mode.
#[derive(Debug)]
pub struct Called {
    /// One answer per event; an error is an object with `errorType` and `errorMessage`.
    pub answers: Vec<Value>,
    /// What was drawn and logged.
    pub log: String,
    /// The process's exit code.
    pub code: Option<i32>,
}

impl Called {
    /// The only answer.
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

    /// Type and message of the only answer, which is an error.
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

/// A local run of `binary`, to be given variables.
pub fn local(binary: &Path) -> FunctionBuilder {
    Function::without_platform(binary)
}

/// Runs it with `events` as its arguments, to the end.
///
/// # Panics
/// When it prints something that is no JSON, or does not end.
pub async fn call(function: FunctionBuilder, events: &[Value]) -> Called {
    let function = events
        .iter()
        .fold(function, |function, event| function.arg(event.to_string()));
    finish(function).await
}

/// Runs it to the end.
///
/// # Panics
/// When it prints something that is no JSON, or does not end.
pub async fn finish(function: FunctionBuilder) -> Called {
    let mut function = function.start();
    let status = function.ended().await;
    let answers = function
        .stdout()
        .lines()
        .map(|line| {
            serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{line:?} is no JSON: {error}"))
        })
        .collect();
    Called {
        answers,
        log: function.stderr(),
        code: status.code(),
    }
}
