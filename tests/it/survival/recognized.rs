//! A connection that the handler used directly is reused only after a reply on it has been recognized, so that a
//! dropped operation never makes a query return another query's row.

use crate::world::{Product, Running, World};
use serde_json::json;

/// Operations that can leave sqlx out of sync with PostgreSQL.
const POSTGRES: &[&str] = &[
    "copy_in",
    "copy_in_and_go_on",
    "copy_in_begun",
    "copy_in_refused",
    "copy_out",
    "copy_out_large",
    "copy_out_endless",
    "copy_out_refused",
    "copy_out_begun",
    "copy_as_a_query",
    "cursor",
    "statements",
    "prepare",
];
const MARIADB: &[&str] = &["statements", "prepare"];
const SQLITE: &[&str] = &["statements"];

fn deeds(product: Product) -> &'static [&'static str] {
    match product {
        Product::Postgres => POSTGRES,
        Product::MariaDb => MARIADB,
        Product::Sqlite => SQLITE,
    }
}

/// Results of statements that sqlx has already prepared: only their order tells their rows apart.
const WORDS: [&str; 6] = ["one", "two", "three", "four", "five", "six"];

fn questions() -> Vec<serde_json::Value> {
    let ask = |word: &&str| json!({ "ask": format!("SELECT '{word}'") });
    WORDS.iter().map(ask).collect()
}

/// Asserts that every query gets its own row.
async fn rows_are_right(running: &Running, place: &str) {
    let questions = json!(questions());
    let answers = running.succeed(questions).await;
    assert_eq!(answers, WORDS.map(|word| json!(word)), "{place}");
}

/// Asserts that dropped operations are cancelled, unless the function logged that there was too little time.
async fn nothing_runs(world: &World, place: &str) {
    if !world.log().contains("could not be cancelled") {
        world.nothing_runs(place).await;
    }
}

async fn every_deed(product: Product, kind: &str, goes_on: bool) {
    let world = World::new(product).await;
    world.prepare("CREATE TABLE orders (id INT)").await;
    for deed in deeds(product) {
        let place = format!("{product:?}/{kind}: {deed}");
        let running = world.start(kind, "never").await;
        rows_are_right(&running, &place).await;
        let mut steps = vec![json!({ "hand": deed })];
        if goes_on {
            steps.extend(questions());
        }
        let answers = running.succeed(json!(steps)).await;
        if goes_on {
            assert_eq!(answers[1..], WORDS.map(|word| json!(word)), "{place}");
        }
        nothing_runs(&world, &place).await;
        rows_are_right(&running, &place).await;
        rows_are_right(&running, &place).await;
        running.end().await;
    }
}

#[tokio::test]
async fn handle_returns_no_row_of_an_earlier_query() {
    support::measures_time();
    for product in crate::world::PRODUCTS {
        every_deed(product, "db", true).await;
    }
}

#[tokio::test]
async fn pool_returns_no_row_of_an_earlier_query() {
    support::measures_time();
    for product in crate::world::PRODUCTS {
        every_deed(product, "pool", true).await;
    }
}

#[tokio::test]
async fn single_connection_returns_no_row_of_an_earlier_invocation() {
    support::measures_time();
    for product in crate::world::PRODUCTS {
        // Within the invocation the handler uses sqlx's connection directly.
        every_deed(product, "single", false).await;
    }
}

#[tokio::test]
async fn transaction_is_replaced_after_dropped_copy() {
    support::measures_time();
    let world = World::new(Product::Postgres).await;
    world.prepare("CREATE TABLE orders (id INT)").await;
    for deed in POSTGRES {
        let place = format!("transaction: {deed}");
        let running = world.start("transaction", "never").await;
        rows_are_right(&running, &place).await;
        // The commit may fail, depending on the operation, but the next transaction never does.
        let insert = json!({ "run": "INSERT INTO orders VALUES (1)" });
        let _ = running.invoke(json!([insert, { "hand": deed }])).await;
        nothing_runs(&world, &place).await;
        rows_are_right(&running, &place).await;
        rows_are_right(&running, &place).await;
        running.end().await;
    }
}

/// In MySQL sqlx stops reading after the requested row. The rest is not taken for a reply to the next query, and the
/// query is cancelled at the end of the invocation.
#[tokio::test]
async fn rest_after_first_row_is_not_a_later_reply() {
    support::measures_time();
    for product in crate::world::SERVERS {
        let world = World::new(product).await;
        let endless = format!("SELECT 1; {}", product.endless());
        for kind in ["db", "pool"] {
            let place = format!("{product:?}/{kind}");
            let running = world.start(kind, "never").await;
            if product == Product::MariaDb {
                let mut steps = vec![json!({ "first_of": "SELECT 1; SELECT no_such_column" })];
                steps.extend(questions());
                let answers = running.succeed(json!(steps)).await;
                assert_eq!(answers[1..], WORDS.map(|word| json!(word)), "{place}");
                for close in ["always", "never"] {
                    let running = world.start(kind, close).await;
                    running.succeed(json!([{ "first_of": endless }])).await;
                    world.nothing_runs(&place).await;
                    running.end().await;
                }
            }
            rows_are_right(&running, &place).await;
            let many = json!({ "first_of": "SELECT 1; SELECT 2; SELECT 3" });
            running.succeed(json!([many, many])).await;
            rows_are_right(&running, &place).await;
            running.end().await;
        }
    }
}

/// The reset waits for the `COPY` in vain, but leaves time to cancel it.
#[tokio::test]
async fn copy_on_reused_connection_is_cancelled_in_time() {
    support::measures_time();
    let world = World::new(Product::Postgres).await;
    let running = world.start("single", "never").await;
    running
        .succeed(json!([{ "hand": "copy_out_endless" }]))
        .await;
    world.nothing_runs("single").await;
    let log = world.log();
    assert!(!log.contains("could not be cancelled"), "{log}");
    running.end().await;
}

/// The client cannot tell that a `COPY` still runs, so a connection that will be closed is checked as well.
#[tokio::test]
async fn copy_is_cancelled_before_connection_is_closed() {
    support::measures_time();
    let world = World::new(Product::Postgres).await;
    world.prepare("CREATE TABLE orders (id INT)").await;
    for kind in ["pool", "db", "single"] {
        let running = world.start(kind, "patient_always").await;
        for deed in [
            "copy_out_silent",
            "copy_out_endless",
            "copy_out_large",
            "copy_in",
        ] {
            for (ending, steps) in [
                ("success", json!([{ "hand": deed }])),
                ("failure", json!([{ "hand": deed }, "fail"])),
                ("panic", json!([{ "hand": deed }, "panic"])),
            ] {
                let place = format!("{kind}: {deed}, {ending}");
                // The connection may or may not be released before the pool closes.
                let tries = if ending == "failure" { 6 } else { 1 };
                for _ in 0..tries {
                    running.invoke(steps.clone()).await;
                    world.nothing_runs(&place).await;
                }
                let log = world.log();
                assert!(!log.contains("could not be cancelled"), "{place}: {log}");
                world.server().wait_until_connections(0).await;
            }
        }
        running.end().await;
    }
}

/// An ordinary guard does not cost a connection.
#[tokio::test]
async fn guard_is_reused_after_completed_statements() {
    support::measures_time();
    for product in crate::world::SERVERS {
        let world = World::new(product).await;
        for kind in ["db", "pool"] {
            let place = format!("{product:?}/{kind}");
            let running = world.start(kind, "never").await;
            let guard = json!({ "guards": { "count": 1, "sql": product.session() } });
            for _ in 0..3 {
                running.succeed(json!([guard, guard, guard])).await;
            }
            assert!(running.opened() <= 2, "{place}: {}", running.opened());
            running.end().await;
        }
    }
}
