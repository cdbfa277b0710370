//! A query that a handler has dropped is cancelled on the server. No other query is.

use crate::FUNCTION;
use crate::world::{KINDS, Product, Running, World};
use db_handler::{
    config::CLIENT_CHECK,
    sqlx::{self, AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection},
};
use sandbox::{Function, Invocation, Outcome, Sandbox};
use serde_json::json;
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use support::{
    Database, MariaDb, Postgres, caller::local, function::FunctionBuilder, mariadb, postgres,
    wait_for,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Values of the variable `FUNCTION`.
const SURVIVAL: &str = "survival";
const TRANSACTION: &str = "transaction";
const RENAME: &str = "SET application_name = 'renamed'";
/// Much longer than cancelling takes, and much shorter than the query.
const NEVER_CANCELLED: Duration = Duration::from_secs(15);

/// Turns off the server's check for lost clients, so that only a cancel request ends a query.
fn unmonitored(database: &Database) -> String {
    let url = database.url();
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}options=-c%20client_connection_check_interval%3D0")
}

async fn start(function: &str, handler: &str, url: &str) -> Running {
    let function = Function::new(FUNCTION)
        .env("FUNCTION", function)
        .env("HANDLER", handler);
    let sandbox = Sandbox::new(function)
        .timeout(Duration::from_secs(20))
        .database("DATABASE_URL", url)
        .expect("a URL with a host");
    Running::of(sandbox).await
}

/// Asserts that no query runs, long before it would end by itself.
async fn is_cancelled(database: &Database, place: &str) -> Duration {
    let from = Instant::now();
    loop {
        let running = database.running_queries().await;
        if running.is_empty() {
            return from.elapsed();
        }
        assert!(from.elapsed() < NEVER_CANCELLED, "{place}: {running:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn error_of(invocation: &Invocation) -> (&str, &str) {
    match &invocation.outcome {
        Outcome::Failed {
            error_type,
            message,
        } => (error_type, message),
        other => panic!("no error: {other}"),
    }
}

/// Its connection is closed. The server checks for that every [`CLIENT_CHECK`].
#[tokio::test]
async fn renamed_session_of_new_connection_ends_at_client_check() {
    support::waits();
    for kind in KINDS {
        let world = World::new(Product::Postgres).await;
        let running = world.start(kind, "always").await;
        let endless = Product::Postgres.endless();
        let give_up = json!({ "give_up": { "sql": endless, "ms": 300 } });
        let steps = json!([{ "run": RENAME }, give_up]);
        running.succeed(steps).await;
        let took = is_cancelled(world.server(), kind).await;
        assert!(took < CLIENT_CHECK * 4, "{kind}: {took:?}");
        running.end().await;
    }
}

#[tokio::test]
async fn renamed_session_of_transaction_ends_at_client_check() {
    support::waits();
    let world = Transactions::new("postgres").await;
    for close in ["always", "never"] {
        let running = world.start(close).await;
        let event = json!({ "sql": format!("{RENAME}; {}", world.endless()), "then": "drop" });
        let invocation = running.invoke(event).await;
        assert_eq!(error_of(&invocation).0, "CommitFailed", "{close}");
        let took = is_cancelled(&world.database, close).await;
        assert!(took < CLIENT_CHECK * 4, "{close}: {took:?}");
        running.end().await;
    }
}

/// The server has no free connection for cancelling.
#[tokio::test]
async fn failed_cancellation_is_logged_with_its_reason() {
    support::waits();
    let server = Postgres::builder().start();
    let mut admin = server.admin().await;
    admin
        .execute("alter role app connection limit 1")
        .await
        .expect("the role");
    for kind in KINDS {
        let database = server.fresh_database().await;
        let world = World::of(Product::Postgres, Some(database));
        let running = world.start(kind, "patient_always").await;
        let endless = Product::Postgres.endless();
        let steps = json!([{ "give_up": { "sql": endless, "ms": 3_000 } }]);
        running.succeed(steps).await;
        world.wait_for_log("could not be cancelled").await;
        let log = world.log();
        let line = log
            .lines()
            .find(|line| line.contains("could not be cancelled"));
        let line = line.expect("it was there");
        assert!(line.contains(" WARN "), "{kind}: {line}");
        assert!(
            line.contains("too many connections for role"),
            "{kind}: {line}"
        );
        world.nothing_secret();
        is_cancelled(world.server(), kind).await;
        running.end().await;
    }
}

/// After its first reset the session is identified by its process, not by its name.
#[tokio::test]
async fn renamed_session_of_reused_connection_is_cancelled() {
    support::measures_time();
    for kind in KINDS {
        let database = postgres().fresh_database().await;
        let running = start(
            SURVIVAL,
            &format!("postgres/{kind}/patient_never"),
            &unmonitored(&database),
        )
        .await;
        let endless = Product::Postgres.endless();
        let steps = json!([
            { "ask": Product::Postgres.session() },
            { "run": RENAME },
            { "give_up": { "sql": endless, "ms": 1_000 } },
        ]);
        // On a busy machine a connection may not be reset in time to be reused.
        for attempt in 1.. {
            assert!(attempt <= 5, "{kind}: it is never kept");
            let session = running.ask(Product::Postgres.session()).await;
            let answers = running.succeed(steps.clone()).await;
            if answers[0] == session {
                break;
            }
            database.terminate_connections().await;
        }
        is_cancelled(&database, kind).await;
        running.end().await;
    }
}

/// A session of another role with the same name is not cancelled, and does not hide ours.
#[tokio::test]
#[allow(
    clippy::async_yields_async,
    reason = "the other query goes on meanwhile"
)]
async fn same_name_of_another_role_does_not_affect_cancellation() {
    support::waits();
    let server = Postgres::builder().start();
    let mut admin = server.admin().await;
    admin
        .execute("create role other login password 'other'")
        .await
        .expect("a role");
    for kind in KINDS {
        let database = server.fresh_database().await;
        let running = start(
            SURVIVAL,
            &format!("postgres/{kind}/patient_always"),
            &unmonitored(&database),
        )
        .await;
        let endless = Product::Postgres.endless();
        let steps = json!([{ "give_up": { "sql": endless, "ms": 3_000 } }]);
        let copying = async {
            database.wait_until_running(1).await;
            let name: String = sqlx::query_scalar(
                "select application_name from pg_stat_activity where datname = $1 and state = 'active'",
            )
            .bind(database.name())
            .fetch_one(&mut admin)
            .await
            .expect("its name");
            let url = database.url().replace(
                &format!("{}:{}", Postgres::USER, Postgres::PASSWORD),
                "other:other",
            );
            let mut other = PgConnection::connect(&url).await.expect("the other role");
            let rename = format!("set application_name = '{name}'");
            other.execute(AssertSqlSafe(rename)).await.expect("renamed");
            tokio::spawn(async move { other.execute("select pg_sleep(20)").await.map(drop) })
        };
        let (_, other) = tokio::join!(running.succeed(steps), copying);
        let what = format!("{kind}: the query of the other role alone");
        wait_for(
            &what,
            async || database.sessions().await,
            |sessions| {
                let running: Vec<_> = sessions.iter().filter(|one| one.running).collect();
                matches!(running.as_slice(), [only] if only.user == "other")
            },
        )
        .await;
        assert!(!other.is_finished(), "{kind}");
        other.abort();
        running.end().await;
    }
}

/// A balanced address: connections alternate between two servers.
struct Balanced {
    url: String,
    relaying: JoinHandle<()>,
}

impl Balanced {
    async fn before(servers: [u16; 2]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let relaying = tokio::spawn(async move {
            for number in 0.. {
                let Ok((mut client, _)) = listener.accept().await else {
                    return;
                };
                let server = servers[number % 2];
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
                    copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        let (user, password) = (MariaDb::USER, MariaDb::PASSWORD);
        Self {
            url: format!("mysql://{user}:{password}@127.0.0.1:{port}/app"),
            relaying,
        }
    }
}

async fn id(connection: &mut MySqlConnection) -> u64 {
    sqlx::query_scalar("select connection_id()")
        .fetch_one(connection)
        .await
        .expect("an id")
}

/// Behind a balanced address, the other server has a session with the same `CONNECTION_ID()`.
#[tokio::test]
#[allow(
    clippy::async_yields_async,
    reason = "the other query goes on meanwhile"
)]
async fn kill_reaches_the_right_server_behind_a_balanced_address() {
    support::waits();
    for kind in KINDS {
        let (ours, others) = (MariaDb::builder().start(), MariaDb::builder().start());
        // Our server's ids are ahead of the other server's.
        for _ in 0..20 {
            let one = MySqlConnection::connect(&ours.url())
                .await
                .expect("connects");
            one.close().await.expect("a goodbye");
        }
        let balanced = Balanced::before([ours.port(), others.port()]).await;
        let running = start(
            SURVIVAL,
            &format!("mariadb/{kind}/patient_always"),
            &balanced.url,
        )
        .await;
        let endless = Product::MariaDb.endless();
        let steps = json!([{ "give_up": { "sql": endless, "ms": 8_000 } }]);
        let disguising = async {
            wait_for(
                "the query",
                async || ours.running_queries().await,
                |running| running.len() == 1,
            )
            .await;
            let wanted = ours.sessions().await.first().expect("a session").id;
            loop {
                let mut innocent = MySqlConnection::connect(&others.url())
                    .await
                    .expect("connects");
                let id = id(&mut innocent).await;
                assert!(
                    id <= wanted.cast_unsigned(),
                    "{kind}: the other server is ahead"
                );
                if id == wanted.cast_unsigned() {
                    return tokio::spawn(async move {
                        let slept = sqlx::query_scalar::<_, i64>("select sleep(12)");
                        slept.fetch_one(&mut innocent).await
                    });
                }
                innocent.close().await.expect("a goodbye");
            }
        };
        let (_, innocent) = tokio::join!(running.succeed(steps), disguising);
        let from = Instant::now();
        while !ours.running_queries().await.is_empty() {
            assert!(
                from.elapsed() < Duration::from_secs(8),
                "{kind}: not cancelled"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let slept = innocent.await.expect("no panic");
        let slept = slept.unwrap_or_else(|error| panic!("{kind}: it was ended: {error}"));
        assert_eq!(slept, 0, "{kind}: it slept to its end");
        running.end().await;
        balanced.relaying.abort();
    }
}

/// Without `run`, no cleanup runs for a handler whose future is dropped.
#[tokio::test]
async fn dropped_handler_without_run_is_cancelled() {
    support::waits();
    for (product, database) in [
        ("postgres", postgres().fresh_database().await),
        ("mariadb", mariadb().fresh_database().await),
    ] {
        let database = Arc::new(database);
        let endless = match product {
            "postgres" => Product::Postgres.endless(),
            _ => Product::MariaDb.endless(),
        };
        let url = match product {
            "postgres" => unmonitored(&database),
            _ => database.url().to_owned(),
        };
        for kind in KINDS {
            let function = local(Path::new(FUNCTION))
                .env("FUNCTION", SURVIVAL)
                .env("HANDLER", format!("{product}/{kind}/patient_always"))
                .env("DATABASE_URL", &url)
                .env("ALONE", json!([{ "ask": endless }]).to_string())
                .start();
            database.wait_until_running(1).await;
            function.wait_for_output("dropped").await;
            is_cancelled(&database, &format!("{product}/{kind}")).await;
        }
    }
}

fn locally(handler: &str, url: &str, steps: &serde_json::Value) -> FunctionBuilder {
    local(Path::new(FUNCTION))
        .env("FUNCTION", SURVIVAL)
        .env("HANDLER", handler)
        .env("DATABASE_URL", url)
        .arg(steps.to_string())
}

#[tokio::test]
async fn signals_cancel_running_queries_in_local_mode() {
    support::measures_time();
    let database = postgres().fresh_database().await;
    let url = unmonitored(&database);
    let steps = json!([{ "ask": Product::Postgres.endless() }]);
    for kind in KINDS {
        for (signal, code) in [("HUP", 129), ("INT", 130), ("TERM", 143)] {
            let handler = format!("postgres/{kind}/patient_never");
            let mut function = locally(&handler, &url, &steps).start();
            database.wait_until_running(1).await;
            function.signal(signal).await;
            assert_eq!(function.ended().await.code(), Some(code), "{kind}");
            is_cancelled(&database, kind).await;
        }
    }
}

/// A function started with `nohup` continues when the terminal is closed.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn ignored_hangup_cancels_nothing() {
    let database = postgres().fresh_database().await;
    let mut function = local(Path::new("/bin/sh"))
        .env("FUNCTION", SURVIVAL)
        .env("HANDLER", "postgres/db/patient_never")
        .env("DATABASE_URL", unmonitored(&database))
        .arg("-c")
        .arg(r#"trap '' HUP; exec "$0" "$@""#)
        .arg(FUNCTION)
        .arg(json!([{ "ask": Product::Postgres.endless() }]).to_string())
        .start();
    database.wait_until_running(1).await;
    function.signal("HUP").await;
    function.signal("TERM").await;
    assert_eq!(function.ended().await.code(), Some(143));
    is_cancelled(&database, "TERM").await;
}

struct Transactions {
    product: &'static str,
    database: Database,
}

impl Transactions {
    async fn new(product: &'static str) -> Self {
        let database = match product {
            "postgres" => postgres().fresh_database().await,
            _ => mariadb().fresh_database().await,
        };
        let create = "CREATE TABLE orders (id INT)";
        if product == "postgres" {
            let mut owner = PgConnection::connect(database.url()).await.expect("server");
            owner.execute(create).await.expect("creates");
        } else {
            let mut owner = MySqlConnection::connect(database.url())
                .await
                .expect("server");
            owner.execute(create).await.expect("creates");
        }
        Self { product, database }
    }

    async fn start(&self, close: &str) -> Running {
        let handler = format!("{}/{close}", self.product);
        start(TRANSACTION, &handler, self.database.url()).await
    }

    fn endless(&self) -> &'static str {
        match self.product {
            "postgres" => "INSERT INTO orders VALUES (1); SELECT pg_sleep(30)",
            _ => "INSERT INTO orders VALUES (1); SELECT sleep(30)",
        }
    }
}

async fn count(running: &Running) -> serde_json::Value {
    let event = json!({ "sql": "SELECT 1", "then": "count" });
    let invocation = running.invoke(event).await;
    invocation
        .json()
        .unwrap_or_else(|| panic!("{}", invocation.outcome))
}

#[tokio::test]
async fn transaction_with_dropped_statement_is_not_committed() {
    support::measures_time();
    for product in ["postgres", "mariadb"] {
        let world = Transactions::new(product).await;
        for close in ["always", "never"] {
            let running = world.start(close).await;
            let event = json!({ "sql": world.endless(), "then": "drop" });
            let from = Instant::now();
            let invocation = running.invoke(event).await;
            let (error_type, message) = error_of(&invocation);
            assert_eq!(error_type, "CommitFailed", "{product}/{close}: {message}");
            assert!(
                message.contains("a statement that the handler dropped"),
                "{message}"
            );
            assert!(
                from.elapsed() < NEVER_CANCELLED,
                "{product}/{close}: it waited"
            );
            is_cancelled(&world.database, product).await;
            assert_eq!(
                count(&running).await,
                0,
                "{product}/{close}: it is rolled back"
            );
            running.end().await;
        }
    }
}

/// The statement fails after it was dropped and before it would be cancelled.
#[tokio::test]
async fn failed_dropped_statement_is_named_in_error() {
    support::measures_time();
    let world = Transactions::new("postgres").await;
    let running = world.start("never").await;
    let event = json!({ "sql": "SELECT pg_sleep(0.25); SELECT 1 / 0", "then": "drop" });
    let invocation = running.invoke(event).await;
    let (error_type, message) = error_of(&invocation);
    assert_eq!(error_type, "CommitFailed", "{message}");
    assert!(message.contains("division by zero"), "{message}");
    assert!(!message.contains("connection was lost"), "{message}");
    running.end().await;
}

/// The statement has completed before the `COMMIT`, or the rest of its rows is on the wire.
#[tokio::test]
async fn completed_dropped_statement_is_committed() {
    support::measures_time();
    for product in ["postgres", "mariadb"] {
        let world = Transactions::new(product).await;
        let running = world.start("never").await;
        for rows in 1..=3 {
            let event = json!({ "sql": "INSERT INTO orders VALUES (1)", "then": "savepoint" });
            let invocation = running.invoke(event).await;
            assert!(
                invocation.is_answered(),
                "{product}: {}",
                invocation.outcome
            );
            assert_eq!(count(&running).await, rows, "{product}");
        }
        running.end().await;
    }
}

#[tokio::test]
async fn deadline_before_commit_reports_known_outcome() {
    support::measures_time();
    let world = Transactions::new("postgres").await;
    let function = Function::new(FUNCTION)
        .env("FUNCTION", TRANSACTION)
        .env("HANDLER", "postgres/always");
    let sandbox = Sandbox::new(function)
        .timeout(Duration::from_millis(1_500))
        .database("DATABASE_URL", world.database.url())
        .expect("a URL with a host");
    let running = Running::of(sandbox).await;
    // Dropped 100 ms before the handler is cancelled, and awaited until then.
    let event = json!({ "sql": world.endless(), "then": "drop_late" });
    let invocation = running.invoke(event).await;
    let (error_type, message) = error_of(&invocation);
    assert_eq!(error_type, "DeadlineExceeded", "{message}");
    assert!(!message.contains("may or may not"), "{message}");
    is_cancelled(&world.database, "deadline").await;
    running.end().await;
}
