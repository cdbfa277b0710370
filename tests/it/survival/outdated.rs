//! A connection that the server considers outdated fails at most one invocation, however the handler treats the error.

use crate::world::{Product, Running, SERVERS, World, answers};
use db_handler::{
    Context, Error, LambdaEvent, PgDb,
    credentials::Secret,
    db_handler,
    sqlx::{
        self, Connection, Decode, Encode, PgConnection, PgPool, PgTransaction, Type,
        encode::IsNull,
        error::BoxDynError,
        postgres::{PgArgumentBuffer, PgTypeInfo, PgValueRef},
    },
};
use sandbox::{Function, Outcome, Sandbox};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};
use support::{Database, MariaDb, Postgres, postgres, wait_for};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

const KINDS: [&str; 4] = ["db", "pool", "single", "transaction"];

/// Invokes three times. One invocation may fail; returns the type and message of its error.
async fn fails_once(running: &Running, steps: Value, place: &str) -> Option<(String, String)> {
    let mut failures = Vec::new();
    for number in 0..3 {
        let invocation = running.invoke(steps.clone()).await;
        match invocation.outcome {
            Outcome::Failed {
                error_type,
                message,
            } => failures.push((number, error_type, message)),
            _ => drop(answers(&invocation, &steps)),
        }
    }
    assert!(failures.len() <= 1, "{place}: {failures:?}");
    failures
        .pop()
        .map(|(_, error_type, message)| (error_type, message))
}

#[tokio::test]
async fn alter_table_fails_at_most_one_invocation() {
    support::measures_time();
    for product in SERVERS {
        let world = World::new(product).await;
        world
            .prepare("CREATE TABLE orders (item VARCHAR(20)); INSERT INTO orders VALUES ('tea')")
            .await;
        for (number, kind) in KINDS.into_iter().enumerate() {
            let place = format!("{product:?}/{kind}");
            let running = world.start(kind, "steady_never").await;
            let select = json!([{ "ask": "SELECT * FROM orders" }]);
            running.succeed(select.clone()).await;
            running.succeed(select.clone()).await;
            world
                .prepare(&format!("ALTER TABLE orders ADD COLUMN more{number} INT"))
                .await;
            let failure = fails_once(&running, select, &place).await;
            if product == Product::Postgres {
                let (error_type, text) = failure.unwrap_or_else(|| panic!("{place}: no failure"));
                assert_eq!(error_type, "Query", "{place}: {text}");
                assert!(text.contains("cached plan"), "{place}: {text}");
                assert!(text.contains("replaced"), "{place}: {text}");
            }
            running.end().await;
        }
    }
}

/// A step that queries on the handler's own connection and ignores an error.
fn caught(product: Product, kind: &str, sql: &str) -> Value {
    match kind {
        "db" => json!({ "guard_caught": sql }),
        // Without the inner transaction, it could not commit.
        "transaction" if product == Product::Postgres => json!({ "inner_caught": sql }),
        _ => json!({ "caught": sql }),
    }
}

/// Invokes four times and counts failed queries.
async fn failures(running: &Running, step: &Value) -> usize {
    let mut failures = 0;
    for _ in 0..4 {
        let answers = running.succeed(json!([step])).await;
        failures += usize::from(answers[0] == json!(false));
    }
    failures
}

#[tokio::test]
async fn ignored_error_fails_at_most_one_invocation() {
    support::measures_time();
    let world = World::new(Product::Postgres).await;
    world
        .prepare("CREATE TABLE orders (item TEXT); INSERT INTO orders VALUES ('tea')")
        .await;
    for (number, kind) in KINDS.into_iter().enumerate() {
        let running = world.start(kind, "steady_never").await;
        let step = caught(Product::Postgres, kind, "SELECT * FROM orders");
        assert_eq!(failures(&running, &step).await, 0, "{kind}");
        let alter = format!("ALTER TABLE orders ADD COLUMN more{number} INT");
        world.prepare(&alter).await;
        assert_eq!(failures(&running, &step).await, 1, "{kind}");
        let forget = json!({ "run": "DEALLOCATE ALL" });
        running.succeed(json!([forget])).await;
        assert!(failures(&running, &step).await <= 1, "{kind}");
        running.end().await;
    }
}

/// Other connections have prepared the same statement: they do not fail one after the other.
#[tokio::test]
async fn caught_failure_replaces_every_connection() {
    support::measures_time();
    let world = World::new(Product::Postgres).await;
    world
        .prepare("CREATE TABLE orders (item TEXT); INSERT INTO orders VALUES ('tea')")
        .await;
    let select = "SELECT * FROM orders";
    for (number, kind) in ["db", "pool"].into_iter().enumerate() {
        let step = caught(world.product, kind, select);
        let running = world.start(kind, "wide_never").await;
        let guards = json!({ "guards": { "count": 4, "sql": select } });
        running.succeed(json!([guards])).await;
        let alter = format!("ALTER TABLE orders ADD COLUMN more{number} INT");
        world.prepare(&alter).await;
        assert_eq!(failures(&running, &step).await, 1, "{kind}");
        running.end().await;
    }
}

/// Returns how many of 30 statements are still prepared after as many invocations, and how many connections were opened.
async fn prepared_by_30_invocations(world: &World, kind: &str) -> (Value, usize) {
    let running = world.start(kind, "steady_never").await;
    for number in 0..30 {
        let step = caught(world.product, kind, &format!("SELECT 'number {number}'"));
        running.succeed(json!([step])).await;
    }
    let prepared =
        "SELECT count(*)::text FROM pg_prepared_statements WHERE statement LIKE 'SELECT ''number%'";
    let prepared = running.ask(prepared).await;
    let opened = running.opened();
    running.end().await;
    (prepared, opened)
}

/// Statements stay prepared across invocations that do not use them.
#[tokio::test]
async fn accepted_statements_stay_prepared() {
    support::measures_time();
    let world = World::new(Product::Postgres).await;
    for kind in KINDS {
        let (prepared, opened) = prepared_by_30_invocations(&world, kind).await;
        assert_eq!(prepared, "30", "{kind}");
        assert_eq!(opened, 1, "{kind}");
    }
}

/// An enum that is both a parameter and a column.
#[derive(Debug, PartialEq)]
struct Mood(String);

impl Type<sqlx::Postgres> for Mood {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("mood")
    }
}

impl Encode<'_, sqlx::Postgres> for Mood {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<sqlx::Postgres>::encode_by_ref(&self.0, buffer)
    }
}

impl<'r> Decode<'r, sqlx::Postgres> for Mood {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        Decode::<sqlx::Postgres>::decode(value).map(Self)
    }
}

static MOODS: OnceLock<Database> = OnceLock::new();

async fn moods() -> Result<Secret, Error> {
    Ok(Secret::new(Postgres::PASSWORD)
        .user(Postgres::USER)
        .host("127.0.0.1")
        .port(postgres().port())
        .database(MOODS.get().expect("created").name()))
}

const FEEL: &str = "INSERT INTO moods VALUES ($1) RETURNING mood";

/// An error type without access to its source.
#[derive(Debug)]
enum ShopError {
    Sql(#[allow(dead_code, reason = "for a debugger's eyes")] sqlx::Error),
    Lifecycle(#[allow(dead_code, reason = "for a debugger's eyes")] Error),
}

impl From<sqlx::Error> for ShopError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Error> for ShopError {
    fn from(error: Error) -> Self {
        Self::Lifecycle(error)
    }
}

macro_rules! feel {
    ($name:ident, $error:ty, $db:ident: $($resource:tt)+) => {
        #[db_handler(credentials = moods, close = "never", pool(acquire_ms = 5_000))]
        async fn $name(event: LambdaEvent<()>, $db: $($resource)+) -> Result<Mood, $error> {
            let _ = event;
            let mood = sqlx::query_scalar(FEEL).bind(Mood("happy".to_owned()));
            Ok(mood.fetch_one(feel!(@executor $name $db)).await?)
        }
    };
    (@executor with_transaction $db:ident) => { &mut **$db };
    (@executor opaque_transaction $db:ident) => { &mut **$db };
    (@executor $name:ident $db:ident) => { $db };
}

feel!(with_db, Error, db: &PgDb);
feel!(with_pool, Error, db: &PgPool);
feel!(with_single, Error, db: &mut PgConnection);
feel!(with_transaction, Error, db: &mut PgTransaction<'_>);
feel!(opaque_pool, ShopError, db: &PgPool);
feel!(opaque_single, ShopError, db: &mut PgConnection);
feel!(opaque_transaction, ShopError, db: &mut PgTransaction<'_>);

/// Keeps only the text of the driver's error.
#[db_handler(credentials = moods, close = "never", pool(acquire_ms = 5_000))]
async fn told_as_text(event: LambdaEvent<()>, db: &PgPool) -> Result<Mood, BoxDynError> {
    let _ = event;
    let mood = sqlx::query_scalar(FEEL).bind(Mood("happy".to_owned()));
    let mood = mood.fetch_one(db).await;
    Ok(mood.map_err(|error| format!("cannot feel: {error}"))?)
}

/// Ignores the error, so that the commit fails.
#[db_handler(credentials = moods, close = "never", pool(acquire_ms = 5_000))]
async fn passed_over(event: LambdaEvent<()>, db: &mut PgTransaction<'_>) -> Result<Mood, Error> {
    let _ = event;
    let mood = sqlx::query_scalar(FEEL).bind(Mood("happy".to_owned()));
    let mood = mood.fetch_one(&mut **db).await;
    Ok(mood.unwrap_or(Mood("sad".to_owned())))
}

/// The handler's result after a failed query.
const NUMB: &str = "numb";

macro_rules! gets_over_it {
    ($name:ident, $db:ident: $resource:ty, $executor:expr) => {
        #[db_handler(
                                                    credentials = moods,
                                                    close = "never",
                                                    pool(acquire_ms = 5_000),
                                                    check(trust_ms = 60_000, ping_ms = 5_000),
                                                    deadline(reserve_ms = 5_000)
                                                )]
        async fn $name(event: LambdaEvent<()>, $db: $resource) -> Result<Mood, Error> {
            let _ = event;
            let mood = sqlx::query_scalar(FEEL).bind(Mood("happy".to_owned()));
            let mood = mood.fetch_one($executor).await;
            Ok(mood.unwrap_or(Mood(NUMB.to_owned())))
        }
    };
}

gets_over_it!(numb_pool, db: &PgPool, db);
gets_over_it!(numb_single, db: &mut PgConnection, db);
gets_over_it!(numb_guard, db: &PgDb, &mut *db.acquire().await?);

#[tokio::test]
async fn recreated_enum_fails_at_most_one_invocation() {
    support::measures_time();
    let database = postgres().fresh_database().await;
    let mut admin = PgConnection::connect(database.url()).await.expect("in");
    MOODS.set(database).expect("the first");
    let create = "CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TABLE moods (mood mood)";
    run(&mut admin, create).await;
    macro_rules! fails_once {
        ($handler:ident) => {{
            let feel = || $handler(LambdaEvent::new((), Context::default()));
            let happy = Mood("happy".to_owned());
            assert_eq!(feel().await.expect("before"), happy);
            assert_eq!(feel().await.expect("before"), happy);
            run(&mut admin, "DROP TABLE moods; DROP TYPE mood").await;
            run(&mut admin, create).await;
            let results = [feel().await, feel().await, feel().await];
            let failures = results.iter().filter(|result| result.is_err()).count();
            assert!(failures <= 1, "{}: {results:?}", stringify!($handler));
        }};
    }
    fails_once!(with_db);
    fails_once!(with_pool);
    fails_once!(with_single);
    fails_once!(with_transaction);
    fails_once!(opaque_pool);
    fails_once!(opaque_single);
    fails_once!(opaque_transaction);
    fails_once!(told_as_text);
    fails_once!(passed_over);
    macro_rules! is_numb_once {
        ($handler:ident) => {{
            let feel = || $handler(LambdaEvent::new((), Context::default()));
            let numb = Mood(NUMB.to_owned());
            assert_ne!(feel().await.expect("before"), numb);
            assert_ne!(feel().await.expect("before"), numb);
            run(&mut admin, "DROP TABLE moods; DROP TYPE mood").await;
            run(&mut admin, create).await;
            let results = [feel().await, feel().await, feel().await];
            let failures = results
                .iter()
                .flatten()
                .filter(|mood| **mood == numb)
                .count();
            assert_eq!(failures, 1, "{}: {results:?}", stringify!($handler));
        }};
    }
    is_numb_once!(numb_pool);
    is_numb_once!(numb_single);
    is_numb_once!(numb_guard);
    db_handler::shutdown().await;
}

/// A second query in the same invocation gets another connection.
#[tokio::test]
async fn second_query_in_same_invocation_succeeds() {
    support::measures_time();
    let world = World::new(Product::Postgres).await;
    let running = world.start("db", "never").await;
    let forget = json!({ "run": "DEALLOCATE ALL" });
    let ask = json!({ "ask": Product::Postgres.session() });
    running.succeed(json!([ask])).await;
    let caught = json!({ "caught": Product::Postgres.session() });
    running.succeed(json!([forget, caught, ask])).await;
    running.succeed(json!([ask])).await;
    running.end().await;
}

/// Raised by hand: no MySQL of a version with this code is available.
#[tokio::test]
async fn read_only_errors_replace_connections() {
    support::measures_time();
    let cases = [
        (
            Product::Postgres,
            "DO $$ BEGIN RAISE EXCEPTION 'cannot execute INSERT in a read-only transaction' USING ERRCODE = '25006'; END $$",
        ),
        (
            Product::MariaDb,
            "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1836, MESSAGE_TEXT = 'Running in read-only mode'",
        ),
        (
            Product::MariaDb,
            "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1290, MESSAGE_TEXT = \
             'The MySQL server is running with the --super-read-only option so it cannot execute this statement'",
        ),
    ];
    for (product, sql) in cases {
        let world = World::new(product).await;
        for kind in KINDS {
            let place = format!("{product:?}/{kind}");
            let running = world.start(kind, "steady_never").await;
            let before = running.ask(product.session()).await;
            let (error_type, text) = running.fail(json!([{ "run": sql }])).await;
            assert_eq!(error_type, "ReadOnly", "{place}: {text}");
            let after = running.ask(product.session()).await;
            assert_ne!(before, after, "{place}");
            running.end().await;
        }
    }
}

/// The same error code for an unrelated option is an ordinary error.
#[tokio::test]
async fn unrelated_option_error_does_not_replace_connections() {
    support::measures_time();
    let world = World::new(Product::MariaDb).await;
    let running = world.start("db", "never").await;
    let before = running.ask(world.product.session()).await;
    let sql = "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1290, MESSAGE_TEXT = \
               'The MariaDB server is running with the --secure-file-priv option'";
    let (error_type, _) = running.fail(json!([{ "run": sql }])).await;
    assert_eq!(error_type, "Query");
    assert_eq!(running.ask(world.product.session()).await, before);
    running.end().await;
}

/// An endpoint that points to another server after a failover.
struct Endpoint {
    address: SocketAddr,
    leads_to: Arc<Mutex<u16>>,
}

impl Endpoint {
    async fn leading_to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let leads_to = Arc::new(Mutex::new(port));
        let now = Arc::clone(&leads_to);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let port = *now.lock().expect("nobody panics");
                tokio::spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await {
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Self { address, leads_to }
    }

    fn url(&self, database: &Database, port: u16) -> String {
        let (from, to) = (format!(":{port}/"), format!(":{}/", self.address.port()));
        database.url().replacen(&from, &to, 1)
    }

    fn leads_to(&self, port: u16) {
        *self.leads_to.lock().expect("nobody panics") = port;
    }
}

async fn failed_over(
    product: Product,
    database: &Database,
    (writer, next_writer): (u16, u16),
    demote: impl AsyncFn(bool),
) {
    for kind in KINDS {
        let place = format!("{product:?}/{kind}");
        let endpoint = Endpoint::leading_to(writer).await;
        let handler = format!("{}/{kind}/steady_never", product.name());
        let start = async || {
            let function = Function::new(crate::FUNCTION)
                .env("FUNCTION", "survival")
                .env("HANDLER", &handler);
            let sandbox = Sandbox::new(function)
                .name(handler.as_str())
                .timeout(Duration::from_secs(10))
                .database("DATABASE_URL", &endpoint.url(database, writer))
                .expect("a URL with a host");
            Running::of(sandbox).await
        };
        let running = start().await;
        let insert = json!([{ "run": "INSERT INTO orders VALUES (1)" }]);
        running.succeed(insert.clone()).await;
        running.succeed(insert.clone()).await;
        demote(true).await;
        endpoint.leads_to(next_writer);
        let failure = fails_once(&running, insert, &place).await;
        let (error_type, text) = failure.unwrap_or_else(|| panic!("{place}: no failure"));
        assert_eq!(error_type, "ReadOnly", "{place}: {text}");
        assert!(text.contains("failover"), "{place}: {text}");
        demote(false).await;
        endpoint.leads_to(writer);
        running.end().await;

        let running = start().await;
        let insert = caught(
            product,
            kind,
            match product {
                Product::Postgres => "INSERT INTO orders VALUES (1) RETURNING id::text",
                _ => "INSERT INTO orders VALUES (1) RETURNING CAST(id AS CHAR)",
            },
        );
        assert_eq!(failures(&running, &insert).await, 0, "{place}");
        demote(true).await;
        endpoint.leads_to(next_writer);
        let failures = failures(&running, &insert).await;
        assert_eq!(failures, 1, "{place}");
        demote(false).await;
        running.end().await;
    }
}

#[tokio::test]
async fn demoted_postgres_writer_fails_at_most_one_invocation() {
    support::measures_time();
    let servers = [Postgres::builder().start(), Postgres::builder().start()];
    let mut databases = Vec::new();
    for server in &servers {
        let database = server.fresh_database().await;
        World::of(Product::Postgres, Some(database.clone()))
            .prepare("CREATE TABLE orders (id INT)")
            .await;
        databases.push(database);
    }
    assert_eq!(databases[0].name(), databases[1].name());
    let demote = async |demoted: bool| {
        let mut admin = servers[0].admin().await;
        let value = if demoted { "on" } else { "off" };
        run(
            &mut admin,
            &format!("ALTER SYSTEM SET default_transaction_read_only = {value}"),
        )
        .await;
        run(&mut admin, "SELECT pg_reload_conf()").await;
        // The server notifies its sessions with a delay.
        let seen = async || {
            let seen = sqlx::query_scalar("SHOW default_transaction_read_only");
            let seen: String = seen.fetch_one(&mut admin).await.expect("a setting");
            seen
        };
        wait_for("the new setting", seen, |seen| seen == value).await;
    };
    let ports = (servers[0].port(), servers[1].port());
    failed_over(Product::Postgres, &databases[0], ports, demote).await;
}

#[tokio::test]
async fn demoted_mariadb_writer_fails_at_most_one_invocation() {
    support::measures_time();
    let servers = [MariaDb::builder().start(), MariaDb::builder().start()];
    let mut databases = Vec::new();
    for server in &servers {
        let database = server.fresh_database().await;
        World::of(Product::MariaDb, Some(database.clone()))
            .prepare("CREATE TABLE orders (id INT)")
            .await;
        databases.push(database);
    }
    assert_eq!(databases[0].name(), databases[1].name());
    let demote = async |demoted: bool| {
        let mut admin = servers[0].admin().await;
        let value = u8::from(demoted);
        run(&mut admin, &format!("SET GLOBAL read_only = {value}")).await;
    };
    let ports = (servers[0].port(), servers[1].port());
    failed_over(Product::MariaDb, &databases[0], ports, demote).await;
}

async fn run<'c, E: sqlx::Executor<'c>>(executor: E, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
        .execute(executor)
        .await
        .expect("done");
}
