//! `close = "pressure"`: connections are reused while the server has free ones, and closed when it is nearly full.

use crate::FUNCTION;
use db_handler::config::PRESSURE_INTERVAL;
use futures_util::future::join_all;
use sandbox::{Environment, Function, Sandbox};
use serde_json::{Value, json};
use std::{collections::HashSet, fs, time::Duration};
use support::{Database, DatabaseServer, MariaDb, Postgres, postgres, wait_for};

async fn start(handler: &str, database: &Database, environments: usize) -> Vec<Environment> {
    let sandbox = Sandbox::new(
        Function::new(FUNCTION)
            .env("FUNCTION", "pressure")
            .env("HANDLER", handler),
    )
    .timeout(Duration::from_secs(20))
    .database("DATABASE_URL", database.url())
    .expect("a URL with a host");
    let starting = (0..environments).map(|_| sandbox.start());
    join_all(starting)
        .await
        .into_iter()
        .map(|one| one.expect("the function starts"))
        .collect()
}

/// Sends one event to each environment concurrently, and returns their sessions.
async fn round(environments: &[Environment]) -> Vec<Value> {
    let round = environments.iter().map(|one| one.invoke(json!(null)));
    let sessions = join_all(round).await.into_iter().map(|invocation| {
        let answer = invocation.json();
        answer.unwrap_or_else(|| panic!("lost: {:?}", invocation.outcome))
    });
    sessions.collect()
}

/// Waits until the environment is frozen.
async fn frozen(environment: &Environment) {
    let look = async || environment.frozen_for().await;
    wait_for("a frozen environment", look, Option::is_some).await;
}

/// Starts more environments than the server has connections; half of these may be used.
async fn the_share_is_respected(
    handler: &str,
    server: &DatabaseServer,
    database: &Database,
    room: usize,
) {
    let share = room / 2;
    let environments = start(handler, database, room + room / 5).await;
    for number in 1..=4 {
        round(&environments).await;
        join_all(environments.iter().map(frozen)).await;
        let kept = server.connections().await;
        println!("{handler}: round {number}: {kept} kept of {room}, of which {share} may be");
        // 5 % of the limit.
        assert!(kept <= share + room / 20, "{handler}: {kept} kept");
    }
    // Their cached load of the server expires.
    let pauses = environments
        .iter()
        .map(|one| one.stands_still_for(PRESSURE_INTERVAL * 2));
    assert!(join_all(pauses).await.into_iter().all(|still| still));
    // One after the other: each connection that fits the share is reused.
    for one in &environments {
        round(std::slice::from_ref(one)).await;
        frozen(one).await;
    }
    let kept = server.connections().await;
    println!("{handler}: one after the other: {kept} kept");
    assert!(kept <= share + room / 20, "{handler}: {kept} kept");
    assert!(kept + 2 >= share, "{handler}: {kept} kept");
    join_all(environments.iter().map(Environment::shutdown)).await;
    server.wait_until_connections(0).await;
}

/// While the server has free connections, none is closed.
async fn with_room_it_is_kept(handler: &str, database: &Database) {
    let environments = start(handler, database, 2).await;
    for one in &environments {
        let mut sessions = HashSet::new();
        for _ in 0..20 {
            sessions.extend(
                round(std::slice::from_ref(one))
                    .await
                    .iter()
                    .map(Value::to_string),
            );
        }
        assert_eq!(sessions.len(), 1, "{handler}: {sessions:?}");
    }
    database.wait_until_connections(2).await;
    join_all(environments.iter().map(Environment::shutdown)).await;
    database.wait_until_connections(0).await;
}

#[tokio::test]
async fn postgres_connections_stay_within_share() {
    const ROOM: usize = 40;
    support::alone();
    let server = Postgres::builder()
        .setting("max_connections", (ROOM + 3).to_string())
        .start();
    let database = server.fresh_database().await;
    for handler in ["postgres", "handle", "pooled"] {
        with_room_it_is_kept(handler, &database).await;
    }
    the_share_is_respected("postgres", &server, &database, ROOM).await;
}

#[tokio::test]
async fn mariadb_connections_stay_within_share() {
    const ROOM: usize = 20;
    support::alone();
    let server = MariaDb::builder()
        .setting("max-connections", ROOM.to_string())
        .start();
    let database = server.fresh_database().await;
    with_room_it_is_kept("mariadb", &database).await;
    the_share_is_respected("mariadb", &server, &database, ROOM).await;
}

/// The limit in `budget` differs from the server's `max_connections`.
#[tokio::test]
async fn outdated_budget_is_logged_once() {
    support::measures_time();
    let database = postgres().fresh_database().await;
    let folder = tempfile::tempdir().expect("a folder");
    for handler in ["crowded_single", "crowded_pool", "crowded_handle"] {
        let log = folder.path().join(handler);
        let function = Function::new(FUNCTION)
            .env("FUNCTION", "pressure")
            .env("HANDLER", handler)
            .env("LOG", &log);
        let environment = Sandbox::new(function)
            .database("DATABASE_URL", database.url())
            .expect("a URL with a host")
            .start()
            .await
            .expect("the function starts");
        for _ in 0..3 {
            round(std::slice::from_ref(&environment)).await;
            frozen(&environment).await;
        }
        environment.shutdown().await;
        database.wait_until_connections(0).await;
        let log = fs::read_to_string(log).expect("the log");
        let lines: Vec<&str> = log.lines().collect();
        let [line] = lines.as_slice() else {
            panic!("{handler}: {log}");
        };
        for word in ["instances=1000", "max=2", "wanted=2000", "room=", handler] {
            assert!(line.contains(word), "{word}: {line}");
        }
    }
}
