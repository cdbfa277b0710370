//! `run` on AWS Lambda: the real `lambda_runtime` against a simulated Runtime API.

use crate::FUNCTION;
use serde_json::{Value, json};
use std::{path::Path, time::Duration};
use support::{
    Database, example,
    function::Function,
    mariadb, postgres,
    runtime_api::{Call, Recorded, RuntimeApi},
};

const AMPLE: Duration = Duration::from_secs(60);

fn start(api: &RuntimeApi, binary: &Path, handler: &str, database: &Database) -> Function {
    Function::builder(api, binary)
        .env("FUNCTION", "database")
        .env("HANDLER", handler)
        .env("DATABASE_URL", database.url())
        .start()
}

/// Counts the connections to `database` at every call to the Runtime API.
async fn counting(database: &Database) -> RuntimeApi {
    let database = database.clone();
    RuntimeApi::observed(move || {
        let database = database.clone();
        async move { database.connections().await }
    })
    .await
}

/// Waits at every call to the Runtime API until no connection to `database` is open.
async fn expecting_none(database: &Database) -> RuntimeApi {
    let database = database.clone();
    RuntimeApi::observed(move || {
        let database = database.clone();
        async move {
            // The server notices a closed connection with a delay.
            database.wait_until_connections(0).await;
            database.connections().await
        }
    })
    .await
}

fn observed(calls: &[Recorded], wanted: &Call) -> usize {
    calls
        .iter()
        .find(|recorded| recorded.call == *wanted)
        .unwrap_or_else(|| panic!("no {wanted:?} in {calls:?}"))
        .observed
}

#[tokio::test]
async fn response_is_posted_before_pool_is_closed() {
    let database = postgres().fresh_database().await;
    for handler in ["postgres/always", "postgres/single"] {
        let api = counting(&database).await;
        let _function = start(&api, Path::new(FUNCTION), handler, &database);
        let answer = api.invoke(&json!({"do": "session"}), AMPLE).await;
        assert!(!answer.is_error, "{}", answer.text());
        let posted = Call::Response(answer.id.clone());
        api.next_after(&answer.id).await;
        assert!(
            observed(&api.calls(), &posted) >= 1,
            "{handler}: {:?}",
            api.calls()
        );
        database.wait_until_connections(0).await;
    }
}

#[tokio::test]
async fn error_is_posted_before_pool_is_closed() {
    let database = postgres().fresh_database().await;
    let api = counting(&database).await;
    let _function = start(&api, Path::new(FUNCTION), "postgres/single", &database);
    let answer = api.invoke(&json!({"do": "fail"}), AMPLE).await;
    assert_eq!(answer.json()["errorType"], "Handler");
    let posted = Call::Error(answer.id.clone());
    api.next_after(&answer.id).await;
    assert!(observed(&api.calls(), &posted) >= 1, "{:?}", api.calls());
    database.wait_until_connections(0).await;
}

#[tokio::test]
async fn without_run_pool_is_closed_before_response() {
    let database = postgres().fresh_database().await;
    let api = expecting_none(&database).await;
    let _function = start(&api, &example("plain_lambda_runtime"), "", &database);
    let answer = api.invoke(&json!({}), AMPLE).await;
    assert!(answer.json()["now"].is_string(), "{}", answer.text());
}

#[tokio::test]
async fn streamed_body_is_finished_before_pool_is_closed() {
    let database = postgres().fresh_database().await;
    let api = RuntimeApi::start().await;
    let function = Function::builder(&api, Path::new(FUNCTION))
        .env("FUNCTION", "streaming")
        .env("DATABASE_URL", database.url())
        .start();
    for _ in 0..2 {
        let answer = api.invoke(&json!(5), AMPLE).await;
        // The prelude of Lambda's streaming protocol comes before the body.
        let text = answer.text();
        assert!(
            text.ends_with("\u{0}1 2 3 4 5 "),
            "{text:?}\n{}",
            function.output()
        );
        assert!(
            answer.took() >= Duration::from_millis(200),
            "{:?}",
            answer.took()
        );
        api.next_after(&answer.id).await;
        database.wait_until_connections(0).await;
    }
}

#[tokio::test]
async fn errors_are_reported_and_next_event_succeeds() {
    let database = postgres().fresh_database().await;
    let api = RuntimeApi::start().await;
    let _function = start(&api, Path::new(FUNCTION), "postgres/never", &database);
    for (event, error_type, word) in [
        (json!({"do": "fail"}), "Handler", "told to fail"),
        (json!({"do": "bad_statement"}), "Query", "no_such_column"),
        (json!({"do": "panic"}), "HandlerPanicked", "told to panic"),
        (json!({"do": "no such deed"}), "Event", "no such deed"),
        (json!("no deed at all"), "Event", "invalid type"),
    ] {
        let answer = api.invoke(&event, AMPLE).await;
        assert!(answer.is_error, "{event}: {}", answer.text());
        let answer = answer.json();
        assert_eq!(answer["errorType"], error_type, "{event}");
        let message = answer["errorMessage"].as_str().unwrap_or_default();
        assert!(message.contains(word), "{event}: {message}");
        let session = api.invoke(&json!({"do": "session"}), AMPLE).await;
        assert!(session.json().is_i64(), "after {event}: {}", session.text());
    }
}

#[tokio::test]
async fn missing_url_is_init_error() {
    let api = RuntimeApi::start().await;
    let mut function = Function::builder(&api, Path::new(FUNCTION))
        .env("FUNCTION", "database")
        .env("HANDLER", "postgres/always")
        .start();
    let error = api.init_error().await;
    assert_eq!(error.error_type.as_deref(), Some("Runtime.MissingUrl"));
    assert_eq!(error.json()["errorType"], "MissingUrl");
    assert_eq!(
        error.json()["errorMessage"],
        "function::database::postgres::always: init: the environment variable DATABASE_URL is not set: set it to the database's URL"
    );
    assert!(!function.ended().await.success());
    assert!(
        !api.calls()
            .iter()
            .any(|recorded| recorded.call == Call::Next),
        "asked for an event all the same"
    );
}

#[tokio::test]
async fn concurrent_events_run_concurrently() {
    let database = postgres().fresh_database().await;
    let api = RuntimeApi::start().await;
    let _function = Function::builder(&api, Path::new(FUNCTION))
        .env("FUNCTION", "database")
        .env("HANDLER", "postgres/never")
        .env("DATABASE_URL", database.url())
        .concurrency(2)
        .start();
    let sleep = json!({"do": "sleep", "seconds": 1.0});
    let ids = [api.push(&sleep, AMPLE), api.push(&sleep, AMPLE)];
    database.wait_until_running(2).await;
    for id in ids {
        assert_eq!(api.answer(&id).await.json(), Value::from("awake"));
    }
}

#[tokio::test]
async fn shutdown_closes_connections_before_process_exits() {
    for (server, database) in [
        ("postgres", postgres().fresh_database().await),
        ("mariadb", mariadb().fresh_database().await),
    ] {
        let api = RuntimeApi::start().await;
        let function = start(
            &api,
            Path::new(FUNCTION),
            &format!("{server}/kept"),
            &database,
        );
        let answer = api.invoke(&json!(false), AMPLE).await;
        assert!(!answer.is_error, "{server}: {}", answer.text());
        api.next_after(&answer.id).await;
        assert_eq!(database.connections().await, 2, "{server}");
        let answer = api.invoke(&json!(true), AMPLE).await;
        assert_eq!(answer.json(), "shut down", "{server}");
        database.wait_until_connections(0).await;
        assert!(function.id() > 0, "{server}: it still runs");
    }
}

#[tokio::test]
async fn sigterm_closes_connections_and_exits() {
    support::measures_time();
    for (server, database) in [
        ("postgres", postgres().fresh_database().await),
        ("mariadb", mariadb().fresh_database().await),
    ] {
        for handler in ["never", "single_kept"] {
            let api = RuntimeApi::start().await;
            let handler = format!("{server}/{handler}");
            let mut function = start(&api, Path::new(FUNCTION), &handler, &database);
            let answer = api.invoke(&json!({"do": "session"}), AMPLE).await;
            assert!(!answer.is_error, "{handler}: {}", answer.text());
            api.next_after(&answer.id).await;
            assert_eq!(database.connections().await, 1, "{handler}");
            function.signal("TERM").await;
            let ended = function.ended().await;
            assert_eq!(ended.code(), Some(0), "{handler}: {}", function.output());
            database.wait_until_connections(0).await;
        }
    }
}

#[tokio::test]
async fn extension_is_registered_only_if_connections_are_reused() {
    let database = postgres().fresh_database().await;
    for (handler, registered) in [("always", false), ("never", true), ("eager", true)] {
        let api = RuntimeApi::start().await;
        let handler = format!("postgres/{handler}");
        let _function = start(&api, Path::new(FUNCTION), &handler, &database);
        api.idle().await;
        let calls = api.calls();
        let is_registered = calls.iter().any(|call| call.call == Call::Extension);
        assert_eq!(is_registered, registered, "{handler}: {calls:?}");
    }
}
