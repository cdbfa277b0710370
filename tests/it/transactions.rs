//! A transaction per invocation: committed if the handler returns `Ok`, and rolled back otherwise.

use crate::FUNCTION;
use db_handler::sqlx::{self, Connection, Executor, PgConnection};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};
use support::{
    Database,
    function::Function,
    mariadb, postgres,
    runtime_api::{Answer, RuntimeApi},
};

const AMPLE: Duration = Duration::from_secs(30);
/// The handler has 250 ms less: the reserve.
const SHORT: Duration = Duration::from_millis(700);
const INSERT: &str = "INSERT INTO orders VALUES (1)";

struct World {
    api: RuntimeApi,
    function: Function,
}

impl World {
    async fn start(handler: &str, url: &str) -> Self {
        let api = RuntimeApi::start().await;
        let function = Function::builder(&api, Path::new(FUNCTION))
            .env("FUNCTION", "transaction")
            .env("HANDLER", handler)
            .env("DATABASE_URL", url)
            .start();
        Self { api, function }
    }

    async fn invoke(&self, sql: &str, then: &str, limit: Duration) -> Answer {
        let event = json!({ "sql": sql, "then": then });
        let answer = self.api.invoke(&event, limit).await;
        self.api.next_after(&answer.id).await;
        answer
    }

    async fn succeeds(&self, sql: &str, then: &str) -> Value {
        let answer = self.invoke(sql, then, AMPLE).await;
        let text = answer.text();
        assert!(!answer.is_error, "{text}\n{}", self.function.output());
        answer.json()
    }

    async fn count(&self) -> Value {
        self.succeeds("SELECT 1", "count").await
    }

    async fn fails(&self, sql: &str, then: &str, error_type: &str, words: &[&str]) {
        let limit = if then == "wait_for_ever" {
            SHORT
        } else {
            AMPLE
        };
        let answer = self.invoke(sql, then, limit).await;
        assert!(answer.is_error, "{}", answer.text());
        let answer = answer.json();
        if !error_type.is_empty() {
            assert_eq!(answer["errorType"], error_type, "{answer}");
        }
        let message = answer["errorMessage"].as_str().unwrap_or_default();
        for word in words {
            assert!(message.contains(word), "no {word:?} in {message:?}");
        }
    }
}

/// Checks that apply to every database. `orders` must exist and be empty.
async fn ok_commits_and_nothing_else(handler: &str, url: &str) {
    let world = World::start(handler, url).await;
    let mut rows = 0;
    for _ in 0..2 {
        world.succeeds(INSERT, "succeed").await;
        rows += 1;
        assert_eq!(world.count().await, rows, "{handler}");
        let told_to_fail = ["told to fail"];
        world.fails(INSERT, "fail", "Handler", &told_to_fail).await;
        assert_eq!(world.count().await, rows, "{handler}: Err");
        world.fails(INSERT, "panic", "", &["told to panic"]).await;
        assert_eq!(world.count().await, rows, "{handler}: panic");
        let stopped = ["before the deadline"];
        world
            .fails(INSERT, "wait_for_ever", "DeadlineExceeded", &stopped)
            .await;
        assert_eq!(world.count().await, rows, "{handler}: deadline");
    }
}

#[tokio::test]
async fn only_ok_commits_in_postgres() {
    for close in ["always", "never"] {
        let database = postgres().fresh_database().await;
        prepare(&database, "CREATE TABLE orders (id INT)").await;
        ok_commits_and_nothing_else(&format!("postgres/{close}"), database.url()).await;
        database.wait_until_connections(0).await;
    }
}

#[tokio::test]
async fn only_ok_commits_in_mariadb() {
    for close in ["always", "never"] {
        let database = mariadb().fresh_database().await;
        let mut owner = sqlx::MySqlConnection::connect(database.url())
            .await
            .expect("server");
        owner
            .execute("CREATE TABLE orders (id INT)")
            .await
            .expect("creates");
        owner.close().await.expect("a goodbye");
        ok_commits_and_nothing_else(&format!("mariadb/{close}"), database.url()).await;
        database.wait_until_connections(0).await;
    }
}

#[tokio::test]
async fn only_ok_commits_in_sqlite() {
    for close in ["always", "never"] {
        let file = sqlite("CREATE TABLE orders (id INT)").await;
        ok_commits_and_nothing_else(&format!("sqlite/{close}"), &file.url).await;
    }
}

#[tokio::test]
async fn commit_precedes_response() {
    let database = postgres().fresh_database().await;
    let mut observer = prepare(&database, "CREATE TABLE orders (id INT)").await;
    let world = World::start("postgres/always", database.url()).await;
    for rows in 1..=20_i64 {
        let event = json!({ "sql": INSERT, "then": "succeed" });
        let answer = world.api.invoke(&event, AMPLE).await;
        assert!(!answer.is_error, "{}", answer.text());
        let count = sqlx::query_scalar("SELECT count(*) FROM orders");
        let count: i64 = count.fetch_one(&mut observer).await.expect("counts");
        assert_eq!(count, rows);
    }
}

const DEFERRED: &str = "CREATE TABLE items (id INT PRIMARY KEY);
    CREATE TABLE orders (id INT REFERENCES items (id) DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE others (id INT)";

#[tokio::test]
async fn rejected_commit_is_returned_as_error() {
    for close in ["always", "never"] {
        let database = postgres().fresh_database().await;
        prepare(&database, DEFERRED).await;
        let world = World::start(&format!("postgres/{close}"), database.url()).await;
        let words = ["commit: ", "rejected COMMIT", "foreign key", "rolled back"];
        world.fails(INSERT, "succeed", "CommitFailed", &words).await;
        assert_eq!(world.count().await, 0);

        let file = sqlite(DEFERRED).await;
        let world = World::start(&format!("sqlite/{close}"), &file.url).await;
        let words = ["commit: ", "rejected COMMIT", "FOREIGN KEY"];
        world.fails(INSERT, "succeed", "CommitFailed", &words).await;
        assert_eq!(world.count().await, 0);
    }
}

/// PostgreSQL itself turns such a commit into a rollback and reports success.
#[tokio::test]
async fn ignored_statement_error_fails_commit() {
    let database = postgres().fresh_database().await;
    prepare(&database, "CREATE TABLE orders (id INT)").await;
    let world = World::start("postgres/never", database.url()).await;
    let sql = "INSERT INTO orders VALUES (1); SELECT 1 / 0";
    let words = ["rejected COMMIT", "aborted"];
    world.fails(sql, "succeed", "CommitFailed", &words).await;
    let sql = "INSERT INTO orders VALUES (1); SAVEPOINT a";
    assert_eq!(world.succeeds(sql, "succeed").await, 0);
    assert_eq!(world.count().await, 1);
}

#[tokio::test]
async fn connection_lost_before_commit_returns_error() {
    support::measures_time();
    let database = postgres().fresh_database().await;
    prepare(&database, "CREATE TABLE orders (id INT)").await;
    let world = World::start("postgres/never", database.url()).await;
    let kill = "SELECT pg_terminate_backend(pg_backend_pid())";
    let words = ["the connection was lost before COMMIT was sent"];
    world.fails(kill, "succeed", "CommitFailed", &words).await;
    assert_eq!(world.count().await, 0);

    let database = mariadb().fresh_database().await;
    let mut owner = sqlx::MySqlConnection::connect(database.url())
        .await
        .expect("server");
    owner
        .execute("CREATE TABLE orders (id INT)")
        .await
        .expect("creates");
    let world = World::start("mariadb/never", database.url()).await;
    let kill = "KILL CONNECTION_ID()";
    // sqlx does not check the socket before it sends a statement.
    let words = ["may or may not have been committed"];
    world.fails(kill, "succeed", "CommitUnknown", &words).await;
    assert_eq!(world.count().await, 0);
}

#[tokio::test]
async fn transactions_commit_in_order_and_error_counts_committed_ones() {
    let database = postgres().fresh_database().await;
    let mut observer = prepare(&database, DEFERRED).await;
    let world = World::start("postgres/two", database.url()).await;
    world.succeeds("SELECT 1", "succeed").await;
    let words = ["rejected COMMIT", "1 before it had been committed"];
    world.fails(INSERT, "succeed", "CommitFailed", &words).await;
    world.fails("SELECT 1", "fail", "Handler", &[]).await;
    let count = sqlx::query_scalar("SELECT count(*) FROM others");
    let count: i64 = count.fetch_one(&mut observer).await.expect("counts");
    assert_eq!(count, 2);
}

async fn prepare(database: &Database, sql: &'static str) -> PgConnection {
    let mut owner = PgConnection::connect(database.url()).await.expect("server");
    sqlx::raw_sql(sql)
        .execute(&mut owner)
        .await
        .expect("creates");
    owner
}

struct SqliteFile {
    url: String,
    _folder: tempfile::TempDir,
}

async fn sqlite(sql: &'static str) -> SqliteFile {
    let folder = tempfile::tempdir().expect("room");
    let url = format!("sqlite://{}/orders.db?mode=rwc", folder.path().display());
    let mut owner = sqlx::SqliteConnection::connect(&url).await.expect("opens");
    sqlx::raw_sql(sql)
        .execute(&mut owner)
        .await
        .expect("creates");
    owner.close().await.expect("closes");
    SqliteFile {
        url,
        _folder: folder,
    }
}
