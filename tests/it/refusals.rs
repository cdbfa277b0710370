//! Every cause of a failed connection is a distinct error, returned at once and without passwords.

use crate::FUNCTION;
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use support::{
    MariaDb, Postgres,
    caller::{Called, call, local},
    mariadb, postgres, refused_port, silent_listener,
};

async fn called(handler: &str, url: &str, events: &[Value]) -> Called {
    let function = local(Path::new(FUNCTION))
        .env("FUNCTION", "database")
        .env("HANDLER", handler)
        .env("DATABASE_URL", url);
    let called = call(function, events).await;
    assert_shows_no_password(&called);
    called
}

fn assert_shows_no_password(called: &Called) {
    let shown = format!("{called:?}");
    for password in [Postgres::PASSWORD, MariaDb::PASSWORD, "hunter2"] {
        assert!(!shown.contains(password), "{password} is shown in {shown}");
    }
}

/// `acquire_ms` of all handlers here.
const ACQUIRE: Duration = Duration::from_millis(2_000);

/// Checks that `handler` returns `error_type` with every one of `words`, twice, and sooner than twice
/// `acquire_ms`.
async fn assert_refused(handler: &str, url: &str, error_type: &str, words: &[&str]) {
    let started = Instant::now();
    assert_refused_in_the_end(handler, url, error_type, words).await;
    assert!(
        started.elapsed() < 2 * ACQUIRE,
        "{handler}: {error_type} took {:?}",
        started.elapsed()
    );
}

/// Checks that `handler` returns `error_type` with every one of `words`, twice: the error is not cached, and does
/// not end the process.
async fn assert_refused_in_the_end(handler: &str, url: &str, error_type: &str, words: &[&str]) {
    let session = json!({"do": "session"});
    let called = called(handler, url, &[session.clone(), session]).await;
    assert_eq!(called.code, Some(1), "{called:?}");
    assert_eq!(called.answers.len(), 2, "{called:?}");
    for answer in &called.answers {
        assert_eq!(answer["errorType"], error_type, "{handler}: {answer}");
        let message = answer["errorMessage"].as_str().unwrap_or_default();
        for word in words {
            assert!(
                message.contains(word),
                "{handler}: no {word:?} in {message:?}"
            );
        }
    }
}

#[tokio::test]
async fn connection_refused() {
    support::measures_time();
    let port = refused_port();
    let place = format!("127.0.0.1:{port}/shop");
    for handler in ["postgres/always", "postgres/single", "postgres/boxed"] {
        let url = format!("postgres://app:hunter2@127.0.0.1:{port}/shop");
        assert_refused(handler, &url, "ConnectionRefused", &[&place, "listening"]).await;
    }
    for handler in ["mariadb/always", "mariadb/single", "mariadb/boxed"] {
        let url = format!("mysql://app:hunter2@127.0.0.1:{port}/shop");
        assert_refused(handler, &url, "ConnectionRefused", &[&place, "listening"]).await;
    }
}

#[tokio::test]
async fn wrong_password() {
    support::measures_time();
    let port = postgres().port();
    for handler in ["postgres/always", "postgres/single", "postgres/boxed"] {
        let url = format!("postgres://app:hunter2@127.0.0.1:{port}/postgres");
        let error = "Authentication";
        assert_refused(handler, &url, error, &["password"]).await;
    }
    let port = mariadb().port();
    for handler in ["mariadb/always", "mariadb/single", "mariadb/boxed"] {
        let url = format!("mysql://app:hunter2@127.0.0.1:{port}/mysql");
        let error = "Authentication";
        assert_refused(handler, &url, error, &["password"]).await;
    }
}

#[tokio::test]
async fn unknown_database() {
    support::measures_time();
    let url = with_database(&postgres().url(), "nowhere");
    for handler in ["postgres/always", "postgres/single"] {
        assert_refused(handler, &url, "NoSuchDatabase", &["nowhere"]).await;
    }
    let url = with_database(&mariadb().url(), "nowhere");
    for handler in ["mariadb/always", "mariadb/single"] {
        assert_refused(handler, &url, "NoSuchDatabase", &["nowhere"]).await;
    }
}

#[tokio::test]
async fn unknown_host() {
    for (handler, scheme) in [
        ("postgres/always", "postgres"),
        ("postgres/single", "postgres"),
        ("mariadb/always", "mysql"),
        ("mariadb/single", "mysql"),
    ] {
        let url = format!("{scheme}://app:hunter2@no-such-host.invalid/shop");
        let error = "ServerUnreachable";
        assert_refused_in_the_end(handler, &url, error, &["acquire: "]).await;
    }
}

#[tokio::test]
async fn server_at_connection_limit() {
    support::measures_time();
    // Three of PostgreSQL's connections are reserved for superusers.
    let full = Postgres::builder().setting("max_connections", "4").start();
    let database = full.fresh_database().await;
    let held = sqlx::postgres::PgPoolOptions::new()
        .max_connections(1)
        .connect(database.url())
        .await
        .expect("the only free connection");
    // Each handler retries until `acquire_ms`, and its error then says what it tried.
    for handler in ["postgres/always", "postgres/boxed"] {
        assert_refused_in_the_end(handler, database.url(), "TooManyConnections", &["max"]).await;
    }
    let words = ["max", "refused", "times within"];
    assert_refused_in_the_end(
        "postgres/single",
        database.url(),
        "TooManyConnections",
        &words,
    )
    .await;
    held.close().await;
}

#[tokio::test]
async fn silent_server() {
    let listener = silent_listener();
    let port = listener.port();
    let refused = [
        ("postgres/always", "postgres"),
        ("postgres/single", "postgres"),
        ("mariadb/always", "mysql"),
        ("mariadb/single", "mysql"),
    ]
    .map(async |(handler, scheme)| {
        let url = format!("{scheme}://app:hunter2@127.0.0.1:{port}/shop");
        let words = ["connecting to", "timed out after 2000 ms"];
        assert_refused_in_the_end(handler, &url, "ConnectTimeout", &words).await;
    });
    // Concurrently, because they only wait.
    join_all(refused).await;
}

#[tokio::test]
async fn pool_exhausted() {
    let database = postgres().fresh_database().await;
    for handler in ["postgres/always", "postgres/boxed"] {
        let called = called(handler, database.url(), &[json!({"do": "one_too_many"})]).await;
        let (error_type, message) = called.error();
        assert_eq!(error_type, "PoolExhausted");
        assert!(
            message.contains("no connection became free within 2000 ms (2 of 2 in use)"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn invalid_url_is_explained() {
    support::measures_time();
    for (url, error_type, word) in [
        (
            "postgres://app:hunter2@127.0.0.1:port/shop",
            "InvalidUrl",
            "port",
        ),
        ("hunter2", "InvalidUrl", "no scheme"),
        (
            "postgres://app:1/hunter2@127.0.0.1/shop",
            "InvalidUrl",
            "percent-encode",
        ),
        ("hunter2:app@host", "UnknownScheme", "postgres://"),
        ("mysql://app:hunter2@host/shop", "WrongScheme", "PostgreSQL"),
    ] {
        for handler in ["postgres/always", "postgres/single"] {
            assert_refused(handler, url, error_type, &["DATABASE_URL", word]).await;
        }
    }
}

#[tokio::test]
async fn missing_url_fails_init() {
    let events = [json!({"do": "session"})];
    for (handler, missing) in [
        ("postgres/always", "DATABASE_URL"),
        ("postgres/single", "DATABASE_URL"),
        ("postgres/both", "REPLICA_URL"),
    ] {
        let mut function = local(Path::new(FUNCTION))
            .env("FUNCTION", "database")
            .env("HANDLER", handler);
        if handler == "postgres/both" {
            function = function.env("DATABASE_URL", postgres().url());
        }
        let called = call(function, &events).await;
        assert_eq!(called.code, Some(1));
        assert!(called.answers.is_empty(), "{called:?}");
        let expected = format!("init: the environment variable {missing} is not set");
        assert!(called.log.contains(&expected), "{}", called.log);
    }
    let called = called("postgres/always", " ", &events).await;
    assert!(called.answers.is_empty(), "{called:?}");
    assert!(
        called.log.contains("DATABASE_URL is empty"),
        "{}",
        called.log
    );
}

fn with_database(url: &str, database: &str) -> String {
    let (url, query) = url.split_once('?').unwrap_or((url, ""));
    let (server, _) = url.rsplit_once('/').expect("a path");
    format!("{server}/{database}?{query}")
}
