//! A commit is complete or returns an error.

use crate::world::{Product, Running, World};
use db_handler::sqlx::{self, Connection, MySqlConnection};
use serde_json::{Value, json};
use support::wait_for;

const INSERT: &str = "INSERT INTO orders VALUES (1)";

/// Operations that are dropped before they complete, unnoticed by sqlx.
const COPIES: &[&str] = &[
    "copy_in",
    "copy_in_and_go_on",
    "copy_in_begun",
    "copy_out",
    "copy_out_large",
    "copy_out_endless",
    "copy_out_silent",
    "copy_out_begun",
    "prepare",
];

/// The steps of a transaction that writes a row, does `deed` and commits.
fn committed_after(kind: &str, deed: &str) -> Value {
    match kind {
        "transaction" => json!([{ "run": INSERT }, { "hand": deed }]),
        _ => json!([{ "transaction": { "sql": INSERT, "hand": deed, "end": "commit" } }]),
    }
}

async fn count(running: &Running, what: &str) -> Value {
    let sql = format!("SELECT CAST(count(*) AS CHAR(9)) FROM orders WHERE {what}");
    let answer = running.ask(&sql).await;
    json!(answer.as_str().map(str::trim))
}

#[tokio::test]
async fn dropped_copy_is_not_committed() {
    support::measures_time();
    let world = World::new(Product::Postgres).await;
    world.prepare("CREATE TABLE orders (id INT)").await;
    for kind in ["transaction", "db"] {
        for close in ["always", "never"] {
            let running = world.start(kind, close).await;
            for deed in COPIES.iter().filter(|deed| **deed != "prepare") {
                let place = format!("{kind}/{close}: {deed}");
                let (error_type, text) = running.fail(committed_after(kind, deed)).await;
                assert_eq!(error_type, "CommitFailed", "{place}: {text}");
                // If the handler continues, the next statement gets the error of the `COPY`.
                let says_why = text.contains("dropped") && text.contains("rolled back")
                    || *deed == "copy_in_and_go_on" && text.contains("is aborted");
                assert!(says_why, "{place}: {text}");
                world.nothing_runs(&place).await;
                assert_eq!(count(&running, "true").await, "0", "{place}");
            }
            running.end().await;
        }
    }
}

/// Whatever is dropped: after a successful commit the row exists, after a failed one it does not.
#[tokio::test]
async fn commit_result_is_correct_after_dropped_operations() {
    support::measures_time();
    let world = World::new(Product::Postgres).await;
    let others = ["copy_in_refused", "copy_out_refused", "copy_as_a_query"];
    for kind in ["transaction", "db"] {
        world
            .prepare("DROP TABLE IF EXISTS orders; CREATE TABLE orders (id INT)")
            .await;
        let running = world.start(kind, "never").await;
        let mut committed = 0;
        for deed in COPIES
            .iter()
            .chain(&others)
            .chain(&["cursor", "statements"])
        {
            let place = format!("{kind}: {deed}");
            let invocation = running.invoke(committed_after(kind, deed)).await;
            match invocation.outcome {
                sandbox::Outcome::Failed {
                    error_type,
                    message,
                } => {
                    assert_eq!(error_type, "CommitFailed", "{place}: {message}");
                }
                _ => committed += 1,
            }
            let there = count(&running, "true").await;
            assert_eq!(there, committed.to_string(), "{place}");
        }
        assert!(committed >= 2, "{kind}: {committed}");
        running.end().await;
    }
}

/// sqlx takes another reply for that to `COMMIT`, and may panic.
#[tokio::test]
async fn commit_after_dropped_prepare_reports_what_is_known() {
    support::measures_time();
    let world = World::new(Product::MariaDb).await;
    for kind in ["transaction", "db"] {
        for deed in ["prepare", "prepare_of_a_query", "prepare_refused"] {
            world
                .prepare("DROP TABLE IF EXISTS orders; CREATE TABLE orders (id INT)")
                .await;
            let place = format!("{kind}: {deed}");
            let running = world.start(kind, "never").await;
            let invocation = running.invoke(committed_after(kind, deed)).await;
            let there = count(&running, "true").await;
            match invocation.outcome {
                sandbox::Outcome::Failed {
                    error_type,
                    message,
                } if error_type == "CommitFailed" => assert_eq!(there, "0", "{place}: {message}"),
                sandbox::Outcome::Failed {
                    error_type,
                    message,
                } => {
                    assert_eq!(error_type, "CommitUnknown", "{place}: {message}");
                    assert!(message.contains("check before"), "{place}: {message}");
                }
                // The reply arrived at once.
                _ => assert_eq!(there, "1", "{place}"),
            }
            running.end().await;
        }
    }
}

/// The server rolls back one transaction of a deadlock. Later statements of its handler run outside a transaction.
#[tokio::test]
async fn commit_fails_after_ignored_deadlock() {
    support::measures_time();
    for kind in ["transaction", "db"] {
        let world = World::new(Product::MariaDb).await;
        world
            .prepare(
                "CREATE TABLE orders (id INT PRIMARY KEY, n INT); \
                 INSERT INTO orders SELECT seq, 0 FROM seq_10_to_300; INSERT INTO orders VALUES (1, 0), (2, 0)",
            )
            .await;
        let mut other = MySqlConnection::connect(world.server().url())
            .await
            .expect("server");
        let running = world.start(kind, "never").await;
        // The server rolls back the transaction that has written less.
        run(
            &mut other,
            "BEGIN; UPDATE orders SET n = 2 WHERE id >= 10; UPDATE orders SET n = 2 WHERE id = 2",
        )
        .await;
        let steps = match kind {
            "transaction" => json!([{ "hand": "deadlock" }]),
            _ => {
                json!([{ "transaction": { "sql": "SELECT 1", "hand": "deadlock", "end": "commit" } }])
            }
        };
        let failing = running.fail(steps);
        let closing_the_circle = async {
            let queries = async || world.server().running_queries().await;
            let waits = |queries: &Vec<String>| queries.iter().any(|one| one.contains("id = 2"));
            wait_for("the function to wait for a lock", queries, waits).await;
            run(&mut other, "UPDATE orders SET n = 2 WHERE id = 1; ROLLBACK").await;
        };
        let ((error_type, text), ()) = tokio::join!(failing, closing_the_circle);
        assert_eq!(error_type, "CommitFailed", "{kind}: {text}");
        assert!(text.contains("had ended before"), "{kind}: {text}");
        assert!(text.contains("may have been written"), "{kind}: {text}");
        assert_eq!(count(&running, "n = 1").await, "0", "{kind}");
        assert_eq!(count(&running, "id = 3").await, "1", "{kind}");
        running.end().await;
    }
}

/// In MySQL such a statement commits the preceding ones.
#[tokio::test]
async fn commit_fails_after_statement_that_ended_transaction() {
    for kind in ["transaction", "db"] {
        let world = World::new(Product::MariaDb).await;
        world.prepare("CREATE TABLE orders (id INT)").await;
        let running = world.start(kind, "never").await;
        let (error_type, text) = running.fail(committed_after(kind, "create")).await;
        assert_eq!(error_type, "CommitFailed", "{kind}: {text}");
        assert!(text.contains("`CREATE TABLE`"), "{kind}: {text}");
        running.end().await;
    }
}

async fn run(connection: &mut MySqlConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(connection).await.expect("done");
}
