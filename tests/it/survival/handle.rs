//! Operations on a `&Db<..>`, and the lifecycle of its connections.

use crate::world::{DROPPED, PRODUCTS, Product, REFUSED, Running, SERVERS, World};
use futures_util::future::try_join_all;
use sandbox::Fault;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use std::{collections::HashSet, time::Duration};
use support::Postgres;

fn distinct(sessions: &[Value]) -> usize {
    let sessions: HashSet<String> = sessions.iter().map(Value::to_string).collect();
    sessions.len()
}

#[tokio::test]
async fn sequential_queries_share_one_connection() {
    for product in SERVERS {
        let world = World::new(product).await;
        for kind in ["db", "single"] {
            let running = world.start(kind, "never").await;
            let ask = json!({ "ask": product.session() });
            let sessions = running.succeed(json!(vec![ask; 8])).await;
            assert_eq!(distinct(&sessions), 1, "{product:?}/{kind}");
            assert_eq!(running.opened(), 1, "{product:?}/{kind}");
            running.end().await;
        }
    }
}

#[tokio::test]
async fn concurrent_queries_use_up_to_max_connections() {
    for product in SERVERS {
        let world = World::new(product).await;
        for kind in ["db", "pool"] {
            let running = world.start(kind, "never").await;
            let guards = json!([{ "guards": { "count": 2, "sql": product.session() } }]);
            let sessions = running.succeed(guards).await;
            let sessions = sessions[0].as_array().expect("two");
            assert_eq!(distinct(sessions), 2, "{product:?}/{kind}");
            // More than `max` queries wait for each other.
            let together = json!([{ "together": vec![product.session(); 7] }]);
            let sessions = running.succeed(together).await;
            assert_eq!(sessions[0].as_array().map(Vec::len), Some(7));
            assert_eq!(running.opened(), 2, "{product:?}/{kind}");
            running.end().await;
        }
    }
}

#[tokio::test]
async fn exhausted_pool_error_contains_numbers() {
    for product in PRODUCTS {
        let world = World::new(product).await;
        for kind in ["db", "pool"] {
            for close in ["always", "never"] {
                let running = world.start(kind, close).await;
                let guards = json!([{ "guards": { "count": 3, "sql": product.session() } }]);
                let (error_type, text) = running.fail(guards).await;
                let place = format!("{product:?}/{kind}/{close}: {text}");
                assert_eq!(error_type, "PoolExhausted", "{place}");
                assert!(text.contains("within 1500 ms (2 of 2 in use)"), "{place}");
                assert!(text.contains(&format!("{kind}::{close}")), "{place}");
                running.ask(product.session()).await;
                running.end().await;
            }
        }
    }
}

/// A function whose deadline is earlier than `acquire_ms`.
async fn impatient(world: &World, kind: &str) -> Running {
    let sandbox = world.sandbox(kind, "never");
    Running::of(sandbox.timeout(Duration::from_secs(1))).await
}

#[tokio::test]
async fn deadline_error_reports_exhausted_pool() {
    support::measures_time();
    for product in PRODUCTS {
        let world = World::new(product).await;
        for kind in ["db", "pool"] {
            let running = impatient(&world, kind).await;
            let guards = json!([{ "guards": { "count": 3, "sql": product.session() } }]);
            let (error_type, text) = running.fail(guards).await;
            let place = format!("{product:?}/{kind}: {text}");
            assert_eq!(error_type, "DeadlineExceeded", "{place}");
            let cause =
                "; it was waiting: no connection became free within 1500 ms (2 of 2 in use)";
            assert!(text.contains(cause), "{place}");
            assert!(text.contains(" 2 open, 2 in use)"), "{place}");
            running.end().await;
        }
    }
}

#[tokio::test]
async fn deadline_error_reports_pending_connect() {
    for product in SERVERS {
        let world = World::new(product).await;
        for kind in ["db", "pool"] {
            let running = impatient(&world, kind).await;
            running.0.apply(Fault::Silence);
            let ask = json!([{ "ask": product.session() }]);
            let (error_type, text) = running.fail(ask).await;
            let place = format!("{product:?}/{kind}: {text}");
            assert_eq!(error_type, "DeadlineExceeded", "{place}");
            assert!(text.contains("; it was waiting: connecting to "), "{place}");
            assert!(text.contains("timed out after 1500 ms"), "{place}");
            running.end().await;
        }
    }
}

#[tokio::test]
async fn deadline_error_reports_full_server() {
    const ROOM: usize = 5;
    support::measures_time();
    // Three of PostgreSQL's connections are reserved for superusers.
    let server = Postgres::builder()
        .setting("max_connections", (ROOM + 3).to_string())
        .start();
    let database = server.fresh_database().await;
    let holding = (0..ROOM).map(|_| PgConnection::connect(database.url()));
    let held = try_join_all(holding).await.expect("room");
    let world = World::of(Product::Postgres, Some(database));
    let running = impatient(&world, "db").await;
    let ask = json!([{ "ask": Product::Postgres.session() }]);
    let (error_type, text) = running.fail(ask).await;
    assert_eq!(error_type, "DeadlineExceeded", "{text}");
    assert!(text.contains("; it was waiting: PostgreSQL at "), "{text}");
    assert!(text.contains("; refused "), "{text}");
    drop(held);
    running.end().await;
}

#[tokio::test]
async fn deadline_error_omits_dropped_wait() {
    for product in SERVERS {
        let world = World::new(product).await;
        let running = impatient(&world, "db").await;
        running.0.apply(Fault::Silence);
        let give_up = json!({ "give_up": { "sql": product.session(), "ms": 50 } });
        let (error_type, text) = running.fail(json!([give_up, { "linger": 5_000 }])).await;
        let place = format!("{product:?}: {text}");
        assert_eq!(error_type, "DeadlineExceeded", "{place}");
        assert!(!text.contains("it was waiting"), "{place}");
        running.end().await;
    }
}

#[tokio::test]
async fn dropped_query_is_discarded_and_cancelled() {
    support::measures_time();
    for product in PRODUCTS {
        let world = World::new(product).await;
        for kind in ["db", "pool", "single"] {
            for close in ["always", "never"] {
                for step in [
                    json!({ "give_up": { "sql": product.endless(), "ms": 60 } }),
                    json!({ "first_row": product.rows() }),
                ] {
                    let place = format!("{product:?}/{kind}/{close} {step}");
                    let running = world.start(kind, close).await;
                    let session = json!({ "ask": product.session() });
                    let answers = running.succeed(json!([session, step])).await;
                    assert!(answers[1] == DROPPED || answers[1] == true, "{place}");
                    world.nothing_runs(&place).await;
                    let after = running.ask(product.session()).await;
                    if product != Product::Sqlite {
                        assert_ne!(answers[0], after, "{place}");
                    }
                    running.end().await;
                }
            }
        }
    }
}

/// A connection that was released during a statement is drained when it is next acquired.
#[tokio::test]
async fn dropping_the_wait_for_a_drain_cancels_the_query() {
    support::measures_time();
    for product in PRODUCTS {
        let world = World::new(product).await;
        for close in ["always", "never"] {
            let place = format!("{product:?}/{close}");
            let running = world.start("db", close).await;
            let guard = json!({ "guard_gives_up": { "sql": product.endless(), "ms": 60 } });
            let next = json!({ "give_up": { "sql": product.session(), "ms": 20 } });
            let answers = running.succeed(json!([guard, next])).await;
            assert_eq!(answers, [DROPPED, DROPPED], "{place}");
            world.nothing_runs(&place).await;
            running.ask(product.session()).await;
            running.end().await;
        }
    }
}

#[tokio::test]
async fn connection_of_dropped_query_is_replaced_within_invocation() {
    support::measures_time();
    for product in PRODUCTS {
        let world = World::new(product).await;
        let running = world.start("db", "never").await;
        let give_up = json!({ "give_up": { "sql": product.endless(), "ms": 60 } });
        let session = json!({ "ask": product.session() });
        let steps = json!([session, give_up, session, session]);
        let answers = running.succeed(steps).await;
        assert_eq!(answers[2], answers[3], "{product:?}");
        if product != Product::Sqlite {
            assert_ne!(answers[0], answers[2], "{product:?}");
        }
        world.nothing_runs(product.name()).await;
        running.end().await;
    }
}

#[tokio::test]
async fn transactions_commit_or_roll_back_as_requested() {
    for product in PRODUCTS {
        let world = World::new(product).await;
        world.prepare("CREATE TABLE orders (id INT)").await;
        let mut expected = 0;
        for kind in ["db", "pool", "single"] {
            for close in ["always", "never"] {
                let running = world.start(kind, close).await;
                let mut ends = vec![("commit", 1), ("rollback", 0), ("drop", 0)];
                if kind != "single" {
                    ends.extend([("nested", 1), ("fail", 0)]);
                }
                // In SQLite a leaked transaction holds its lock in this process for ever.
                if product != Product::Sqlite || kind == "single" {
                    ends.push(("forget", 0));
                }
                for (end, more) in ends {
                    let place = format!("{product:?}/{kind}/{close}/{end}");
                    let insert = "INSERT INTO orders VALUES (1)";
                    let steps = json!([{ "transaction": { "sql": insert, "end": end } }]);
                    let invocation = running.invoke(steps).await;
                    assert_eq!(invocation.is_answered(), end != "fail", "{place}");
                    expected += more;
                    let count = "SELECT CAST(count(*) AS CHAR(9)) FROM orders";
                    let counted = running.ask(count).await;
                    let counted = counted.as_str().map(str::trim);
                    assert_eq!(counted, Some(&*expected.to_string()), "{place}");
                }
                running.end().await;
            }
        }
    }
}

#[tokio::test]
async fn every_query_method_returns_rows() {
    for product in PRODUCTS {
        let world = World::new(product).await;
        // Several statements in one text, as in a migration.
        let migration = "CREATE TABLE orders (id BIGINT NOT NULL, item VARCHAR(20) NOT NULL); \
                         INSERT INTO orders VALUES (1, 'tea'); INSERT INTO orders VALUES (2, 'cups')";
        world.prepare(migration).await;
        for kind in ["db", "pool"] {
            let running = world.start(kind, "never").await;
            let select = "SELECT id, item FROM orders ORDER BY id";
            let answers = running
                .succeed(
                    json!([{ "rows": select }, { "pairs": select }, { "rows": product.rows() }]),
                )
                .await;
            let pairs = json!([[1, "tea"], [2, "cups"]]);
            assert_eq!(answers, [json!(2), pairs, json!(200_000)], "{product:?}");
            running.end().await;
        }
    }
}

#[tokio::test]
async fn connection_is_reused_after_query_error() {
    for product in PRODUCTS {
        let world = World::new(product).await;
        for kind in ["db", "pool", "single"] {
            let running = world.start(kind, "never").await;
            let before = running.ask(product.session()).await;
            let (error_type, _) = running.fail(json!([{ "ask": REFUSED }])).await;
            assert_eq!(error_type, "Query", "{product:?}/{kind}");
            let after = running.ask(product.session()).await;
            assert_eq!(before, after, "{product:?}/{kind}");
            running.end().await;
        }
    }
}

#[tokio::test]
async fn leaked_clone_is_rejected_and_logged_and_delays_nothing() {
    support::measures_time();
    for product in PRODUCTS {
        for kind in ["db", "pool"] {
            for close in ["always", "never"] {
                let world = World::new(product).await;
                world.prepare("CREATE TABLE orders (id INT)").await;
                // The leaked task continues after the response: the environment is not frozen.
                let sandbox = world.sandbox(kind, close).freeze_between(false);
                let running = Running::of(sandbox).await;
                let place = format!("{product:?}/{kind}/{close}");
                let insert = "INSERT INTO orders VALUES (1)";
                let escape = json!({ "escape": { "sql": insert, "ms": 150 } });
                let session = json!({ "ask": product.session() });
                let invocation = running.invoke(json!([session, escape])).await;
                assert!(invocation.is_answered(), "{place}: {}", invocation.outcome);
                let after = invocation.spent(sandbox::PhaseKind::After);
                assert!(
                    after < db_handler::config::RESERVE + crate::world::SLACK,
                    "{place}: {after:?}"
                );
                world.wait_for_log("the clone: ").await;
                if close == "never" && kind == "db" {
                    let log = world.log();
                    let escaped =
                        |line: &&str| line.contains("ERROR") && line.contains("moved into a task");
                    let line = log
                        .lines()
                        .find(escaped)
                        .unwrap_or_else(|| panic!("{place}: {log}"));
                    assert!(
                        line.contains(&format!("{kind}::{close}")),
                        "{place}: {line}"
                    );
                    assert!(
                        log.contains(r#"escaped="UsedAfterInvocation""#),
                        "{place}: {log}"
                    );
                }
                let count = "SELECT CAST(count(*) AS CHAR(9)) FROM orders";
                let counted = running.ask(count).await;
                assert_eq!(counted.as_str().map(str::trim), Some("0"), "{place}");
                if close == "always" && product != Product::Sqlite {
                    world.server().wait_until_connections(0).await;
                }
                running.end().await;
            }
        }
    }
}

#[tokio::test]
async fn leaked_clone_with_running_query_delays_nothing() {
    support::measures_time();
    for product in PRODUCTS {
        for kind in ["db", "pool"] {
            for close in ["always", "never"] {
                let world = World::new(product).await;
                let running = world.start(kind, close).await;
                let place = format!("{product:?}/{kind}/{close}");
                let escape = json!({ "escape": { "sql": product.endless(), "ms": 0 } });
                let invocation = running.invoke(json!([escape, { "linger": 100 }])).await;
                assert!(invocation.is_answered(), "{place}: {}", invocation.outcome);
                let after = invocation.spent(sandbox::PhaseKind::After);
                assert!(
                    after < db_handler::config::RESERVE + crate::world::SLACK,
                    "{place}: {after:?}"
                );
                world.nothing_runs(&place).await;
                running.ask(product.session()).await;
                let log = world.log();
                let told = |line: &str| {
                    line.contains("WARN")
                        && line.contains("a task that it spawned")
                        && line.contains(&format!("{kind}::{close}"))
                };
                assert!(log.lines().any(told), "{place}: {log}");
                running.end().await;
            }
        }
    }
}
