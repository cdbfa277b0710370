//! No session state is visible in a later invocation: a session that cannot be reset verifiably is closed.

use crate::world::{KINDS, Product, World};
use serde_json::json;

/// Session state: how to set it, how to read it, and its value in a new session.
type Mark = (&'static str, &'static str, Option<&'static str>);

const POSTGRES: &[Mark] = &[
    (
        "PREPARE secret AS SELECT 'secret'::text",
        "SELECT count(*)::text FROM pg_prepared_statements WHERE from_sql",
        Some("0"),
    ),
    (
        "PREPARE \"an; odd \"\"name\" AS SELECT 1",
        "SELECT count(*)::text FROM pg_prepared_statements WHERE from_sql",
        Some("0"),
    ),
];

const MARIADB: &[Mark] = &[
    ("SELECT 'secret' INTO @x", "SELECT CAST(@x AS CHAR)", None),
    ("SELECT @x := 'secret'", "SELECT CAST(@x AS CHAR)", None),
    (
        "EXECUTE IMMEDIATE 'SELECT ''secret'' INTO @x'",
        "SELECT CAST(@x AS CHAR)",
        None,
    ),
    (
        "SELECT 'forged' INTO @db_handler",
        "SELECT CAST(@db_handler = 'forged' AS CHAR)",
        Some("0"),
    ),
    (
        "CREATE TEMPORARY SEQUENCE numbers",
        "SELECT CAST(count(*) AS CHAR) FROM information_schema.SESSION_STATUS \
         WHERE VARIABLE_NAME = 'COM_CREATE_SEQUENCE' AND VARIABLE_VALUE <> '0'",
        Some("0"),
    ),
    (
        // It hides what else the server says about the session.
        "SET sql_select_limit = 1",
        "SELECT CAST(@@sql_select_limit = 1 AS CHAR)",
        Some("0"),
    ),
    (
        "PREPARE secret FROM 'SELECT 1'",
        "SELECT CAST(VARIABLE_VALUE AS CHAR) FROM information_schema.SESSION_STATUS \
         WHERE VARIABLE_NAME = 'COM_PREPARE_SQL'",
        Some("0"),
    ),
    (
        "DO LAST_INSERT_ID(4711)",
        "SELECT CAST(LAST_INSERT_ID() AS CHAR)",
        Some("0"),
    ),
    (
        "INSERT INTO numbered (v) VALUES (1), (2)",
        "SELECT CAST(LAST_INSERT_ID() AS CHAR)",
        Some("0"),
    ),
];

const SQLITE: &[Mark] = &[
    (
        "PRAGMA trusted_schema = 0",
        "SELECT CAST(trusted_schema AS TEXT) FROM pragma_trusted_schema",
        Some("1"),
    ),
    (
        "PRAGMA secure_delete = 1",
        "SELECT CAST(secure_delete AS TEXT) FROM pragma_secure_delete",
        Some("0"),
    ),
    (
        "PRAGMA max_page_count = 1000",
        "SELECT CAST(max_page_count = 1000 AS TEXT) FROM pragma_max_page_count",
        Some("0"),
    ),
    (
        "PRAGMA legacy_alter_table = 1",
        "SELECT CAST(legacy_alter_table AS TEXT) FROM pragma_legacy_alter_table",
        Some("0"),
    ),
    (
        "PRAGMA analysis_limit = 7",
        "SELECT CAST(analysis_limit AS TEXT) FROM pragma_analysis_limit",
        Some("0"),
    ),
    (
        "PRAGMA cell_size_check = 1",
        "SELECT CAST(cell_size_check AS TEXT) FROM pragma_cell_size_check",
        Some("0"),
    ),
    (
        "PRAGMA journal_mode = MEMORY",
        "SELECT CAST(journal_mode AS TEXT) FROM pragma_journal_mode",
        Some("delete"),
    ),
    (
        "INSERT INTO orders VALUES (1)",
        "SELECT CAST(last_insert_rowid() AS TEXT)",
        Some("0"),
    ),
];

async fn nothing_is_left(product: Product, marks: &[Mark]) {
    let world = World::new(product).await;
    let tables = match product {
        Product::MariaDb => "CREATE TABLE numbered (id INT AUTO_INCREMENT PRIMARY KEY, v INT)",
        _ => "CREATE TABLE orders (id INT)",
    };
    world.prepare(tables).await;
    let mut left = Vec::new();
    for kind in KINDS {
        for (leave, look, expected) in marks {
            let running = world.start(kind, "never").await;
            // Checks the value in a new session first.
            let fresh = running.ask(look).await;
            assert_eq!(fresh, json!(expected), "{product:?}/{kind}: {look}");
            running.succeed(json!([{ "run": leave }])).await;
            for _ in 0..2 {
                let after = running.ask(look).await;
                if after != json!(expected) {
                    left.push(format!("{kind}: {leave}: {after}"));
                }
            }
            running.end().await;
        }
    }
    assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
}

#[tokio::test]
async fn postgres_clears_statements_prepared_in_sql() {
    nothing_is_left(Product::Postgres, POSTGRES).await;
}

#[tokio::test]
async fn mariadb_clears_variables_statements_and_ids() {
    nothing_is_left(Product::MariaDb, MARIADB).await;
}

#[tokio::test]
async fn sqlite_clears_pragmas_and_last_row() {
    nothing_is_left(Product::Sqlite, SQLITE).await;
}

#[tokio::test]
async fn postgres_session_is_reused_after_prepare_in_sql() {
    let world = World::new(Product::Postgres).await;
    for kind in ["db", "single"] {
        let running = world.start(kind, "never").await;
        let before = running.ask(Product::Postgres.session()).await;
        running
            .succeed(json!([{ "run": "PREPARE a AS SELECT 1" }]))
            .await;
        let after = running.ask(Product::Postgres.session()).await;
        assert_eq!(before, after, "{kind}");
        running.end().await;
    }
}

#[tokio::test]
async fn mariadb_session_is_reused_after_insert() {
    let world = World::new(Product::MariaDb).await;
    world
        .prepare("CREATE TABLE numbered (id INT AUTO_INCREMENT PRIMARY KEY, v INT)")
        .await;
    for kind in ["db", "single"] {
        let running = world.start(kind, "never").await;
        let before = running.ask(Product::MariaDb.session()).await;
        let insert = json!({ "run": "INSERT INTO numbered (v) VALUES (1)" });
        running.succeed(json!([insert])).await;
        let after = running.ask(Product::MariaDb.session()).await;
        assert_eq!(before, after, "{kind}");
        running.end().await;
    }
}

/// A hook of the handler is removed at the end of its invocation, and ours, which cancels queries, is restored.
#[tokio::test]
async fn sqlite_hooks_are_removed_after_invocation() {
    let world = World::new(Product::Sqlite).await;
    world.prepare("CREATE TABLE orders (id INT)").await;
    for kind in KINDS {
        let running = world.start(kind, "never").await;
        running.succeed(json!([{ "hand": "hooks" }])).await;
        running
            .succeed(json!([{ "run": "INSERT INTO orders VALUES (1)" }]))
            .await;
        let dropped = json!({ "give_up": { "sql": Product::Sqlite.endless(), "ms": 30 } });
        running.succeed(json!([dropped])).await;
        let next = running.ask("SELECT 'free'").await;
        assert_eq!(next, json!("free"), "{kind}");
        running.end().await;
    }
}

/// An in-memory database belongs to its connection, which is reused.
#[tokio::test]
async fn sqlite_in_memory_database_keeps_data() {
    for kind in ["db", "single"] {
        let world = World::new(Product::Sqlite).await;
        let sandbox = world.sandbox_with(kind, "never", |function| {
            function.env("DATABASE_URL", "sqlite::memory:")
        });
        let running = crate::world::Running::of(sandbox).await;
        running
            .succeed(
                json!([{ "run": "CREATE TABLE orders (id INT); INSERT INTO orders VALUES (1)" }]),
            )
            .await;
        let counted = running
            .ask("SELECT CAST(count(*) AS TEXT) FROM orders")
            .await;
        assert_eq!(counted, json!("1"), "{kind}");
        running.end().await;
    }
}
