//! A killed process cannot cancel its queries: the server detects that the client is gone.

use crate::FUNCTION;
use crate::world::{KINDS, Product, World};
use db_handler::config::{
    CLIENT_CHECK, DEFAULT_KEPT_IDLE, KEEPALIVE_COUNT, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL,
    WAIT_TIMEOUT,
};
use serde_json::json;
use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};
use support::{
    PgBouncer, Pooler,
    caller::{call, local},
    postgres, wait_for,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::sleep,
};

const SETTINGS: &str = "SELECT concat_ws(' ', current_setting('client_connection_check_interval'), \
     current_setting('tcp_keepalives_idle'), current_setting('tcp_keepalives_interval'), \
     current_setting('tcp_keepalives_count'))";

fn settings(idle: Duration) -> String {
    let (idle, interval) = (idle.as_secs(), KEEPALIVE_INTERVAL.as_secs());
    format!(
        "{}s {idle} {interval} {KEEPALIVE_COUNT}",
        CLIENT_CHECK.as_secs()
    )
}

#[tokio::test]
async fn query_of_killed_process_ends_within_one_minute() {
    support::waits();
    for kind in KINDS {
        let database = postgres().fresh_database().await;
        let function = local(Path::new(FUNCTION))
            .env("FUNCTION", "survival")
            .env("HANDLER", format!("postgres/{kind}/never"))
            .env("DATABASE_URL", database.url())
            .arg(json!([{ "ask": "SELECT pg_sleep(600)::text" }]).to_string())
            .start();
        database.wait_until_running(1).await;
        let from = Instant::now();
        function.signal("KILL").await;
        wait_for(
            "the query's end",
            async || database.running_queries().await,
            Vec::is_empty,
        )
        .await;
        assert!(from.elapsed() < Duration::from_mins(1), "{kind}");
    }
}

/// A relay whose machine can disappear.
struct Relay {
    process: Child,
    output: Lines<BufReader<ChildStdout>>,
    port: u16,
}

impl Relay {
    async fn before(server: u16) -> Self {
        let mut process = Command::new("python3")
            .args(["-c", include_str!("silent_relay.py")])
            .arg(server.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python3 is installed, as for MongoDB's stand-in");
        let mut output = BufReader::new(process.stdout.take().expect("piped")).lines();
        let port = output.next_line().await.expect("a line").expect("a line");
        Self {
            process,
            output,
            port: port.parse().expect("its port"),
        }
    }

    async fn vanish(&mut self) {
        let mut input = self.process.stdin.take().expect("piped");
        input.write_all(b"\n").await.expect("it reads");
        let said = self.output.next_line().await.expect("a line");
        assert_eq!(said.as_deref(), Some("silent"));
    }
}

/// No FIN, reset or acknowledgement: only TCP keepalive detects this.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn query_on_silent_network_ends_within_one_minute() {
    support::waits();
    let database = postgres().fresh_database().await;
    let mut relay = Relay::before(postgres().port()).await;
    let (there, here) = (
        format!(":{}/", postgres().port()),
        format!(":{}/", relay.port),
    );
    let _function = local(Path::new(FUNCTION))
        .env("FUNCTION", "survival")
        .env("HANDLER", "postgres/db/always")
        .env("DATABASE_URL", database.url().replace(&there, &here))
        .arg(json!([{ "ask": "SELECT pg_sleep(600)::text" }]).to_string())
        .start();
    database.wait_until_running(1).await;
    relay.vanish().await;
    let from = Instant::now();
    while !database.running_queries().await.is_empty() {
        assert!(
            from.elapsed() < Duration::from_mins(1),
            "silent for {:?}",
            from.elapsed()
        );
        sleep(Duration::from_millis(100)).await;
    }
}

/// The keepalive settings detect a silent network within one minute.
#[tokio::test]
async fn sessions_have_client_checks_from_the_first_one() {
    support::waits();
    assert!(KEEPALIVE_IDLE + KEEPALIVE_INTERVAL * KEEPALIVE_COUNT < Duration::from_mins(1));
    for kind in KINDS {
        let world = World::new(Product::Postgres).await;
        for (close, idle) in [
            ("always", KEEPALIVE_IDLE),
            // A frozen environment does not reply, but is not lost.
            ("never", KEEPALIVE_IDLE + DEFAULT_KEPT_IDLE),
        ] {
            let running = world.start(kind, close).await;
            for _ in 0..3 {
                assert_eq!(
                    running.ask(SETTINGS).await,
                    settings(idle),
                    "{kind}/{close}"
                );
            }
            running.end().await;
        }
    }
}

/// Idle sessions without a client release their locks in the end.
#[tokio::test]
async fn mysql_sessions_have_idle_timeout() {
    support::waits();
    for kind in KINDS {
        let world = World::new(Product::MariaDb).await;
        for (close, idle) in [
            ("always", WAIT_TIMEOUT),
            ("never", WAIT_TIMEOUT + DEFAULT_KEPT_IDLE),
        ] {
            let running = world.start(kind, close).await;
            for _ in 0..2 {
                let asked = running.ask("SELECT CAST(@@wait_timeout AS CHAR)").await;
                assert_eq!(asked, idle.as_secs().to_string(), "{kind}/{close}");
            }
            running.end().await;
        }
    }
}

#[tokio::test]
async fn settings_in_url_take_precedence() {
    support::waits();
    for kind in KINDS {
        let database = postgres().fresh_database().await;
        let url = format!(
            "{}&options=-c%20client_connection_check_interval%3D7s%20-c%20tcp_keepalives_idle%3D9",
            database.url()
        );
        let url = if database.url().contains('?') {
            url
        } else {
            url.replacen('&', "?", 1)
        };
        let events = [json!([{ "ask": SETTINGS }]), json!([{ "ask": SETTINGS }])];
        let function = local(Path::new(FUNCTION))
            .env("FUNCTION", "survival")
            .env("HANDLER", format!("postgres/{kind}/always"))
            .env("DATABASE_URL", url);
        let called = call(function, &events).await;
        let expected = format!("7s 9 {} {KEEPALIVE_COUNT}", KEEPALIVE_INTERVAL.as_secs());
        assert_eq!(
            called.answers,
            [json!([expected]), json!([expected])],
            "{kind}"
        );
    }
}

/// An undeclared pooler rejects unknown startup parameters, which are then omitted.
#[tokio::test]
async fn rejected_settings_are_omitted() {
    support::waits();
    let server = support::Postgres::builder().start();
    let database = server.fresh_database().await;
    let bouncer = PgBouncer::start(Pooler::Session, &server, 5, 50);
    for kind in KINDS {
        let question = json!([{ "ask": "SELECT 'served'" }]);
        let events = [question.clone(), question.clone(), question];
        let function = local(Path::new(FUNCTION))
            .env("FUNCTION", "survival")
            .env("HANDLER", format!("postgres/{kind}/always"))
            .env("DATABASE_URL", bouncer.url(&database));
        let called = call(function, &events).await;
        let reply = json!(["served"]);
        assert_eq!(
            called.answers,
            [reply.clone(), reply.clone(), reply],
            "{kind}: {}",
            called.log
        );
    }
}
