//! `run` without a platform: the local mode.

use crate::FUNCTION;
use serde_json::json;
use std::path::{Path, PathBuf};
use support::{
    caller::{call, finish, local},
    example,
    function::FunctionBuilder,
};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn orders(&self) -> FunctionBuilder {
        let file: PathBuf = self.0.path().join("orders.db");
        local(&example("orders")).env(
            "DATABASE_URL",
            format!("sqlite://{}?mode=rwc", file.display()),
        )
    }
}

#[tokio::test]
async fn every_argument_is_an_event() {
    let folder = Folder::new();
    let events = [
        json!({"item": "tea", "quantity": 2}),
        json!({"item": "tea", "quantity": 3}),
    ];
    let called = call(folder.orders(), &events).await;
    assert_eq!(called.code, Some(0), "{}", called.log);
    assert_eq!(
        called.answers,
        [
            json!({"order": 1, "item": "tea", "items_ordered_so_far": 2}),
            json!({"order": 2, "item": "tea", "items_ordered_so_far": 5}),
        ]
    );
}

#[tokio::test]
async fn every_input_line_is_an_event() {
    let folder = Folder::new();
    let order = json!({"item": "tea", "quantity": 1});
    let called = finish(folder.orders().input(format!("{order}\n\n{order}\n"))).await;
    assert_eq!(called.code, Some(0), "{}", called.log);
    assert_eq!(called.answers.len(), 2, "{called:?}");
}

#[tokio::test]
async fn phases_of_each_invocation_are_drawn() {
    let folder = Folder::new();
    let called = call(folder.orders(), &[json!({"item": "tea", "quantity": 2})]).await;
    let lines: Vec<&str> = called.log.lines().collect();
    let [head, init, handler, response, cleanup] = lines.as_slice() else {
        panic!("{}", called.log);
    };
    assert!(head.starts_with("event 1: response after "), "{head}");
    for (line, phase, what) in [
        (init, "init", "SQLite pool opened"),
        (handler, "handler", "ran"),
        (response, "response", "bytes"),
        (cleanup, "cleanup", "SQLite pool closed"),
    ] {
        assert!(line.trim_start().starts_with(phase), "{line}");
        assert!(line.contains(what) && line.contains('#'), "{line}");
    }
}

#[tokio::test]
async fn invalid_json_input_is_reported_with_line_number() {
    let folder = Folder::new();
    let order = json!({"item": "tea", "quantity": 1});
    let called = finish(folder.orders().input(format!("{order}\n{{oops\n{order}\n"))).await;
    assert_eq!(called.code, Some(2));
    assert_eq!(called.answers.len(), 1, "the line before it was answered");
    assert!(
        called.log.contains("line 2 is not valid JSON: "),
        "{}",
        called.log
    );
}

#[tokio::test]
async fn invalid_utf8_input_is_reported_with_line_number() {
    let folder = Folder::new();
    let called = finish(folder.orders().input(*b"\n\xff\xfe\n")).await;
    assert_eq!(called.code, Some(2));
    assert!(
        called.log.contains("line 2 is not valid JSON: "),
        "{}",
        called.log
    );
}

#[tokio::test]
async fn invalid_json_argument_is_reported_before_handler_runs() {
    let folder = Folder::new();
    let order = json!({"item": "tea", "quantity": 1}).to_string();
    let called = finish(folder.orders().arg(order).arg("oops")).await;
    assert_eq!(called.code, Some(2));
    assert!(called.answers.is_empty());
    assert!(
        called.log.contains("argument 2 is not valid JSON: "),
        "{}",
        called.log
    );
}

#[tokio::test]
async fn invalid_event_returns_error_and_next_event_succeeds() {
    let folder = Folder::new();
    let events = [
        json!({"item": "tea"}),
        json!({"item": "tea", "quantity": 1}),
    ];
    let called = call(folder.orders(), &events).await;
    assert_eq!(called.code, Some(1));
    assert_eq!(called.answers[0]["errorType"], "Event");
    let message = called.answers[0]["errorMessage"].as_str().expect("a text");
    assert!(message.contains("missing field `quantity`"), "{message}");
    assert_eq!(called.answers[1]["order"], 1);
    assert!(
        called.log.contains("1 of 2 events failed"),
        "{}",
        called.log
    );
}

#[tokio::test]
async fn unopenable_database_is_named_in_error() {
    let folder = Folder::new();
    let url = "sqlite:///nowhere/at/all.db";
    let called = call(
        folder.orders().env("DATABASE_URL", url),
        &[json!({"item": "tea", "quantity": 1})],
    )
    .await;
    let (error_type, message) = called.error();
    assert_eq!(error_type, "NoSuchDatabase", "{message}");
}

#[tokio::test]
async fn panic_returns_error() {
    let function = local(Path::new(FUNCTION))
        .env("FUNCTION", "database")
        .env("HANDLER", "postgres/always")
        .env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nowhere");
    let called = call(function, &[json!({"do": "panic"})]).await;
    assert_eq!(called.error().0, "HandlerPanicked");
}

/// Like `my-function 2>&1 >/dev/null | head -1`.
#[tokio::test]
async fn closed_stderr_does_not_stop_events() {
    use std::{
        io::{Read, pipe},
        process::{Command, Stdio},
    };

    let folder = Folder::new();
    let file = folder.0.path().join("orders.db");
    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    let order = json!({"item": "tea", "quantity": 2}).to_string();
    let mut function = Command::new(example("orders"))
        .args([&order, &order])
        .env(
            "DATABASE_URL",
            format!("sqlite://{}?mode=rwc", file.display()),
        )
        .stdout(Stdio::piped())
        .stderr(writer)
        .spawn()
        .expect("the example starts");
    let mut answers = String::new();
    function
        .stdout
        .take()
        .expect("its output")
        .read_to_string(&mut answers)
        .expect("text");
    assert_eq!(answers.lines().count(), 2, "{answers}");
    let ended = function.wait().expect("it ends");
    assert_eq!(ended.code(), Some(0), "{answers}");
}
