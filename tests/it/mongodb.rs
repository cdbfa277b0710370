//! MongoDB: reuse, checks after a pause, cancellation and closing. Uses a real `mongod` if there is one (`MONGOD`,
//! or in `PATH`), and SecantusDB as a stand-in otherwise.

use crate::FUNCTION;
use sandbox::{After, Environment, Fault, Function, Outcome, Sandbox};
use serde_json::{Value, json};
use std::{collections::HashSet, time::Duration};
use support::{
    MongoDb, MongoRelay,
    caller::{Called, call, finish, local},
    function::FunctionBuilder,
    mongodb, refused_port, silent_listener,
};

use db_handler::mongodb::bson::doc;

/// Longer than `trust_ms`, and shorter than the idle time of a reused client.
const PAUSE: Duration = Duration::from_secs(30);

fn function(handler: &str, url: &str) -> FunctionBuilder {
    local(FUNCTION.as_ref())
        .env("FUNCTION", "mongodb")
        .env("HANDLER", handler)
        .env("MONGODB_URI", url)
}

/// A function behind a simulated network, whose wall clock can jump.
async fn started(handler: &str, url: &str) -> Environment {
    Sandbox::new(
        Function::new(FUNCTION)
            .env("FUNCTION", "mongodb")
            .env("HANDLER", handler),
    )
    .timeout(Duration::from_secs(5))
    .wall_clock_jumps(true)
    .database("MONGODB_URI", url)
    .expect("a URL with host and port")
    .start()
    .await
    .expect("the function starts")
}

fn deed(what: &str) -> Value {
    json!({ "do": what })
}

/// Replaces the port in the URL.
fn through(port: u16, server: &MongoDb, url: &str) -> String {
    url.replace(&format!(":{}/", server.port()), &format!(":{port}/"))
}

/// Delays the next commands `name` on `server`.
async fn hold_up(server: &MongoDb, name: &str, times: i32, milliseconds: i32) {
    let watch = server.watch().await;
    watch
        .run(doc! {
            "configureFailPoint": "failCommand",
            "mode": { "times": times },
            "data": {
                "failCommands": [name],
                "blockConnection": true,
                "blockTimeMS": milliseconds,
            },
        })
        .await;
    watch.close().await;
}

// --- reuse ---

#[tokio::test]
async fn warm_invocations_reuse_pool_connections() {
    let server = MongoDb::start(false);
    let watch = server.watch().await;
    let before = watch.connections().await;
    let invocations = if crate::extended() { 1_000 } else { 200 };
    let events = (deed("find").to_string() + "\n").repeat(invocations);
    let called = finish(function("kept", &server.fresh_url()).input(events)).await;
    assert_eq!(called.answers.len(), invocations, "{}", called.log);
    assert!(called.answers.iter().all(Value::is_null));
    let created = watch.connections().await.created - before.created;
    println!(
        "{}: {invocations} invocations, totalCreated + {created}",
        server.product()
    );
    // `max` is 2, but one connection is needed at a time; one more monitors the server.
    assert_eq!(created, 2);
    watch.wait_until_connections(0).await;
}

#[tokio::test]
async fn warm_operation_sends_one_message() {
    let server = mongodb();
    let relay = MongoRelay::start(server.port()).await;
    let url = through(relay.port(), server, &server.fresh_url());
    // By default the driver sends a heartbeat every 10 s, which would be counted as well.
    let environment = started("kept", &format!("{url}&heartbeatFrequencyMS=600000")).await;
    assert!(environment.invoke(deed("find")).await.is_answered());
    let _opened = relay.commands();
    for _ in 0..20 {
        assert!(environment.invoke(deed("find")).await.is_answered());
    }
    assert_eq!(relay.commands(), ["find"; 20]);

    // After a pause there is one ping. (The driver's own timers may fire, too.)
    environment.jump(PAUSE).expect("a wall clock that jumps");
    assert!(environment.invoke(deed("find")).await.is_answered());
    assert_eq!(relay.commands(), ["ping", "find"]);
    environment.shutdown().await;
}

#[tokio::test]
async fn concurrent_first_callers_open_one_client() {
    let server = MongoDb::start(false);
    let watch = server.watch().await;
    let before = watch.connections().await;
    let called = call(function("pair", &server.fresh_url()), &[json!(null)]).await;
    let clients: HashSet<&Value> = called
        .answer()
        .as_array()
        .expect("two addresses")
        .iter()
        .collect();
    assert_eq!(clients.len(), 1, "{called:?}");
    let created = watch.connections().await.created - before.created;
    assert!(created <= 3, "a pool of 2, and one that watches: {created}");
    watch.close().await;
}

#[tokio::test]
async fn dropped_connections_lose_no_invocation() {
    let server = mongodb();
    for fault in [Fault::DarkExisting, Fault::ResetExisting] {
        let environment = started("kept", &server.fresh_url()).await;
        let (mut cold, mut worst) = (Duration::ZERO, Duration::ZERO);
        for number in 1..=25 {
            let invocation = environment.invoke(deed("insert")).await;
            let Outcome::Answered { body } = &invocation.outcome else {
                panic!("{fault}, number {number}: {:?}", invocation.outcome);
            };
            // Every document is inserted exactly once.
            assert_eq!(body, number.to_string().as_bytes(), "{fault}");
            match number {
                1 => cold = invocation.waited,
                _ => worst = worst.max(invocation.waited),
            }
            if number % 5 == 0 {
                environment.apply(fault);
            }
            environment.jump(PAUSE).expect("a wall clock that jumps");
        }
        println!(
            "{}: {fault} in each 5th freeze: 25 of 25 answered, the first after {} ms, the slowest other after {} ms",
            server.product(),
            cold.as_millis(),
            worst.as_millis()
        );
        environment.shutdown().await;
    }
}

#[tokio::test]
async fn driver_retries_after_reset_in_short_freeze() {
    support::measures_time();
    let environment = started("kept", &mongodb().fresh_url()).await;
    assert!(environment.invoke(deed("insert")).await.is_answered());
    environment.apply(Fault::ResetExisting);
    assert!(environment.invoke(deed("insert")).await.is_answered());
    // The client that lost a connection is replaced after the response.
    let after = environment.invoke(deed("insert")).await;
    assert!(after.is_answered() && after.waited < Duration::from_millis(400));
    environment.shutdown().await;
}

#[tokio::test]
async fn min_and_eager_connect_ahead() {
    support::measures_time();
    let server = MongoDb::start(false);
    let watch = server.watch().await;
    let environment = started("eager", &server.fresh_url()).await;
    // Two in the pool, and one that monitors the server.
    watch.wait_until_connections(3).await;
    assert!(environment.invoke(deed("find")).await.is_answered());
    let name = watch.clients().await[0]
        .get_document("application")
        .expect("an application")
        .get_str("name")
        .expect("its name")
        .to_owned();
    assert_eq!(name, "function:$LATEST");
    environment.shutdown().await;
    watch.close().await;
}

// --- closing ---

#[tokio::test]
async fn always_leaves_no_connection_between_invocations() {
    let server = MongoDb::start(false);
    let watch = server.watch().await;
    let environment = started("always", &server.fresh_url()).await;
    for number in 1..=3 {
        let invocation = environment.invoke(deed("insert")).await;
        assert!(invocation.is_answered(), "{number}: {invocation:?}");
        watch.wait_until_connections(0).await;
    }
    environment.shutdown().await;
    watch.close().await;
}

#[tokio::test]
async fn on_error_reuses_after_success_and_closes_after_error() {
    let server = MongoDb::start(false);
    let watch = server.watch().await;
    let environment = started("on_error", &server.fresh_url()).await;
    assert!(environment.invoke(deed("find")).await.is_answered());
    watch.wait_until_connections(2).await;
    assert!(!environment.invoke(deed("fail")).await.is_answered());
    watch.wait_until_connections(0).await;
    environment.shutdown().await;
    watch.close().await;
}

#[tokio::test]
async fn leaked_cursor_does_not_delay_close() {
    support::measures_time();
    let server = MongoDb::start(false);
    let watch = server.watch().await;
    let environment = started("always", &server.fresh_url()).await;
    let invocation = environment.invoke(deed("keep_cursor")).await;
    assert!(invocation.is_answered(), "{invocation:?}");
    let closing = invocation.billed.saturating_sub(invocation.waited);
    assert!(closing < Duration::from_millis(500), "{closing:?}");
    watch.wait_until_connections(0).await;
    environment.shutdown().await;
    watch.close().await;
}

#[tokio::test]
async fn panic_discards_client_but_not_environment() {
    let environment = started("kept", &mongodb().fresh_url()).await;
    assert!(environment.invoke(deed("insert")).await.is_answered());
    assert!(!environment.invoke(deed("panic")).await.is_answered());
    assert!(environment.invoke(deed("insert")).await.is_answered());
    assert_eq!(environment.starts(), 1);
    environment.shutdown().await;
}

// --- cancellation ---

#[tokio::test]
async fn orphaned_operation_is_cancelled_on_server() {
    support::alone();
    let server = MongoDb::start(false);
    for (what, handler) in [
        // Cancelled before the deadline.
        (deed("find"), "kept"),
        // Dropped by the handler itself.
        (json!({"do": "give_up", "milliseconds": 50}), "kept"),
        // Left running by the handler. It uses the only connection.
        (deed("leave_running"), "always"),
    ] {
        let relay = MongoRelay::start(server.port()).await;
        let url = through(relay.port(), &server, &server.fresh_url());
        let environment = started(handler, &url).await;
        assert!(environment.invoke(deed("insert")).await.is_answered());
        hold_up(&server, "find", 1, 30_000).await;
        let _earlier = relay.commands();
        let invocation = environment.invoke(what.clone()).await;
        assert_eq!(
            invocation.is_answered(),
            what["do"] != "find",
            "{what}: {invocation:?}"
        );
        assert!(
            matches!(invocation.after, After::Polled),
            "{what}: {invocation:?}"
        );
        let commands = relay.commands();
        let at = |name: &str| commands.iter().position(|command| command == name);
        assert!(
            at("find") < at("currentOp") && at("currentOp") < at("killOp") && at("find").is_some(),
            "{what}: {commands:?}"
        );
        // The client is discarded; the environment is reused.
        let next = environment.invoke(deed("insert")).await;
        assert!(next.is_answered(), "{what}: {next:?}");
        assert_eq!(environment.starts(), 1);
        environment.shutdown().await;
    }
}

// --- authentication and encryption ---

#[tokio::test]
async fn scram_and_tls() {
    let server = MongoDb::start(true);
    let events = [deed("insert"), deed("insert")];
    let called = call(function("kept", &server.fresh_url()), &events).await;
    assert_eq!(called.answers, [json!(1), json!(2)], "{called:?}");

    // The certificate is self-signed.
    let url = server.fresh_url();
    let (url, _) = url.split_once("&tlsCAFile").expect("a root of its own");
    let refused = call(function("kept", url), &events[..1]).await;
    refused_with(&refused, "Tls", "certificate");
}

#[tokio::test]
async fn url_selects_client_and_database() {
    let url = mongodb().url("in_the_url");
    let called = call(function("kept", &url), &[deed("name")]).await;
    assert_eq!(called.answer(), &json!("in_the_url"));
    let called = call(function("client", &mongodb().url("")), &[deed("name")]).await;
    assert_eq!(called.answer(), &json!("chosen"));
}

// --- bad input ---

/// Asserts that the call returned this error, and that no output contains the password.
fn refused_with(called: &Called, kind: &str, text: &str) {
    let (error_type, message) = called.error();
    assert_eq!(error_type, kind, "{message}");
    assert!(message.contains(text), "{message}");
    let everything = format!("{called:?}");
    for secret in [MongoDb::PASSWORD, "hunter2"] {
        assert!(!everything.contains(secret), "{everything}");
    }
}

#[tokio::test]
async fn missing_or_empty_variable_is_named_in_init_error() {
    for function in [
        local(FUNCTION.as_ref()).env("FUNCTION", "mongodb"),
        local(FUNCTION.as_ref())
            .env("FUNCTION", "mongodb")
            .env("MONGODB_URI", " "),
    ] {
        let called = call(function, &[deed("nothing")]).await;
        assert!(called.answers.is_empty(), "{called:?}");
        assert_eq!(called.code, Some(1));
        assert!(called.log.contains("MONGODB_URI"), "{}", called.log);
        assert!(called.log.contains("MissingUrl"), "{}", called.log);
    }
}

#[tokio::test]
async fn invalid_urls_have_distinct_errors() {
    let cases = [
        (
            "kept",
            "mongodb://app:hunter2@",
            "InvalidUrl",
            "cannot be read",
        ),
        (
            "kept",
            "mongodb://app:hunter2@host:port/db",
            "InvalidUrl",
            "cannot be read",
        ),
        (
            "kept",
            "mongodb://app:12/hunter2@host/db",
            "InvalidUrl",
            "special character",
        ),
        (
            "kept",
            "mongodb:app:hunter2@host/db",
            "UnknownScheme",
            "mongodb://",
        ),
        ("kept", "hunter2", "UnknownScheme", "mongodb://"),
        (
            "kept",
            "postgres://app:hunter2@host/db",
            "WrongScheme",
            "`postgres:`",
        ),
        (
            "kept",
            "mongodb://app:hunter2@host/?connectTimeoutMS=hunter2",
            "InvalidUrl",
            "cannot be read",
        ),
        (
            "kept",
            "mongodb://app:hunter2@127.0.0.1/",
            "InvalidUrl",
            "names no database",
        ),
        (
            "kept",
            "mongodb://app:hunter2@127.0.0.1:99999/db",
            "InvalidUrl",
            "the port of a host",
        ),
        (
            "kept",
            "mongodb://app:hunter2@127.0.0.1/db?authMechanism=XY",
            "InvalidUrl",
            "`authMechanism`",
        ),
        (
            "kept",
            "mongodb://app:hunter2@127.0.0.1/db?maxPoolSize=abc",
            "InvalidUrl",
            "`maxPoolSize`",
        ),
        (
            "kept",
            "mongodb://app:hunter2@127.0.0.1/db?poolsize=2",
            "InvalidUrl",
            "`poolsize`",
        ),
        (
            "kept",
            "mongodb://app:hunter2@127.0.0.1/db?compressors=zstd",
            "InvalidUrl",
            "`compressors`",
        ),
        (
            "kept",
            "mongodb://app:hunter2@127.0.0.1/db?tls=true&tlsCAFile=/nowhere/ca.pem",
            "InvalidUrl",
            "`/nowhere/ca.pem` of the option `tlsCAFile` cannot be read",
        ),
    ];
    for (handler, url, kind, text) in cases {
        let called = call(function(handler, url), &[deed("nothing")]).await;
        refused_with(&called, kind, text);
    }
}

#[tokio::test]
async fn file_without_pem_is_named_with_its_url_option() {
    let no_pem = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let tls = MongoDb::start(true);
    let url = tls.fresh_url();
    let (_, certificate) = url.split_once("tlsCAFile=").expect("its certificate");
    for (query, words) in [
        (
            format!("tlsCAFile={no_pem}"),
            [no_pem, "`tlsCAFile`", "no certificate"],
        ),
        (
            format!("tlsCertificateKeyFile={no_pem}"),
            [no_pem, "`tlsCertificateKeyFile`", "no private key"],
        ),
        (
            format!("tlsCertificateKeyFile={certificate}"),
            [certificate, "`tlsCertificateKeyFile`", "no private key"],
        ),
        (
            "tlsCAFile=/dev/zero".to_owned(),
            ["/dev/zero", "`tlsCAFile`", "not a regular file"],
        ),
    ] {
        let url = format!("mongodb://app:hunter2@192.0.2.1/db?tls=true&{query}");
        let called = call(function("kept", &url), &[deed("find")]).await;
        for word in words {
            refused_with(&called, "InvalidUrl", word);
        }
    }
}

#[tokio::test]
async fn password_in_place_of_port_is_not_shown() {
    for url in [
        "mongodb://app.invalid:12345/shop",
        "mongodb://app.invalid:12345",
    ] {
        let handler = if url.ends_with("/shop") {
            "kept"
        } else {
            "client"
        };
        let called = call(function(handler, url), &[deed("find")]).await;
        let (error_type, message) = called.error();
        assert!(
            ["ServerUnreachable", "ConnectionRefused"].contains(&error_type),
            "{error_type}: {message}"
        );
        assert!(message.contains("user:password@host"), "{message}");
        assert!(!format!("{called:?}").contains("12345"), "{called:?}");
    }
}

#[tokio::test]
async fn rejected_login_names_user_server_and_options() {
    let server = mongodb();
    let address = format!("127.0.0.1:{}", server.port());
    let wrong_password = server.fresh_url().replace(MongoDb::PASSWORD, "hunter2");
    let wrong_source = server
        .fresh_url()
        .replace("authSource=admin", "authSource=elsewhere");
    let user = format!("the user `{}`", MongoDb::USER);
    for (url, source) in [
        (wrong_password, "`authSource` (now `admin`)"),
        (wrong_source, "`authSource` (now `elsewhere`)"),
    ] {
        for handler in ["kept", "eager"] {
            let called = call(function(handler, &url), &[deed("find")]).await;
            for words in [&user, &address, source, "in MONGODB_URI", "mongodb::"] {
                refused_with(&called, "Authentication", words);
            }
        }
    }
}

#[tokio::test]
async fn connection_errors_name_their_cause() {
    let wrong_password = mongodb().fresh_url().replace(MongoDb::PASSWORD, "hunter2");
    let refused = format!("mongodb://app:hunter2@127.0.0.1:{}/db", refused_port());
    let silent = silent_listener();
    let unanswered = format!("mongodb://app:hunter2@127.0.0.1:{}/db", silent.port());
    let unknown = "mongodb://app:hunter2@no-such-host.invalid/db".to_owned();
    let wrong_set = format!("{}&replicaSet=wrong", mongodb().fresh_url());
    for (url, kind, text) in [
        (
            wrong_set,
            "ServerUnreachable",
            "MONGODB_URI asks for `wrong`",
        ),
        (wrong_password, "Authentication", "check user"),
        (refused, "ConnectionRefused", "is the server running"),
        (unanswered, "ConnectTimeout", "timed out after 3000 ms"),
        (unknown, "ServerUnreachable", "no-such-host.invalid"),
    ] {
        let called = call(function("kept", &url), &[deed("find")]).await;
        refused_with(&called, kind, text);
    }
}
