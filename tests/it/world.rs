//! Databases, handlers and platforms of these tests.

use crate::FUNCTION;
use db_handler::config::CANCEL_TIMEOUT;
use sandbox::{Environment, Fault, Function, Invocation, Outcome, Sandbox};
use serde_json::{Value, json};
use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};
use support::{Database, MariaDb, Postgres, mariadb, postgres, wait_for};
use tempfile::TempDir;

/// The function's result for a query that it dropped.
pub(crate) const DROPPED: &str = "dropped";

/// A statement that every database rejects immediately.
pub(crate) const REFUSED: &str = "SELECT no_such_column";

/// Tolerance for a busy machine.
pub(crate) const SLACK: Duration = Duration::from_millis(150);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Product {
    Postgres,
    MariaDb,
    Sqlite,
}

use Product::{MariaDb as Maria, Postgres as Pg, Sqlite};

pub(crate) const PRODUCTS: [Product; 3] = [Pg, Maria, Sqlite];
pub(crate) const SERVERS: [Product; 2] = [Pg, Maria];
pub(crate) const KINDS: [&str; 3] = ["db", "pool", "single"];

impl Product {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Pg => "postgres",
            Maria => "mariadb",
            Sqlite => "sqlite",
        }
    }

    /// A query that identifies the session.
    pub(crate) fn session(self) -> &'static str {
        match self {
            Pg => "SELECT pg_backend_pid()::text",
            Maria => "SELECT CAST(connection_id() AS CHAR)",
            // Counts rows written since the connection was opened, and so identifies it.
            Sqlite => "SELECT CAST(total_changes() AS TEXT)",
        }
    }

    /// A query that runs until it is cancelled, at most 30 s.
    pub(crate) fn endless(self) -> &'static str {
        match self {
            Pg => "SELECT pg_sleep(30)::text",
            Maria => "SELECT CAST(sleep(30) AS CHAR)",
            Sqlite => {
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 2000000000) \
                 SELECT CAST(count(*) AS TEXT) FROM n"
            }
        }
    }

    /// A statement during which the server ends the connection that runs it.
    pub(crate) fn ending_its_connection(self) -> &'static str {
        match self {
            Pg => "SELECT pg_terminate_backend(pg_backend_pid())::text",
            Maria => "KILL CONNECTION_ID()",
            Sqlite => unreachable!("there is no server"),
        }
    }

    /// A query with many rows. The first arrives immediately, the last one late.
    pub(crate) fn rows(self) -> &'static str {
        match self {
            Pg => "SELECT i, repeat('x', 1000) FROM generate_series(1, 200000) AS t(i)",
            Maria => "SELECT seq, repeat('x', 1000) FROM seq_1_to_200000",
            Sqlite => {
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200000) \
                 SELECT i, hex(zeroblob(500)) FROM n"
            }
        }
    }
}

/// An empty database, and the log of the functions that use it.
pub(crate) struct World {
    pub(crate) product: Product,
    database: Option<Database>,
    folder: TempDir,
}

impl World {
    pub(crate) async fn new(product: Product) -> Self {
        let database = match product {
            Pg => Some(postgres().fresh_database().await),
            Maria => Some(mariadb().fresh_database().await),
            Sqlite => None,
        };
        Self::of(product, database)
    }

    pub(crate) fn of(product: Product, database: Option<Database>) -> Self {
        Self {
            product,
            database,
            folder: tempfile::tempdir().expect("room for a folder"),
        }
    }

    /// The database on its server.
    pub(crate) fn server(&self) -> &Database {
        self.database.as_ref().expect("a database with a server")
    }

    /// A platform for a handler: `kind` is `db`, `pool` or `single`.
    pub(crate) fn sandbox(&self, kind: &str, close: &str) -> Sandbox {
        match &self.database {
            Some(database) => self
                .sandbox_with(kind, close, |function| function)
                .database("DATABASE_URL", database.url())
                .expect("a URL with a host"),
            None => self.sandbox_with(kind, close, |function| {
                function.env("DATABASE_URL", self.sqlite_url())
            }),
        }
    }

    /// The same, with a function that `add` completes.
    pub(crate) fn sandbox_with(
        &self,
        kind: &str,
        close: &str,
        add: impl FnOnce(Function) -> Function,
    ) -> Sandbox {
        let handler = format!("{}/{kind}/{close}", self.product.name());
        let function = Function::new(FUNCTION)
            .env("FUNCTION", "survival")
            .env("HANDLER", &handler)
            .env("LOG", self.log_file());
        Sandbox::new(add(function))
            .name(handler.as_str())
            .timeout(Duration::from_secs(10))
    }

    pub(crate) fn sqlite_url(&self) -> String {
        let file = self.folder.path().join("shop.db");
        format!("sqlite://{}?mode=rwc", file.display())
    }

    pub(crate) async fn start(&self, kind: &str, close: &str) -> Running {
        Running::of(self.sandbox(kind, close)).await
    }

    /// Sets the database up, through a separate handler.
    pub(crate) async fn prepare(&self, sql: &str) {
        let running = self.start("db", "always").await;
        running.succeed(json!([{ "run": sql }])).await;
        running.end().await;
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// The log of all functions.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn warnings(&self) -> String {
        let log = self.log();
        let ours = log.lines().filter(|line| line.contains("db_handler"));
        ours.collect::<Vec<&str>>().join("\n")
    }

    /// The last warnings and errors of this project.
    pub(crate) fn last_words(&self, lines: usize) -> String {
        let warnings = self.warnings();
        let serious = |line: &&str| line.contains(" WARN ") || line.contains("ERROR ");
        let all: Vec<&str> = warnings.lines().filter(serious).collect();
        all[all.len().saturating_sub(lines)..].join("\n  ")
    }

    pub(crate) async fn wait_for_log(&self, text: &str) {
        let what = format!("the function to log {text:?}");
        wait_for(&what, async || self.log(), |log| log.contains(text)).await;
    }

    /// Asserts that no query runs on the server, once the cancel request has arrived.
    pub(crate) async fn nothing_runs(&self, place: &str) {
        let Some(database) = &self.database else {
            return;
        };
        let until = Instant::now() + CANCEL_TIMEOUT + SLACK;
        loop {
            let running = database.running_queries().await;
            if running.is_empty() {
                return;
            }
            assert!(
                Instant::now() < until,
                "{place}: {running:?} still runs; the function says:\n{}",
                self.warnings()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Asserts that the log contains no password.
    pub(crate) fn nothing_secret(&self) {
        let log = self.log();
        for password in [Postgres::PASSWORD, MariaDb::PASSWORD] {
            let line = log.lines().find(|line| line.contains(password));
            assert_eq!(line, None, "a password in the log");
        }
    }
}

/// A running function.
pub(crate) struct Running(pub(crate) Environment);

impl Running {
    pub(crate) async fn of(sandbox: Sandbox) -> Self {
        Self(sandbox.start().await.expect("the function starts"))
    }

    pub(crate) async fn invoke(&self, steps: Value) -> Invocation {
        self.0.invoke(steps).await
    }

    /// Runs the steps, none of which may fail, and returns their results.
    pub(crate) async fn succeed(&self, steps: Value) -> Vec<Value> {
        let invocation = self.invoke(steps.clone()).await;
        answers(&invocation, &steps)
    }

    /// Runs one query and returns its result.
    pub(crate) async fn ask(&self, sql: &str) -> Value {
        let mut answers = self.succeed(json!([{ "ask": sql }])).await;
        answers.remove(0)
    }

    /// Runs the steps, which must fail, and returns the error's type and message.
    pub(crate) async fn fail(&self, steps: Value) -> (String, String) {
        let invocation = self.invoke(steps.clone()).await;
        match invocation.outcome {
            Outcome::Failed {
                error_type,
                message,
            } => (error_type, message),
            other => panic!("{steps} did not fail: {other}"),
        }
    }

    /// Keeps the environment frozen for `pause`.
    pub(crate) async fn stand_still(&self, pause: Duration) {
        assert!(self.0.stands_still_for(pause).await, "it moves");
    }

    /// Restores the network, and waits until its port accepts connections.
    pub(crate) async fn heal(&self) {
        self.0.apply(Fault::Heal);
        for network in self.0.networks() {
            let addr = network.addr();
            let open = async || tokio::net::TcpStream::connect(addr).await.is_ok();
            wait_for("the proxy's port", open, |open| *open).await;
        }
    }

    /// The number of connections opened so far.
    pub(crate) fn opened(&self) -> usize {
        let opened = self.0.networks().iter().map(|one| one.stats().opened);
        opened.sum()
    }

    pub(crate) async fn end(self) {
        self.0.shutdown().await;
    }
}

pub(crate) fn answers(invocation: &Invocation, steps: &Value) -> Vec<Value> {
    let answers = invocation.json().and_then(|answers| match answers {
        Value::Array(answers) => Some(answers),
        _ => None,
    });
    answers.unwrap_or_else(|| panic!("{steps}: {}", invocation.outcome))
}
