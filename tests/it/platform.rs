//! Errors that platforms receive, and log lines: the same on AWS Lambda, on Tencent SCF and locally.

use crate::FUNCTION;
use sandbox::{Function as Simulated, Outcome, Platform, Sandbox};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};
use support::{
    caller::{call, local},
    function::{Function, FunctionBuilder},
    runtime_api::RuntimeApi,
};

/// The ledger's URL in tests that do not depend on it.
const LEDGER: (&str, &str) = ("LEDGER_URL", "ledger://books.example");
const AMPLE: Duration = Duration::from_secs(60);

fn builder(api: &RuntimeApi) -> FunctionBuilder {
    Function::builder(api, Path::new(FUNCTION))
        .env("FUNCTION", "platform")
        .env(LEDGER.0, LEDGER.1)
}

/// Returns the error for `event` on both platforms and locally, and checks that the next event succeeds.
async fn told(event: &Value) -> Vec<(String, String)> {
    let mut told = Vec::new();
    for platform in [Platform::Lambda, Platform::Scf] {
        let sandbox = Sandbox::new(
            Simulated::new(FUNCTION)
                .env("FUNCTION", "platform")
                .env(LEDGER.0, LEDGER.1),
        )
        .platform(platform);
        let environment = sandbox.start().await.expect("the function starts");
        match environment.invoke(event.clone()).await.outcome {
            Outcome::Failed {
                error_type,
                message,
            } => told.push((error_type, message)),
            other => panic!("{platform:?}: {other:?}"),
        }
        let next = environment.invoke(json!("number")).await;
        assert_eq!(next.json(), Some(json!(7)), "{platform:?}: {next:?}");
        assert_eq!(environment.starts(), 1, "{platform:?}");
        environment.shutdown().await;
    }
    let function = local(Path::new(FUNCTION))
        .env("FUNCTION", "platform")
        .env(LEDGER.0, LEDGER.1);
    let called = call(function, &[event.clone(), json!("number")]).await;
    assert_eq!(called.answers[1], 7, "{}", called.log);
    let text = |field: &str| called.answers[0][field].as_str().map(str::to_owned);
    told.push((
        text("errorType").expect("an error"),
        text("errorMessage").expect("an error"),
    ));
    told
}

async fn is_told(event: Value, error_type: &str, message: &str) {
    for told in told(&event).await {
        assert_eq!(told, (error_type.to_owned(), message.to_owned()), "{event}");
    }
}

#[tokio::test]
async fn response_that_is_not_json_fails_its_invocation_only() {
    is_told(
        json!("unwritable"),
        "Handler",
        "handler: the response cannot be serialized as JSON: key must be a string",
    )
    .await;
}

#[tokio::test]
async fn event_with_wrong_shape_is_event_error() {
    let event = json!("something else");
    for (error_type, message) in told(&event).await {
        assert_eq!(error_type, "Event");
        assert!(
            message.contains("unknown variant `something else`"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn panic_has_readable_error_type() {
    is_told(
        json!("panic"),
        "HandlerPanicked",
        "handler: panicked: told to panic",
    )
    .await;
}

#[tokio::test]
async fn boxed_error_is_reported_with_its_causes() {
    is_told(
        json!("boxed"),
        "Handler",
        "cannot save the order: disk full",
    )
    .await;
    is_told(
        json!("ours"),
        "TooManyConnections",
        "cannot save the order: handler: no room",
    )
    .await;
}

#[tokio::test]
async fn causes_are_logged() {
    let api = RuntimeApi::start().await;
    let function = builder(&api).start();
    assert!(api.invoke(&json!("boxed"), AMPLE).await.is_error);
    function
        .wait_for_output("cannot save the order: disk full")
        .await;
}

#[tokio::test]
async fn failed_resource_is_named_with_its_address() {
    let function = local(Path::new(FUNCTION))
        .env("FUNCTION", "platform")
        .env("REFUSED", "yes")
        .env("LEDGER_URL", "ledger://me:hunter2@books.example:4711/main");
    let called = call(function, &[json!("number")]).await;
    let (error_type, message) = called.error();
    assert_eq!(error_type, "Handler");
    assert_eq!(
        message,
        "function::platform::tell: acquire: cannot open ledger at books.example:4711: connection refused"
    );
    assert!(!called.log.contains("hunter2"), "{}", called.log);
}

#[tokio::test]
async fn without_run_hint_is_logged_once() {
    let api = RuntimeApi::start().await;
    let mut function = builder(&api).env("RUN", "lambda_runtime").start();
    for _ in 0..2 {
        let answer = api.invoke(&json!("number"), AMPLE).await;
        assert_eq!(answer.json(), 7);
    }
    api.idle().await;
    function.signal("KILL").await;
    function.ended().await;
    let log = function.stderr();
    assert_eq!(log.matches("db_handler::run(tell)").count(), 1, "{log}");
}

#[tokio::test]
async fn with_run_hint_is_not_logged() {
    let api = RuntimeApi::start().await;
    let mut function = builder(&api).start();
    assert_eq!(api.invoke(&json!("number"), AMPLE).await.json(), 7);
    api.idle().await;
    function.signal("KILL").await;
    function.ended().await;
    let log = function.stderr();
    assert!(!log.contains("db_handler::run"), "{log}");
}

#[tokio::test]
async fn platform_without_extensions_logs_one_warning() {
    let api = RuntimeApi::without_extensions().await;
    let mut function = builder(&api).start();
    assert_eq!(api.invoke(&json!("number"), AMPLE).await.json(), 7);
    function.signal("KILL").await;
    function.ended().await;
    let log = function.stderr();
    assert!(!log.contains("panicked"), "{log}");
    assert_eq!(log.matches("no shutdown hook").count(), 1, "{log}");
}
