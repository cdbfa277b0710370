//! Session state of an invocation does not reach the next one in the same session.

use crate::world::{KINDS, Product, SERVERS, World};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use std::collections::BTreeMap;

/// Session state: how to set it, how to read it, and its value in a new session.
struct Mark {
    name: &'static str,
    leave: &'static [&'static str],
    look: &'static str,
    expected: Option<&'static str>,
    /// Whether it is reset without another connection.
    same_session: bool,
}

const fn mark(
    name: &'static str,
    leave: &'static [&'static str],
    look: &'static str,
    expected: Option<&'static str>,
    same_session: bool,
) -> Mark {
    Mark {
        name,
        leave,
        look,
        expected,
        same_session,
    }
}

const POSTGRES: &[Mark] = &[
    mark(
        "a setting",
        &["SET work_mem = '123kB'"],
        "SELECT current_setting('work_mem')",
        Some("4MB"),
        true,
    ),
    mark(
        "a setting of one's own",
        &["SET app.tenant = 'acme'"],
        "SELECT nullif(current_setting('app.tenant', true), '')",
        None,
        true,
    ),
    mark(
        "the search path",
        &["SET search_path = pg_catalog"],
        "SELECT current_setting('search_path')",
        Some("\"$user\", public"),
        true,
    ),
    mark(
        "a temporary table",
        &["CREATE TEMPORARY TABLE basket (id INT)"],
        "SELECT to_regclass('basket')::text",
        None,
        true,
    ),
    mark(
        "a session lock",
        &["SELECT pg_advisory_lock(42)"],
        "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND database = \
         (SELECT oid FROM pg_database WHERE datname = current_database())",
        Some("0"),
        true,
    ),
    mark(
        "a cursor",
        &["DECLARE orders CURSOR WITH HOLD FOR SELECT 1"],
        "SELECT count(*)::text FROM pg_cursors WHERE name = 'orders'",
        Some("0"),
        true,
    ),
    mark(
        "a subscription",
        &["LISTEN orders"],
        "SELECT count(*)::text FROM pg_listening_channels()",
        Some("0"),
        true,
    ),
    mark(
        "a raw BEGIN",
        &["BEGIN", "INSERT INTO orders VALUES (1)"],
        "SELECT count(*)::text FROM orders",
        Some("0"),
        true,
    ),
    mark(
        "an aborted transaction",
        &["BEGIN", "INSERT INTO orders VALUES (1)", "SAVEPOINT s"],
        "SELECT count(*)::text FROM orders",
        Some("0"),
        true,
    ),
    mark(
        "a sequence",
        &["SELECT setval('numbers', 7)"],
        "SELECT nullif(current_setting('app.none', true), '')",
        None,
        true,
    ),
];

const MARIADB: &[Mark] = &[
    mark(
        "a setting",
        &["SET SESSION sort_buffer_size = 65536"],
        "SELECT CAST(@@sort_buffer_size <> 65536 AS CHAR)",
        Some("1"),
        false,
    ),
    mark(
        "a user variable",
        &["SET @tenant = 'acme'"],
        "SELECT CAST(@tenant AS CHAR)",
        None,
        false,
    ),
    mark(
        "the isolation level",
        &["SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE"],
        "SELECT CAST(@@tx_isolation AS CHAR)",
        Some("REPEATABLE-READ"),
        false,
    ),
    mark(
        "autocommit",
        &["SET autocommit = 0"],
        "SELECT CAST(@@autocommit + 0 AS CHAR)",
        Some("1"),
        false,
    ),
    mark(
        "a temporary table",
        &["CREATE TEMPORARY TABLE basket (id INT)"],
        "SELECT CAST(count(*) AS CHAR) FROM information_schema.TABLES WHERE table_name = 'basket'",
        Some("0"),
        false,
    ),
    mark(
        "another database",
        &["USE information_schema"],
        "SELECT CAST(database() <> 'information_schema' AS CHAR)",
        Some("1"),
        false,
    ),
    mark(
        "a session lock",
        &["SELECT get_lock('till', 1)"],
        "SELECT CAST(is_used_lock('till') AS CHAR)",
        None,
        true,
    ),
    mark(
        "locked tables",
        &["LOCK TABLES orders WRITE"],
        "SELECT CAST(count(*) AS CHAR) FROM information_schema.TABLES WHERE table_name = 'none'",
        Some("0"),
        true,
    ),
    mark(
        "a raw BEGIN",
        &["START TRANSACTION", "INSERT INTO orders VALUES (1)"],
        "SELECT CAST(count(*) AS CHAR) FROM orders",
        Some("0"),
        true,
    ),
];

const SQLITE: &[Mark] = &[
    mark(
        "a temporary table",
        &["CREATE TEMPORARY TABLE basket (id INT)"],
        "SELECT CAST(count(*) AS TEXT) FROM temp.sqlite_master",
        Some("0"),
        false,
    ),
    mark(
        "an attached database",
        &["ATTACH DATABASE ':memory:' AS other"],
        "SELECT CAST(count(*) AS TEXT) FROM pragma_database_list WHERE name = 'other'",
        Some("0"),
        false,
    ),
    mark(
        "a raw BEGIN",
        &["BEGIN", "INSERT INTO orders VALUES (1)"],
        "SELECT CAST(count(*) AS TEXT) FROM orders",
        Some("0"),
        true,
    ),
    mark(
        "a pragma",
        &["PRAGMA query_only = 1"],
        "SELECT CAST(query_only AS TEXT) FROM pragma_query_only",
        Some("0"),
        false,
    ),
    mark(
        "foreign keys",
        &["PRAGMA foreign_keys = 0"],
        "SELECT CAST(foreign_keys AS TEXT) FROM pragma_foreign_keys",
        Some("1"),
        false,
    ),
];

async fn undone(product: Product, marks: &[Mark]) {
    let world = World::new(product).await;
    world.prepare("CREATE TABLE orders (id INT)").await;
    if product == Product::Postgres {
        world.prepare("CREATE SEQUENCE numbers").await;
    }
    let mut left = Vec::new();
    for kind in KINDS {
        for mark in marks {
            let place = format!("{product:?}/{kind}: {}", mark.name);
            let running = world.start(kind, "never").await;
            // One text, so that it runs on one connection.
            let leave = json!({ "run": mark.leave.join("; ") });
            let before = running
                .succeed(json!([{ "ask": product.session() }, leave]))
                .await;
            let session = json!({ "ask": product.session() });
            let after = running
                .succeed(json!([{ "ask": mark.look }, session]))
                .await;
            if after[0] != json!(mark.expected) {
                left.push(format!(
                    "{place}: {} instead of {:?}",
                    after[0], mark.expected
                ));
            }
            // sqlx's pool may use its second connection for the second query.
            if mark.same_session && product != Product::Sqlite && kind != "pool" {
                assert_eq!(before[0], after[1], "{place}: another session");
            }
            running.end().await;
        }
    }
    assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
}

#[tokio::test]
async fn postgres_sessions_are_reset() {
    undone(Product::Postgres, POSTGRES).await;
}

#[tokio::test]
async fn mariadb_sessions_are_reset() {
    undone(Product::MariaDb, MARIADB).await;
}

#[tokio::test]
async fn sqlite_connections_are_reset() {
    undone(Product::Sqlite, SQLITE).await;
}

#[tokio::test]
async fn session_is_reused_after_ordinary_invocation() {
    for product in SERVERS {
        let world = World::new(product).await;
        world.prepare("CREATE TABLE orders (id INT)").await;
        for kind in ["db", "single"] {
            let running = world.start(kind, "never").await;
            let first = running.ask(product.session()).await;
            let insert = "INSERT INTO orders VALUES (1)";
            for end in ["commit", "rollback", "drop"] {
                let transaction = json!({ "transaction": { "sql": insert, "end": end } });
                running
                    .succeed(json!([transaction, { "run": insert }]))
                    .await;
            }
            let place = format!("{product:?}/{kind}");
            assert_eq!(running.ask(product.session()).await, first, "{place}");
            assert_eq!(running.opened(), 1, "{place}");
            running.end().await;
        }
    }
}

#[tokio::test]
async fn leaked_transaction_is_rolled_back() {
    for product in SERVERS {
        let world = World::new(product).await;
        world.prepare("CREATE TABLE orders (id INT)").await;
        for kind in KINDS {
            let running = world.start(kind, "never").await;
            let insert = "INSERT INTO orders VALUES (1)";
            let leak = json!({ "transaction": { "sql": insert, "end": "forget" } });
            running.succeed(json!([leak])).await;
            let transaction = json!({ "transaction": { "sql": insert, "end": "rollback" } });
            let count = "SELECT CAST(count(*) AS CHAR(9)) FROM orders";
            let answers = running
                .succeed(json!([transaction, { "ask": count }]))
                .await;
            let counted = answers[1].as_str().map(str::trim);
            assert_eq!(counted, Some("0"), "{product:?}/{kind}");
            running.end().await;
        }
    }
}

#[tokio::test]
async fn prepared_statements_survive_reset() {
    let world = World::new(Product::Postgres).await;
    // sqlx's pool uses two connections for sequential queries.
    for kind in ["db", "single"] {
        let running = world.start(kind, "never").await;
        let statements = "SELECT count(*)::text FROM pg_prepared_statements";
        let orders = "SELECT 'orders'::text";
        running
            .succeed(json!([{ "ask": orders }, { "ask": statements }]))
            .await;
        for _ in 0..3 {
            let answers = running
                .succeed(json!([{ "ask": orders }, { "ask": statements }]))
                .await;
            // These two statements, and none of sqlx's.
            assert_eq!(answers[1], "2", "{kind}");
        }
        running.end().await;
    }
    // MariaDB counts the prepared statements of each session.
    let world = World::new(Product::MariaDb).await;
    for kind in ["db", "single"] {
        let running = world.start(kind, "never").await;
        let prepared = "SELECT CAST(VARIABLE_VALUE AS CHAR) FROM information_schema.SESSION_STATUS \
                        WHERE VARIABLE_NAME = 'COM_STMT_PREPARE'";
        let first = running.ask(prepared).await;
        for _ in 0..3 {
            assert_eq!(running.ask(prepared).await, first, "{kind}");
        }
        running.end().await;
    }
}

#[tokio::test]
async fn failed_transaction_is_reset() {
    let world = World::new(Product::Postgres).await;
    for kind in ["db", "single"] {
        let running = world.start(kind, "never").await;
        let before = running.ask(Product::Postgres.session()).await;
        let (error_type, _) = running
            .fail(json!([{ "run": "BEGIN; SET app.tenant = 'acme'; SELECT no_such_column" }]))
            .await;
        assert_eq!(error_type, "Query", "{kind}");
        let tenant = "SELECT nullif(current_setting('app.tenant', true), '')";
        assert_eq!(running.ask(tenant).await, Value::Null, "{kind}");
        assert_eq!(
            running.ask(Product::Postgres.session()).await,
            before,
            "{kind}"
        );
        running.end().await;
    }
}

#[tokio::test]
async fn server_keeps_only_the_functions_prepared_statements() {
    // The test requires that the server counts them.
    let world = World::new(Product::Postgres).await;
    let mut connection = PgConnection::connect(world.server().url())
        .await
        .expect("connects");
    let mut seen = BTreeMap::new();
    for _ in 0..2 {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_prepared_statements")
            .fetch_one(&mut connection)
            .await
            .expect("counts");
        *seen.entry(count).or_insert(0) += 1;
    }
    assert_eq!(seen, BTreeMap::from([(1, 2)]));
    connection.close().await.expect("closes");
}
