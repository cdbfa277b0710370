//! Tests of the support library that the other tests use.

use crate::FUNCTION;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use sqlx::{Connection, MySqlConnection, PgConnection};
use support::function::Function;
use support::runtime_api::{Call, RuntimeApi};
use support::{
    MariaDb, Postgres, free_port, mariadb, postgres, refused_port, silent_listener, wait_for,
};

const SECOND: Duration = Duration::from_secs(1);

// --- PostgreSQL ---

#[tokio::test]
async fn postgres_accepts_url_with_and_without_tls() {
    let database = postgres().fresh_database().await;
    for (url, encrypted) in [(database.url(), false), (database.tls_url(), true)] {
        let mut connection = PgConnection::connect(url).await.expect("the url connects");
        let query =
            "select ssl, current_database()::text from pg_stat_ssl where pid = pg_backend_pid()";
        let (ssl, name): (bool, String) = sqlx::query_as(query)
            .fetch_one(&mut connection)
            .await
            .expect("an answer");
        assert_eq!((ssl, name.as_str()), (encrypted, database.name()), "{url}");
    }
}

#[tokio::test]
async fn postgres_rejects_wrong_password() {
    let wrong = postgres().url().replace(Postgres::PASSWORD, "wrong");
    let error = PgConnection::connect(&wrong)
        .await
        .expect_err("a wrong password");
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    assert_eq!(code.as_deref(), Some("28P01"), "{error}");
}

#[tokio::test]
async fn postgres_databases_are_isolated_and_counted_separately() {
    let (one, two) = (
        postgres().fresh_database().await,
        postgres().fresh_database().await,
    );
    let mut in_one = PgConnection::connect(one.url())
        .await
        .expect("the url connects");
    sqlx::query("create table t ()")
        .execute(&mut in_one)
        .await
        .expect("the owner may create");
    let mut in_two = PgConnection::connect(two.url())
        .await
        .expect("the url connects");
    sqlx::query("select from t")
        .execute(&mut in_two)
        .await
        .expect_err("the table of another database");
    let _second = PgConnection::connect(two.url())
        .await
        .expect("the url connects");

    assert_eq!((one.connections().await, two.connections().await), (1, 2));
    in_one.close().await.expect("a goodbye");
    one.wait_until_connections(0).await;
    assert_eq!(two.connections().await, 2);
    assert_eq!(two.terminate_connections().await, 2);
    two.wait_until_connections(0).await;
}

#[tokio::test]
async fn postgres_shows_running_queries() {
    let database = postgres().fresh_database().await;
    let mut connection = PgConnection::connect(database.url())
        .await
        .expect("the url connects");
    let sleep = tokio::spawn(async move {
        sqlx::query("select pg_sleep(60)")
            .execute(&mut connection)
            .await
    });
    database.wait_until_running(1).await;
    assert_eq!(database.running_queries().await, ["select pg_sleep(60)"]);
    database.terminate_connections().await;
    database.wait_until_running(0).await;
    sleep
        .await
        .expect("no panic")
        .expect_err("its connection was ended");
}

#[tokio::test]
async fn own_postgres_has_settings_and_stops_when_dropped() {
    let server = Postgres::builder().setting("max_connections", "5").start();
    let database = server.fresh_database().await;
    let _one = PgConnection::connect(database.url())
        .await
        .expect("the first of two");
    let _two = PgConnection::connect(database.url())
        .await
        .expect("the second of two");
    let error = PgConnection::connect(database.url())
        .await
        .expect_err("three are reserved");
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    assert_eq!(code.as_deref(), Some("53300"), "{error}");
    assert_eq!(server.connections().await, 2);

    let (port, folder) = (server.port(), server.folder());
    drop(server);
    assert_gone(port, &folder).await;
}

#[test]
#[should_panic(expected = "no_such_setting")]
fn failed_postgres_start_shows_reason() {
    let _ = Postgres::builder().setting("no_such_setting", "1").start();
}

// --- MariaDB ---

#[tokio::test]
async fn mariadb_accepts_url_with_and_without_tls() {
    let database = mariadb().fresh_database().await;
    for (url, encrypted) in [(database.url(), false), (database.tls_url(), true)] {
        let mut connection = MySqlConnection::connect(url)
            .await
            .expect("the url connects");
        let query = "select variable_value <> '', database() from information_schema.session_status
            where variable_name = 'Ssl_cipher'";
        let (ssl, name): (bool, String) = sqlx::query_as(query)
            .fetch_one(&mut connection)
            .await
            .expect("an answer");
        assert_eq!((ssl, name.as_str()), (encrypted, database.name()), "{url}");
    }
}

#[tokio::test]
async fn mariadb_rejects_wrong_password() {
    let wrong = mariadb().url().replace(MariaDb::PASSWORD, "wrong");
    let error = MySqlConnection::connect(&wrong)
        .await
        .expect_err("a wrong password");
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    assert_eq!(code.as_deref(), Some("28000"), "{error}");
}

#[tokio::test]
async fn mariadb_databases_are_isolated_and_counted_separately() {
    let (one, two) = (
        mariadb().fresh_database().await,
        mariadb().fresh_database().await,
    );
    let mut in_one = MySqlConnection::connect(one.url())
        .await
        .expect("the url connects");
    sqlx::query("create table t (a int)")
        .execute(&mut in_one)
        .await
        .expect("the user may create");
    let mut in_two = MySqlConnection::connect(two.url())
        .await
        .expect("the url connects");
    sqlx::query("select * from t")
        .execute(&mut in_two)
        .await
        .expect_err("the table of another database");
    let _second = MySqlConnection::connect(two.url())
        .await
        .expect("the url connects");

    assert_eq!((one.connections().await, two.connections().await), (1, 2));
    in_one.close().await.expect("a goodbye");
    one.wait_until_connections(0).await;
    assert_eq!(two.connections().await, 2);
    assert_eq!(two.terminate_connections().await, 2);
    two.wait_until_connections(0).await;
}

#[tokio::test]
async fn mariadb_shows_running_queries() {
    let database = mariadb().fresh_database().await;
    let mut connection = MySqlConnection::connect(database.url())
        .await
        .expect("the url connects");
    let sleep = tokio::spawn(async move {
        sqlx::query("select sleep(60)")
            .execute(&mut connection)
            .await
    });
    database.wait_until_running(1).await;
    assert_eq!(database.running_queries().await, ["select sleep(60)"]);
    database.terminate_connections().await;
    database.wait_until_running(0).await;
    sleep
        .await
        .expect("no panic")
        .expect_err("its connection was ended");
}

#[tokio::test]
async fn own_mariadb_has_settings_and_stops_when_dropped() {
    let server = MariaDb::builder().setting("max-connections", "10").start();
    let database = server.fresh_database().await;
    let mut connections = Vec::new();
    for _ in 0..10 {
        connections.push(
            MySqlConnection::connect(database.url())
                .await
                .expect("ten fit"),
        );
    }
    let error = MySqlConnection::connect(database.url())
        .await
        .expect_err("the eleventh");
    assert!(
        error.to_string().contains("Too many connections"),
        "{error}"
    );
    assert_eq!(server.connections().await, 10);
    drop(connections);
    server.wait_until_connections(0).await;

    let (port, folder) = (server.port(), server.folder());
    drop(server);
    assert_gone(port, &folder).await;
}

#[test]
#[should_panic(expected = "no-such-setting")]
fn failed_mariadb_start_shows_reason() {
    let _ = MariaDb::builder().setting("no-such-setting", "1").start();
}

// --- shutdown ---

#[tokio::test]
async fn servers_stop_when_process_is_killed() {
    let mut child = Command::new(FUNCTION)
        .env("FUNCTION", "servers")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a binary of this package");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let lines = output.lines().map(|line| line.expect("text"));
    let servers: Vec<(u16, PathBuf)> = lines
        .take_while(|line| line != "READY")
        .map(|line| {
            let (port, folder) = line.split_once(' ').expect("a port and a folder");
            (port.parse().expect("a port"), folder.into())
        })
        .collect();
    assert_eq!(servers.len(), 3, "the other process started its servers");
    for (port, folder) in &servers {
        assert!(TcpStream::connect(("127.0.0.1", *port)).is_ok() && folder.is_dir());
    }

    // A server that a test has stopped is killed, too: the first one.
    let pid = std::fs::read_to_string(servers[0].1.join("data/postmaster.pid"))
        .expect("PostgreSQL's own record");
    let pid = pid.lines().next().expect("a process id");
    let stopped = Command::new("/bin/sh")
        .args(["-c", "kill -s STOP \"$0\"", pid])
        .status();
    assert!(stopped.expect("/bin/sh").success());

    child.kill().expect("SIGKILL");
    child.wait().expect("our own child");
    for (port, folder) in &servers {
        assert_gone(*port, folder).await;
    }
}

async fn assert_gone(port: u16, folder: &Path) {
    let still_there = async || {
        (
            TcpStream::connect(("127.0.0.1", port)).is_ok(),
            folder.exists(),
        )
    };
    wait_for("a server and its folder to go", still_there, |seen| {
        *seen == (false, false)
    })
    .await;
}

// --- ports ---

#[test]
fn refused_and_silent_ports_behave_as_named() {
    let refused = TcpStream::connect(("127.0.0.1", refused_port())).expect_err("nobody listens");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);

    let mut silent = silent_listener();
    let mut stream = TcpStream::connect(silent.address()).expect("somebody listens");
    stream.write_all(b"hello?").expect("somebody may listen");
    stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .expect("a timeout");
    let nothing = stream.read(&mut [0]).expect_err("nobody answers");
    assert!(matches!(
        nothing.kind(),
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
    ));
    assert_eq!(silent.connections(), 1);

    std::net::TcpListener::bind(("127.0.0.1", free_port())).expect("a free port");
}

#[test]
#[should_panic(
    expected = "cargo build -p db-handler-examples --all-features --example no_such_example"
)]
fn missing_example_shows_build_command() {
    let _ = support::example("no_such_example");
}

// --- the Runtime API ---

/// The function of the tests below, with AWS's own runtime.
fn start_function(api: &RuntimeApi) -> Function {
    Function::builder(api, Path::new(FUNCTION))
        .env("FUNCTION", "echo")
        .start()
}

#[tokio::test]
async fn function_receives_events_and_responds() {
    let database = postgres().fresh_database().await;
    let _connection = PgConnection::connect(database.url())
        .await
        .expect("the url connects");
    let api = RuntimeApi::observed(move || {
        let database = database.clone();
        async move { database.connections().await }
    })
    .await;
    let function = start_function(&api);

    let answer = api.invoke(&json!({ "number": 1 }), 3 * SECOND).await;
    assert!(!answer.is_error, "{answer:?}");
    assert_eq!(answer.json()["id"], answer.id);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let deadline = Duration::from_millis(answer.json()["deadline"].as_u64().expect("a number"));
    assert!(
        deadline > now && deadline <= now + 3 * SECOND,
        "{deadline:?} at {now:?}"
    );

    let failed = api.invoke(&json!({ "fail": "no luck" }), 3 * SECOND).await;
    assert!(
        failed.is_error && failed.text().contains("no luck"),
        "{failed:?}"
    );
    assert!(failed.error_type.is_some());

    let next = api.next_after(&answer.id).await;
    assert!(next.at > answer.finished);
    api.idle().await;
    let calls: Vec<Call> = api
        .calls()
        .into_iter()
        .map(|recorded| recorded.call)
        .collect();
    let expected = [
        Call::Next,
        Call::Response(answer.id.clone()),
        Call::ResponseEnd(answer.id),
        Call::Next,
        Call::Error(failed.id),
        Call::Next,
    ];
    assert_eq!(calls, expected);
    assert!(api.calls().iter().all(|recorded| recorded.observed == 1));
    function.wait_for_output("no luck").await;
}

#[tokio::test]
async fn program_receives_input_but_not_the_environment() {
    let mut program = Function::without_platform(Path::new("/bin/sh"))
        .arg("-c")
        .arg("cat; echo \"${HOME-no home} $WORD\" >&2; exit 3")
        .env("WORD", "given")
        .input("read")
        .start();
    assert_eq!(program.ended().await.code(), Some(3));
    assert_eq!(
        (program.stdout().as_str(), program.stderr().as_str()),
        ("read", "no home given\n")
    );
}

#[tokio::test]
async fn function_receives_signals() {
    let api = RuntimeApi::start().await;
    let mut function = start_function(&api);
    api.idle().await;
    function.signal("TERM").await;
    let status = function.ended().await;
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(15),
        "{status}"
    );
}

// --- output of `tests/run` ---

#[tokio::test]
async fn failure_is_shown_in_40_lines_with_repeat_command() {
    let long = "what it saw\n".repeat(100);
    let printed = format!(
        "     Running tests/it/main.rs (target/debug/deps/it-0123456789abcdef)\n\
         test a::b ... ok\n\
         ---- a::c stdout ----\n\
         thread 'a::c' (1) panicked at tests/it/a.rs:1:2:\n\
         a panic that was caught\n\
         {long}\
         thread 'a::c' (1) panicked at tests/it/a.rs:3:4:\n\
         the one that counts\n\
         {long}\n\
         failures:\n    a::c\n\n\
         test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.12s\n\n\
         error: test failed, to rerun pass `-p db-handler --test it`\n"
    );
    let mut awk = Function::without_platform(Path::new("awk"))
        .arg("-f")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/failures.awk"))
        .arg("-v")
        .arg("cargo=cargo test")
        .arg("-v")
        .arg("everything=the file")
        .input(printed)
        .start();
    assert!(awk.ended().await.success(), "{}", awk.output());
    let shown = awk.stdout();
    let lines: Vec<&str> = shown
        .lines()
        .skip_while(|line| *line != "---- a::c")
        .collect();
    let repeat = "repeat with: cargo test --test it -- --exact a::c";
    let end = lines.iter().position(|line| *line == repeat);
    assert!(end.is_some_and(|end| end < 40), "{shown}");
    assert!(lines.contains(&"the one that counts"), "{shown}");
    assert!(!lines.contains(&"a panic that was caught"), "{shown}");
    assert!(
        shown.ends_with("\n1 passed, 1 failed, 0 skipped; what they printed is in the file\n"),
        "{shown}"
    );
}
