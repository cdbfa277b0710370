//! A streamed body that fails: the caller sees a broken transfer, the reason is logged, and the resources are cleaned
//! up.

use crate::FUNCTION;
use sandbox::{After, Function as Simulated, Outcome, Sandbox};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};
use support::{Database, function::Function, postgres, runtime_api::RuntimeApi};

const AMPLE: Duration = Duration::from_secs(60);
/// Long enough for two parts of a body and the reserve on a busy machine, but much shorter than `hang`.
const SHORT: Duration = Duration::from_secs(5);

fn start(api: &RuntimeApi, database: &Database) -> Function {
    Function::builder(api, Path::new(FUNCTION))
        .env("FUNCTION", "streaming")
        .env("DATABASE_URL", database.url())
        .start()
}

fn body(parts: i64, then: &str) -> Value {
    json!({ "parts": parts, "then": then })
}

#[tokio::test]
async fn failed_body_breaks_transfer() {
    let database = postgres().fresh_database().await;
    let api = RuntimeApi::start().await;
    let function = start(&api, &database);
    for (then, reason) in [
        ("fail", "no_such_column"),
        ("panic", "panicked: the body was told to panic"),
    ] {
        let answer = api.invoke(&body(2, then), AMPLE).await;
        assert!(!answer.is_complete, "{then}: {}", function.output());
        let text = answer.text();
        assert!(text.ends_with("\u{0}1 2 "), "{then}: {text:?}");
        function.wait_for_output(reason).await;
        database.wait_until_connections(0).await;
        // The environment is reused, and the next body is complete.
        let answer = api.invoke(&json!(1), AMPLE).await;
        assert!(answer.is_complete && answer.text().ends_with("\u{0}1 "));
    }
}

#[tokio::test]
async fn body_is_cancelled_before_deadline_and_cleaned_up() {
    support::measures_time();
    let database = postgres().fresh_database().await;
    let api = RuntimeApi::start().await;
    let function = start(&api, &database);
    let id = api.push(&body(1, "hang"), SHORT);
    database.wait_until_running(1).await;
    let answer = api.answer(&id).await;
    assert!(!answer.is_complete, "{}", function.output());
    assert!(answer.took() < SHORT, "{:?}", answer.took());
    function
        .wait_for_output("still being sent shortly before the deadline")
        .await;
    // The query of the body is cancelled.
    database.wait_until_connections(0).await;
    let answer = api.invoke(&json!(1), AMPLE).await;
    assert!(answer.is_complete && answer.text().ends_with("\u{0}1 "));
}

#[tokio::test]
async fn simulator_counts_broken_transfer_as_failed() {
    support::measures_time();
    let database = postgres().fresh_database().await;
    let sandbox = Sandbox::new(Simulated::new(FUNCTION).env("FUNCTION", "streaming"))
        .timeout(SHORT)
        .database("DATABASE_URL", database.url())
        .expect("a URL with a host");
    let environment = sandbox.start().await.expect("the function starts");
    for then in ["fail", "panic", "hang"] {
        let invocation = environment.invoke(body(1, then)).await;
        match &invocation.outcome {
            Outcome::Failed { error_type, .. } => {
                assert_eq!(error_type, "Runtime.TruncatedResponse", "{then}");
            }
            other => panic!("{then}: {other:?}"),
        }
        assert_eq!(invocation.after, After::Polled, "{then}");
        let whole = environment.invoke(json!(1)).await;
        assert!(whole.is_answered(), "after {then}: {whole:?}");
    }
    assert_eq!(environment.starts(), 1, "one process for all of them");
    assert!(environment.violations().await.is_empty());
    environment.shutdown().await;
}
