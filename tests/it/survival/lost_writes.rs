//! A write that succeeded is in the database. A write that was not committed returns an error.

use crate::world::{PRODUCTS, Product, Running, World};
use serde_json::{Value, json};

const INSERT: &str = "INSERT INTO orders VALUES (2)";

async fn count(running: &Running, id: u8) -> i64 {
    let sql = format!("SELECT CAST(count(*) AS CHAR(9)) FROM orders WHERE id = {id}");
    let counted = running.ask(&sql).await;
    let counted = counted.as_str().map(str::trim).and_then(|n| n.parse().ok());
    counted.expect("a number")
}

fn deeds(product: Product) -> &'static [&'static str] {
    match product {
        Product::Postgres => &["begin", "aborted"],
        Product::MariaDb => &["begin", "autocommit"],
        Product::Sqlite => &["begin", "savepoint"],
    }
}

#[tokio::test]
async fn write_after_guard_with_open_transaction_is_not_lost() {
    support::measures_time();
    for product in PRODUCTS {
        for kind in ["db", "pool"] {
            for deed in deeds(product) {
                let place = format!("{product:?}/{kind}: {deed}");
                let world = World::new(product).await;
                world.prepare("CREATE TABLE orders (id INT)").await;
                let running = world.start(kind, "never").await;
                let insert = json!({ "run": INSERT });
                let steps = json!([{ "hand": deed }, insert, insert, insert]);
                running.succeed(steps).await;
                assert_eq!(count(&running, 2).await, 3, "{place}");
                assert_eq!(count(&running, 1).await, 0, "{place}: not committed");
                running.end().await;
            }
        }
    }
}

#[tokio::test]
async fn write_after_raw_begin_on_handle_is_not_lost() {
    support::measures_time();
    for product in PRODUCTS {
        for kind in ["db", "pool"] {
            let place = format!("{product:?}/{kind}");
            let world = World::new(product).await;
            world.prepare("CREATE TABLE orders (id INT)").await;
            let running = world.start(kind, "never").await;
            let begin = json!({ "run": "BEGIN; INSERT INTO orders VALUES (1)" });
            let insert = json!({ "run": INSERT });
            running.succeed(json!([begin, insert, insert])).await;
            assert_eq!(count(&running, 2).await, 2, "{place}");
            assert_eq!(count(&running, 1).await, 0, "{place}: not committed");
            running.end().await;
        }
    }
}

#[tokio::test]
async fn write_after_xa_start_on_handle_is_not_lost() {
    support::measures_time();
    let world = World::new(Product::MariaDb).await;
    world.prepare("CREATE TABLE orders (id INT)").await;
    let running = world.start("db", "never").await;
    let insert = json!({ "run": INSERT });
    let steps = json!([{ "run": "XA START 'a'" }, insert, insert]);
    running.succeed(steps).await;
    assert_eq!(count(&running, 2).await, 2);
    running.end().await;
}

#[tokio::test]
async fn commit_fails_when_postgres_rolled_back() {
    support::measures_time();
    let world = World::new(Product::Postgres).await;
    world.prepare("CREATE TABLE orders (id INT)").await;
    let running = world.start("db", "never").await;
    let careless = json!({ "transaction": { "sql": INSERT, "end": "careless" } });
    let (error_type, text) = running.fail(json!([careless])).await;
    assert_eq!(error_type, "CommitFailed", "{text}");
    assert_eq!(count(&running, 2).await, 0);
    running.end().await;
}

#[tokio::test]
async fn commit_is_complete_with_leaked_savepoint() {
    support::measures_time();
    for product in PRODUCTS {
        let world = World::new(product).await;
        world.prepare("CREATE TABLE orders (id INT)").await;
        let running = world.start("db", "never").await;
        let leaked = json!({ "transaction": { "sql": INSERT, "end": "leaked" } });
        let answers = running.succeed(json!([leaked, { "run": INSERT }])).await;
        assert_eq!(answers, [Value::Null, Value::Null]);
        assert_eq!(count(&running, 2).await, 2, "{product:?}");
        running.end().await;
    }
}

#[tokio::test]
async fn sequential_transactions_share_one_connection() {
    support::measures_time();
    for product in crate::world::SERVERS {
        let world = World::new(product).await;
        world.prepare("CREATE TABLE orders (id INT)").await;
        let running = world.start("db", "never").await;
        let commit = json!({ "transaction": { "sql": INSERT, "end": "commit" } });
        let rollback = json!({ "transaction": { "sql": INSERT, "end": "rollback" } });
        running
            .succeed(json!([commit, commit, rollback, { "run": INSERT }]))
            .await;
        assert_eq!(count(&running, 2).await, 3, "{product:?}");
        assert_eq!(running.opened(), 1, "{product:?}");
        running.end().await;
    }
}
