//! A connection that somebody had in hand is used again only after a reply on it has been recognized: what is
//! dropped half-way never makes a query return the row of another one.

use crate::world::{Product, Running, World};
use serde_json::json;

/// What leaves sqlx out of step with PostgreSQL, or might.
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

/// Statements that sqlx has prepared before: their rows are told apart by nothing but their order.
const WORDS: [&str; 6] = ["one", "two", "three", "four", "five", "six"];

fn questions() -> Vec<serde_json::Value> {
    let ask = |word: &&str| json!({ "ask": format!("SELECT '{word}'") });
    WORDS.iter().map(ask).collect()
}

/// Every query gets its own row.
async fn rows_are_right(running: &Running, place: &str) {
    let questions = json!(questions());
    let answers = running.succeed(questions).await;
    assert_eq!(answers, WORDS.map(|word| json!(word)), "{place}");
}

/// What was dropped half-way is stopped, unless the function says that the time was too short for that.
async fn nothing_runs(world: &World, place: &str) {
    if !world.log().contains("could not be stopped") {
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
        // In the same invocation it is sqlx's own, and nobody stands between.
        every_deed(product, "single", false).await;
    }
}

#[tokio::test]
async fn transaction_is_replaced_after_a_dropped_copy() {
    support::measures_time();
    let world = World::new(Product::Postgres).await;
    world.prepare("CREATE TABLE orders (id INT)").await;
    for deed in POSTGRES {
        let place = format!("transaction: {deed}");
        let running = world.start("transaction", "never").await;
        rows_are_right(&running, &place).await;
        // Whether it can be committed depends on what was dropped; it never takes the next one with it.
        let insert = json!({ "run": "INSERT INTO orders VALUES (1)" });
        let _ = running.invoke(json!([insert, { "hand": deed }])).await;
        nothing_runs(&world, &place).await;
        rows_are_right(&running, &place).await;
        rows_are_right(&running, &place).await;
        running.end().await;
    }
}

/// sqlx stops reading in MySQL once it has the one row that was asked for: what comes behind it is no reply to the
/// next query, and is stopped with the invocation.
#[tokio::test]
async fn what_follows_the_first_row_is_nobody_elses_reply() {
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

/// Its reset waits for the `COPY` in vain, and leaves time to stop it.
#[tokio::test]
async fn copy_on_a_kept_connection_is_stopped_in_time() {
    support::measures_time();
    let world = World::new(Product::Postgres).await;
    let running = world.start("single", "never").await;
    running
        .succeed(json!([{ "hand": "copy_out_endless" }]))
        .await;
    world.nothing_runs("single").await;
    let log = world.log();
    assert!(!log.contains("could not be stopped"), "{log}");
    running.end().await;
}

/// Nothing on the client's side tells that a `COPY` still runs. A connection that is not used again is asked as well.
#[tokio::test]
async fn copy_is_cancelled_where_the_connection_is_closed() {
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
                // Whether the connection comes back before the pool is closing is a matter of luck.
                let tries = if ending == "failure" { 6 } else { 1 };
                for _ in 0..tries {
                    running.invoke(steps.clone()).await;
                    world.nothing_runs(&place).await;
                }
                let log = world.log();
                assert!(!log.contains("could not be stopped"), "{place}: {log}");
                world.server().wait_until_connections(0).await;
            }
        }
        running.end().await;
    }
}

/// A guard that did nothing unusual costs no connection.
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
