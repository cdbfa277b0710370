//! A server at its connection limit: connecting is retried until `acquire_ms`, and then fails with an error that
//! says so. Connections are labelled with their function on the server.

use db_handler::{
    Error, LambdaEvent,
    credentials::Secret,
    db_handler,
    sqlx::{self, MySqlConnection, PgConnection},
};
use futures_util::future::join_all;
use std::{
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use support::{MariaDb, Postgres, wait_for};

/// Connections that PostgreSQL leaves for the tests: its `superuser_reserved_connections` are 3.
const ROOM: usize = 5;
/// The minimum of MariaDB's `max-connections`.
const ROOM_OF_MARIADB: usize = 10;

static SMALL_POSTGRES: LazyLock<Postgres> = LazyLock::new(|| {
    let limit = ROOM + 3;
    Postgres::builder()
        .setting("max_connections", limit.to_string())
        .start()
});
static SMALL_MARIADB: LazyLock<MariaDb> = LazyLock::new(|| {
    MariaDb::builder()
        .setting("max-connections", ROOM_OF_MARIADB.to_string())
        .start()
});

async fn in_postgres() -> Result<Secret, Error> {
    Ok(Secret::new(Postgres::PASSWORD)
        .user(Postgres::USER)
        .host("127.0.0.1")
        .port(SMALL_POSTGRES.port())
        .database("app"))
}

async fn in_mariadb() -> Result<Secret, Error> {
    Ok(Secret::new(MariaDb::PASSWORD)
        .user(MariaDb::USER)
        .host("127.0.0.1")
        .port(SMALL_MARIADB.port())
        .database("app"))
}

static IN_POSTGRES: AtomicUsize = AtomicUsize::new(0);
static IN_MARIADB: AtomicUsize = AtomicUsize::new(0);

/// Counts a handler that holds a connection.
struct In(&'static AtomicUsize);

impl In {
    fn new(count: &'static AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for In {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[db_handler(credentials = in_postgres, pool(max = 100, acquire_ms = 20000))]
async fn postgres(event: LambdaEvent<f64>, db: &mut PgConnection) -> Result<String, Error> {
    let _in = In::new(&IN_POSTGRES);
    sqlx::query("select pg_sleep($1)")
        .bind(event.payload)
        .execute(&mut *db)
        .await?;
    let label = sqlx::query_scalar(
        "select application_name from pg_stat_activity where pid = pg_backend_pid()",
    );
    Ok(label.fetch_one(db).await?)
}

#[db_handler(credentials = in_mariadb, pool(max = 100, acquire_ms = 20000))]
async fn mariadb(event: LambdaEvent<f64>, db: &mut MySqlConnection) -> Result<String, Error> {
    let _in = In::new(&IN_MARIADB);
    sqlx::query("select sleep(?)")
        .bind(event.payload)
        .execute(&mut *db)
        .await?;
    let (label, zone, mode): (String, String, String) =
        sqlx::query_as("select @db_handler, @@time_zone, @@sql_mode")
            .fetch_one(db)
            .await?;
    assert_eq!(zone, "+00:00", "as sqlx wants it");
    assert!(mode.contains("PIPES_AS_CONCAT"), "as sqlx wants it: {mode}");
    Ok(label)
}

#[db_handler(credentials = in_postgres, pool(max = 100, acquire_ms = 1000))]
async fn impatient_postgres(event: LambdaEvent<f64>, db: &mut PgConnection) -> Result<(), Error> {
    let _ = (event, db);
    Ok(())
}

#[db_handler(credentials = in_mariadb, pool(max = 100, acquire_ms = 1000))]
async fn impatient_mariadb(event: LambdaEvent<f64>, db: &mut MySqlConnection) -> Result<(), Error> {
    let _ = (event, db);
    Ok(())
}

fn event(seconds: f64) -> LambdaEvent<f64> {
    LambdaEvent::new(seconds, db_handler::Context::default())
}

/// Runs three times as many invocations as the server has connections, concurrently; then keeps the server full for
/// longer than `acquire_ms`.
macro_rules! test_full_server {
    ($name:ident, $server:ident, $holders:ident, $handler:ident, $impatient:ident, $room:ident) => {
        #[tokio::test]
        async fn $name() {
            support::measures_time();
            // Not part of what is measured.
            LazyLock::force(&$server);
            let labels = join_all((0..3 * $room).map(|_| $handler(event(0.1)))).await;
            for label in labels {
                let label = label.expect("in the end there is room");
                assert!(label.starts_with("it-"), "{label}");
            }

            $server.wait_until_connections(0).await;
            let holding = $room;
            let held = AtomicUsize::new(0);
            let hold = async {
                let ended = join_all((0..holding).map(|_| $handler(event(4.0)))).await;
                held.store(ended.len(), Ordering::Relaxed);
            };
            let turned_away = async {
                // The server's own list is not usable: reading it takes a connection.
                let holders = async || $holders.load(Ordering::Relaxed);
                wait_for("a full server", holders, |n| *n == holding).await;
                let started = Instant::now();
                let error = $impatient(event(0.0)).await.expect_err("there is no room");
                let took = started.elapsed();
                assert_eq!(
                    held.load(Ordering::Relaxed),
                    0,
                    "all of them still hold theirs"
                );
                (error, took)
            };
            let ((), (error, took)) = tokio::join!(hold, turned_away);
            println!("{error}");
            assert_eq!(error.error_type(), "TooManyConnections");
            let text = error.to_string();
            let (_, tries) = text.split_once("; refused ").expect("how often");
            let (times, within) = tries.split_once(" times within ").expect("how long");
            let times: u32 = times.parse().expect("a number");
            assert!((3..60).contains(&times), "{text}");
            let within: u64 = within
                .trim_end_matches(" ms")
                .parse()
                .expect("milliseconds");
            assert!((900..=1_100).contains(&within), "{text}");
            assert!(took < Duration::from_millis(2_000), "{took:?}");
        }
    };
}

test_full_server!(
    postgres_at_connection_limit_is_retried,
    SMALL_POSTGRES,
    IN_POSTGRES,
    postgres,
    impatient_postgres,
    ROOM
);
test_full_server!(
    mariadb_at_connection_limit_is_retried,
    SMALL_MARIADB,
    IN_MARIADB,
    mariadb,
    impatient_mariadb,
    ROOM_OF_MARIADB
);
