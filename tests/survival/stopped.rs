//! What still runs on the server when its invocation is over is stopped there.

use crate::world::{KINDS, PRODUCTS, Product, REFUSED, Running, SLACK, World};
use db_handler::config::RESERVE;
use sandbox::{Outcome, PhaseKind};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const UPDATE: &str = "UPDATE orders SET touched = touched + 1 WHERE id = 1";

/// A world with a row to lock.
async fn world(product: Product) -> World {
    let world = World::new(product).await;
    world
        .prepare("CREATE TABLE orders (id INT PRIMARY KEY, touched INT); INSERT INTO orders VALUES (1, 0)")
        .await;
    world
}

/// A row is locked, and an endless query keeps it so.
fn hold(product: Product) -> Value {
    let sql = format!("{UPDATE}; {}", product.endless());
    json!({ "transaction": { "sql": sql, "end": "commit" } })
}

/// Somebody else can write the row, at once.
async fn row_is_free(world: &World, place: &str) {
    world.nothing_runs(place).await;
    let other = world.start("single", "always").await;
    let begun = Instant::now();
    let written = other.invoke(json!([{ "run": UPDATE }])).await;
    assert!(written.is_answered(), "{place}: {}", written.outcome);
    let took = begun.elapsed();
    assert!(
        took < Duration::from_millis(500) + SLACK,
        "{place}: {took:?}"
    );
    other.end().await;
}

async fn started(world: &World, kind: &str, close: &str) -> Running {
    let sandbox = world.sandbox(kind, close);
    Running::of(sandbox.timeout(Duration::from_millis(1_200))).await
}

#[tokio::test]
async fn at_the_deadline() {
    for product in PRODUCTS {
        let world = world(product).await;
        for kind in KINDS {
            for close in ["always", "never"] {
                let place = format!("{product:?}/{kind}/{close}");
                let running = started(&world, kind, close).await;
                let invocation = running.invoke(json!([hold(product)])).await;
                match &invocation.outcome {
                    Outcome::Failed { error_type, .. } => {
                        assert_eq!(error_type, "DeadlineExceeded", "{place}");
                    }
                    other => panic!("{place}: {other}"),
                }
                row_is_free(&world, &place).await;
                // The process has not been killed: this is no cold start.
                let next = running.invoke(json!([{ "run": UPDATE }])).await;
                assert!(
                    next.is_answered() && !next.cold,
                    "{place}: {}",
                    next.outcome
                );
                running.end().await;
            }
        }
    }
}

#[tokio::test]
async fn after_an_error_with_a_twin() {
    for product in PRODUCTS {
        let world = world(product).await;
        for kind in ["db", "pool"] {
            for close in ["always", "on_error", "never"] {
                let place = format!("{product:?}/{kind}/{close}");
                let running = world.start(kind, close).await;
                let twins = [product.endless(), REFUSED];
                let invocation = running.invoke(json!([{ "together": twins }])).await;
                assert!(
                    matches!(&invocation.outcome, Outcome::Failed { error_type, .. } if error_type == "QueryFailed"),
                    "{place}: {}",
                    invocation.outcome
                );
                world.nothing_runs(&place).await;
                let after = invocation.spent(PhaseKind::After);
                assert!(after < RESERVE + SLACK, "{place}: {after:?}");
                running.succeed(json!([{ "run": UPDATE }])).await;
                running.end().await;
            }
        }
    }
}

#[tokio::test]
async fn after_the_callers_own_timeout() {
    for product in PRODUCTS {
        let world = world(product).await;
        for kind in KINDS {
            for close in ["always", "never"] {
                let place = format!("{product:?}/{kind}/{close}");
                let running = world.start(kind, close).await;
                let dropped = json!({ "dropped": { "steps": [hold(product)], "ms": 300 } });
                let invocation = running.invoke(json!([dropped])).await;
                assert!(invocation.is_answered(), "{place}: {}", invocation.outcome);
                let after = invocation.spent(PhaseKind::After);
                assert!(after < RESERVE + SLACK, "{place}: {after:?}");
                row_is_free(&world, &place).await;
                running.succeed(json!([{ "run": UPDATE }])).await;
                running.end().await;
            }
        }
    }
}

#[tokio::test]
async fn after_a_panic() {
    for product in PRODUCTS {
        let world = world(product).await;
        for kind in KINDS {
            for close in ["always", "never"] {
                let place = format!("{product:?}/{kind}/{close}");
                let running = world.start(kind, close).await;
                let give_up = json!({ "give_up": { "sql": product.endless(), "ms": 50 } });
                let begin = json!({ "run": format!("BEGIN; {UPDATE}") });
                let invocation = running.invoke(json!([begin, give_up, "panic"])).await;
                assert!(
                    matches!(&invocation.outcome, Outcome::Failed { .. }),
                    "{place}: {}",
                    invocation.outcome
                );
                row_is_free(&world, &place).await;
                let next = running.invoke(json!([{ "run": UPDATE }])).await;
                assert!(
                    next.is_answered() && !next.cold,
                    "{place}: {}",
                    next.outcome
                );
                running.end().await;
            }
        }
    }
}
