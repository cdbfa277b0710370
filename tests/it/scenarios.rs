//! The races that the Sequelize guide and the article on MongoDB and Tencent SCF describe, each with plain sqlx
//! and with an annotated handler.
//!
//! `EXTENDED=1 cargo test --all-features --test it scenarios -- --nocapture | grep '^|'` prints the table.

use crate::FUNCTION;
use futures_util::future::join_all;
use sandbox::{Environment, Fault, Function, Invocation, Outcome, Sandbox};
use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection};
use std::time::Duration;
use support::{Database, Postgres, postgres};

fn sandbox(handler: &str, database: &Database) -> Sandbox {
    Sandbox::new(
        Function::new(FUNCTION)
            .env("FUNCTION", "scenario")
            .env("HANDLER", handler),
    )
    .timeout(Duration::from_secs(6))
    .database("DATABASE_URL", database.url())
    .expect("a URL with a host")
}

async fn started(sandbox: Sandbox) -> Environment {
    sandbox.start().await.expect("the function starts")
}

/// The handlers of a scenario. The extended run includes the one in plain sqlx, which shows the race.
fn handlers<'a>(plain: &'a str, ours: &[&'a str]) -> Vec<&'a str> {
    let plain = crate::extended().then_some(plain);
    plain.into_iter().chain(ours.iter().copied()).collect()
}

fn session() -> Value {
    json!({"do": "session"})
}

fn row(race: &str, handler: &str, outcome: &str) {
    println!("| {race} | `{handler}` | {outcome} |");
}

/// A short description of the outcome for the caller.
fn seen(invocation: &Invocation) -> String {
    let waited = invocation.waited.as_millis();
    match &invocation.outcome {
        Outcome::Answered { .. } => format!("answered after {waited} ms"),
        Outcome::Failed {
            error_type,
            message,
        } => {
            let reason = if error_type.contains("::") {
                message
            } else {
                error_type
            };
            format!("**failed** after {waited} ms: {reason}")
        }
        Outcome::TimedOut => format!("**timed out** after {waited} ms"),
        other => format!("**{other:?}**"),
    }
}

/// Keeps the environment frozen for `pause`.
async fn frozen_for(environment: &Environment, pause: Duration) {
    assert!(environment.stands_still_for(pause).await, "it moves");
}

#[tokio::test]
async fn pool_timers_stop_and_connection_dies_during_freeze() {
    support::measures_time();
    let race = "the connection died silently during a freeze";
    let database = postgres().fresh_database().await;
    for handler in handlers("plain", &["always", "never"]) {
        let environment = started(sandbox(handler, &database)).await;
        assert!(
            environment.invoke(session()).await.is_answered(),
            "{handler}"
        );
        // sqlx releases a connection in a separate task. This lets the task finish before the freeze.
        let linger = json!({"do": "linger", "ms": 100});
        assert!(environment.invoke(linger).await.is_answered(), "{handler}");
        environment.apply(Fault::DarkExisting);
        frozen_for(
            &environment,
            db_handler::config::TRUST + Duration::from_millis(200),
        )
        .await;
        let after = environment.invoke(session()).await;
        row(race, handler, &seen(&after));
        if handler == "plain" {
            assert!(
                !after.is_answered(),
                "plain sqlx survives: {}",
                seen(&after)
            );
            assert!(after.waited >= Duration::from_secs(3), "{}", seen(&after));
        } else {
            assert!(after.is_answered(), "{handler}: {}", seen(&after));
            assert!(after.waited < Duration::from_secs(2), "{}", seen(&after));
        }
        environment.shutdown().await;
    }
}

#[tokio::test]
async fn query_outlives_handler_after_sibling_failed() {
    support::measures_time();
    let race = "`findAndCountAll`: a query outlives the handler";
    let database = postgres().fresh_database().await;
    for handler in handlers("plain", &["always", "never"]) {
        let environment = started(sandbox(handler, &database)).await;
        let first = environment.invoke(json!({"do": "twin_of_a_failure"})).await;
        assert!(
            matches!(first.outcome, Outcome::Failed { .. }),
            "{}",
            seen(&first)
        );
        let next = environment.invoke(json!({"do": "two_transactions"})).await;
        let left = database.running_queries().await.len();
        let left_behind = format!("{}; {left} queries left on the server", seen(&next));
        row(race, handler, &left_behind);
        if handler == "plain" {
            assert_eq!(left, 1, "plain sqlx stops its queries");
            assert!(!next.is_answered(), "plain sqlx survives: {}", seen(&next));
        } else {
            assert_eq!(left, 0, "{handler}: the twin is still running");
            assert!(next.is_answered(), "{handler}: {}", seen(&next));
        }
        environment.shutdown().await;
        database.terminate_connections().await;
        database.wait_until_connections(0).await;
    }
}

#[tokio::test]
async fn connect_timer_fires_in_next_invocation() {
    let race = "a connect timer fires in the next invocation";
    let database = postgres().fresh_database().await;
    for handler in handlers("plain_promise", &["always", "never"]) {
        let environment = sandbox(handler, &database)
            .environment()
            .await
            .expect("a place");
        environment.apply(Fault::Silence);
        environment.start().await.expect("the function starts");
        let impatient = environment
            .invoke(json!({"do": "impatient", "ms": 300}))
            .await;
        assert!(!impatient.is_answered(), "{}", seen(&impatient));
        // Longer than the acquire timeout of 3 s, which elapses while the environment is frozen.
        frozen_for(&environment, Duration::from_millis(3_200)).await;
        environment.apply(Fault::Heal);
        let next = environment.invoke(session()).await;
        row(race, handler, &seen(&next));
        if handler == "plain_promise" {
            assert!(!next.is_answered(), "plain sqlx survives: {}", seen(&next));
        } else {
            assert!(next.is_answered(), "{handler}: {}", seen(&next));
        }
        environment.shutdown().await;
    }
}

#[tokio::test]
async fn timed_out_invocation_still_holds_row_lock() {
    support::measures_time();
    let race = "a timed-out predecessor's transaction";
    let database = postgres().fresh_database().await;
    prepare(&database, "CREATE TABLE rows (id INT, touched INT)").await;
    prepare(&database, "INSERT INTO rows VALUES (1, 0)").await;
    for handler in handlers("plain", &["always", "never"]) {
        let environment =
            started(sandbox(handler, &database).timeout(Duration::from_secs(2))).await;
        let first = environment
            .invoke(json!({"do": "hold_row", "seconds": 20.0}))
            .await;
        if handler == "plain" {
            assert!(
                matches!(first.outcome, Outcome::TimedOut),
                "{}",
                seen(&first)
            );
        } else {
            // The caller gets an error, and the process survives.
            assert!(
                matches!(first.outcome, Outcome::Failed { .. }),
                "{}",
                seen(&first)
            );
        }
        let next = environment
            .invoke(json!({"do": "hold_row", "seconds": 0.0}))
            .await;
        let outcome = format!("{}, then {}", seen(&first), seen(&next));
        row(race, handler, &outcome);
        assert_eq!(
            next.is_answered(),
            handler != "plain",
            "{handler}: {outcome}"
        );
        environment.shutdown().await;
        database.terminate_connections().await;
        database.wait_until_connections(0).await;
    }
}

#[tokio::test]
async fn background_work_resumes_in_a_later_invocation() {
    support::measures_time();
    let race = "background work resumes in a later invocation";
    let database = postgres().fresh_database().await;
    prepare(&database, "CREATE TABLE inserted (at TIMESTAMPTZ)").await;
    for handler in handlers("plain", &["always", "never"]) {
        let environment = started(sandbox(handler, &database)).await;
        let later = json!({"do": "insert_later", "ms": 300});
        assert!(environment.invoke(later).await.is_answered(), "{handler}");
        frozen_for(&environment, Duration::from_millis(1_000)).await;
        let inserted = async || count(&database, "SELECT count(*) FROM inserted").await;
        assert_eq!(
            inserted().await,
            0,
            "{handler}: it ran although the function was frozen"
        );
        let next = environment.invoke(json!({"do": "linger", "ms": 500})).await;
        assert!(next.is_answered(), "{}", seen(&next));
        let resumed = inserted().await == 1;
        let outcome = match handler {
            "plain" => "**resumed** in the next invocation",
            _ => "refused, and reported: the invocation is over",
        };
        assert_eq!(resumed, handler == "plain", "{handler}");
        row(race, handler, outcome);
        environment.shutdown().await;
        prepare(&database, "DELETE FROM inserted").await;
    }
}

#[tokio::test]
async fn concurrent_callers_connect_concurrently() {
    let race = "two callers connect at once";
    let database = postgres().fresh_database().await;
    for handler in handlers("plain_look_first", &["one"]) {
        let environment = started(sandbox(handler, &database).concurrency(2)).await;
        let (one, other) =
            tokio::join!(environment.invoke(session()), environment.invoke(session()));
        assert!(
            one.is_answered() && other.is_answered(),
            "{}, {}",
            seen(&one),
            seen(&other)
        );
        // The connections of these two invocations; a busy machine may have opened more.
        let used = if one.json() == other.json() { 1 } else { 2 };
        row(
            race,
            handler,
            &format!("{used} connections for a pool of 1"),
        );
        if handler == "one" {
            assert_eq!(used, 1, "{handler}");
        } else {
            assert_eq!(used, 2, "plain sqlx survives");
        }
        environment.shutdown().await;
    }
}

#[tokio::test]
async fn burst_reaches_connection_limit() {
    const ENVIRONMENTS: usize = 12;
    support::alone();
    let race = "12 environments, room for 5 connections, frozen in between";
    // Three of PostgreSQL's connections are reserved for superusers.
    let server = Postgres::builder().setting("max_connections", "8").start();
    let database = server.fresh_database().await;
    for handler in handlers("plain", &["always"]) {
        let sandbox = sandbox(handler, &database);
        let environments: Vec<Environment> =
            join_all((0..ENVIRONMENTS).map(|_| started(sandbox.clone()))).await;
        let mut lost = 0;
        for _ in 0..3 {
            let round = environments.iter().map(|one| one.invoke(session()));
            let lost_ones = join_all(round).await;
            lost += lost_ones.iter().filter(|one| !one.is_answered()).count();
        }
        let of = 3 * ENVIRONMENTS;
        row(race, handler, &format!("{lost} of {of} invocations lost"));
        assert!(handler != "plain" || lost > 0, "plain sqlx survives");
        join_all(environments.iter().map(Environment::shutdown)).await;
        database.wait_until_connections(0).await;
    }
}

#[tokio::test]
async fn environment_with_idle_connection_is_shut_down() {
    let race = "the environment is ended while a connection is kept";
    let database = postgres().fresh_database().await;
    for handler in handlers("plain", &["never"]) {
        let environment = started(sandbox(handler, &database)).await;
        assert!(
            environment.invoke(session()).await.is_answered(),
            "{handler}"
        );
        let ended = environment.shutdown().await.expect("a process");
        let how = if ended.asked && ended.in_time {
            "closes it in time"
        } else {
            "is killed"
        };
        row(race, handler, &format!("{how}, after {:?}", ended.took));
        assert_eq!(ended.asked, handler == "never", "{handler}");
        assert_eq!(ended.in_time, handler == "never", "{handler}");
        database.wait_until_connections(0).await;
    }
}

async fn prepare(database: &Database, statement: &'static str) {
    let mut connection = PgConnection::connect(database.url())
        .await
        .expect("connects");
    connection.execute(statement).await.expect("is accepted");
    connection.close().await.expect("closes");
}

async fn count(database: &Database, query: &'static str) -> i64 {
    let mut connection = PgConnection::connect(database.url())
        .await
        .expect("connects");
    let count = sqlx::query_scalar(query)
        .fetch_one(&mut connection)
        .await
        .expect("counts");
    connection.close().await.expect("closes");
    count
}
