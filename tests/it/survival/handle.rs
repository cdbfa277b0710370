//! What a handler can do with a `&Db<..>`, and what becomes of its connections.

use crate::world::{GIVEN_UP, PRODUCTS, Product, REFUSED, Running, SERVERS, World};
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
async fn queries_in_a_row_share_one_connection() {
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
async fn queries_side_by_side_use_as_many_connections_as_there_may_be() {
    for product in SERVERS {
        let world = World::new(product).await;
        for kind in ["db", "pool"] {
            let running = world.start(kind, "never").await;
            let guards = json!([{ "guards": { "count": 2, "sql": product.session() } }]);
            let sessions = running.succeed(guards).await;
            let sessions = sessions[0].as_array().expect("two");
            assert_eq!(distinct(sessions), 2, "{product:?}/{kind}");
            // More of them wait for each other.
            let together = json!([{ "together": vec![product.session(); 7] }]);
            let sessions = running.succeed(together).await;
            assert_eq!(sessions[0].as_array().map(Vec::len), Some(7));
            assert_eq!(running.opened(), 2, "{product:?}/{kind}");
            running.end().await;
        }
    }
}

#[tokio::test]
async fn one_too_many_names_the_numbers() {
    for product in PRODUCTS {
        let world = World::new(product).await;
        for kind in ["db", "pool"] {
            for close in ["always", "never"] {
                let running = world.start(kind, close).await;
                let guards = json!([{ "guards": { "count": 3, "sql": product.session() } }]);
                let (error_type, text) = running.fail(guards).await;
                let place = format!("{product:?}/{kind}/{close}: {text}");
                assert_eq!(error_type, "AllConnectionsInUse", "{place}");
                assert!(text.contains("within 1500 ms: 2 of 2 in use"), "{place}");
                assert!(text.contains(&format!("{kind}::{close}")), "{place}");
                running.ask(product.session()).await;
                running.end().await;
            }
        }
    }
}

/// A function that is stopped at its deadline before `acquire_ms` is over.
async fn impatient(world: &World, kind: &str) -> Running {
    let sandbox = world.sandbox(kind, "never");
    Running::of(sandbox.timeout(Duration::from_secs(1))).await
}

#[tokio::test]
async fn the_deadlines_error_says_that_every_connection_is_in_use() {
    support::measures_time();
    for product in PRODUCTS {
        let world = World::new(product).await;
        for kind in ["db", "pool"] {
            let running = impatient(&world, kind).await;
            let guards = json!([{ "guards": { "count": 3, "sql": product.session() } }]);
            let (error_type, text) = running.fail(guards).await;
            let place = format!("{product:?}/{kind}: {text}");
            assert_eq!(error_type, "DeadlineExceeded", "{place}");
            let cause = "; it was waiting: no free connection within 1500 ms: 2 of 2 in use;";
            assert!(text.contains(cause), "{place}");
            assert!(text.contains(" 2 open, 2 in use)"), "{place}");
            running.end().await;
        }
    }
}

#[tokio::test]
async fn the_deadlines_error_says_that_a_connection_is_being_opened() {
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
            assert!(text.contains("took longer than 1500 ms"), "{place}");
            running.end().await;
        }
    }
}

#[tokio::test]
async fn the_deadlines_error_says_that_the_server_is_full() {
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
    assert!(text.contains("; turned away "), "{text}");
    drop(held);
    running.end().await;
}

#[tokio::test]
async fn the_deadlines_error_says_nothing_of_a_wait_that_was_given_up() {
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
async fn what_is_given_up_is_discarded_and_no_longer_runs() {
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
                    assert!(answers[1] == GIVEN_UP || answers[1] == true, "{place}");
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

/// What came back in the middle of a statement is waited for by whoever takes it next.
#[tokio::test]
async fn who_gives_up_that_wait_leaves_nothing_running_either() {
    support::measures_time();
    for product in PRODUCTS {
        let world = World::new(product).await;
        for close in ["always", "never"] {
            let place = format!("{product:?}/{close}");
            let running = world.start("db", close).await;
            let guard = json!({ "guard_gives_up": { "sql": product.endless(), "ms": 60 } });
            let next = json!({ "give_up": { "sql": product.session(), "ms": 20 } });
            let answers = running.succeed(json!([guard, next])).await;
            assert_eq!(answers, [GIVEN_UP, GIVEN_UP], "{place}");
            world.nothing_runs(&place).await;
            running.ask(product.session()).await;
            running.end().await;
        }
    }
}

#[tokio::test]
async fn in_the_same_invocation_what_was_given_up_is_replaced() {
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
async fn transactions_end_as_they_are_told() {
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
                // In SQLite it holds the lock in this very process, for ever.
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
async fn every_way_to_ask_leads_to_rows() {
    for product in PRODUCTS {
        let world = World::new(product).await;
        // As a migration has it: several statements in one text.
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
async fn an_error_in_the_middle_leaves_the_connection_usable() {
    for product in PRODUCTS {
        let world = World::new(product).await;
        for kind in ["db", "pool", "single"] {
            let running = world.start(kind, "never").await;
            let before = running.ask(product.session()).await;
            let (error_type, _) = running.fail(json!([{ "ask": REFUSED }])).await;
            assert_eq!(error_type, "QueryFailed", "{product:?}/{kind}");
            let after = running.ask(product.session()).await;
            assert_eq!(before, after, "{product:?}/{kind}");
            running.end().await;
        }
    }
}

#[tokio::test]
async fn a_clone_that_escapes_is_refused_and_named_and_holds_up_nothing() {
    support::measures_time();
    for product in PRODUCTS {
        for kind in ["db", "pool"] {
            for close in ["always", "never"] {
                let world = World::new(product).await;
                world.prepare("CREATE TABLE orders (id INT)").await;
                // It goes on after the answer: nothing stands still here.
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
                    let escaped = |line: &&str| {
                        line.contains("ERROR") && line.contains("escaped into a task")
                    };
                    let line = log
                        .lines()
                        .find(escaped)
                        .unwrap_or_else(|| panic!("{place}: {log}"));
                    assert!(
                        line.contains(&format!("{kind}::{close}")),
                        "{place}: {line}"
                    );
                    assert!(
                        log.contains(r#"escaped="EscapedFromInvocation""#),
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
async fn a_clone_that_is_in_the_middle_of_a_query_holds_up_nothing() {
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
                        && line.contains("a task that it left behind")
                        && line.contains(&format!("{kind}::{close}"))
                };
                assert!(log.lines().any(told), "{place}: {log}");
                running.end().await;
            }
        }
    }
}
