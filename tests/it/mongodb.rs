//! MongoDB: kept, checked after a pause, stopped and closed. Against a real `mongod` where there is one
//! (`MONGOD`, or in `PATH`), otherwise against SecantusDB, which stands in for it.

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

/// More than `trust`, and less than the idle time of what is kept.
const PAUSE: Duration = Duration::from_secs(30);

fn function(handler: &str, url: &str) -> FunctionBuilder {
    local(FUNCTION.as_ref())
        .env("FUNCTION", "mongodb")
        .env("HANDLER", handler)
        .env("MONGODB_URI", url)
}

/// A function whose way to the server can be broken, and whose wall clock can jump.
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

/// The URL with another port.
fn through(port: u16, server: &MongoDb, url: &str) -> String {
    url.replace(&format!(":{}/", server.port()), &format!(":{port}/"))
}

/// Holds up the next commands `name` on `server`.
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

// --- kept ---

#[tokio::test]
async fn many_warm_invocations_share_the_pools_connections() {
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
    // The pool has room for two, but needs one at a time; one more watches the server.
    assert_eq!(created, 2);
    watch.wait_until_connections(0).await;
}

#[tokio::test]
async fn a_warm_operation_is_one_message_and_nothing_more() {
    let server = mongodb();
    let relay = MongoRelay::start(server.port()).await;
    let url = through(relay.port(), server, &server.fresh_url());
    // Not to be taken for the operation's: the driver watches the server every 10 s.
    let environment = started("kept", &format!("{url}&heartbeatFrequencyMS=600000")).await;
    assert!(environment.invoke(deed("find")).await.is_answered());
    let _opened = relay.commands();
    for _ in 0..20 {
        assert!(environment.invoke(deed("find")).await.is_answered());
    }
    assert_eq!(relay.commands(), ["find"; 20]);

    // After a pause it is asked once whether it is alive. (The driver's own timers may go off, too.)
    environment.jump(PAUSE).expect("a wall clock that jumps");
    assert!(environment.invoke(deed("find")).await.is_answered());
    assert_eq!(relay.commands(), ["ping", "find"]);
    environment.shutdown().await;
}

#[tokio::test]
async fn two_callers_at_the_first_invocation_open_one_client() {
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
async fn nothing_is_lost_when_the_network_forgets_or_the_server_ends_connections_in_each_5th_freeze()
 {
    let server = mongodb();
    for fault in [Fault::DarkExisting, Fault::ResetExisting] {
        let environment = started("kept", &server.fresh_url()).await;
        let (mut cold, mut worst) = (Duration::ZERO, Duration::ZERO);
        for number in 1..=25 {
            let invocation = environment.invoke(deed("insert")).await;
            let Outcome::Answered { body } = &invocation.outcome else {
                panic!("{fault}, number {number}: {:?}", invocation.outcome);
            };
            // Nothing is inserted twice, and nothing is missing.
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
async fn what_a_short_freeze_has_killed_is_healed_by_the_drivers_own_retry() {
    support::measures_time();
    let environment = started("kept", &mongodb().fresh_url()).await;
    assert!(environment.invoke(deed("insert")).await.is_answered());
    environment.apply(Fault::ResetExisting);
    assert!(environment.invoke(deed("insert")).await.is_answered());
    // And the client that lost a connection has been replaced, after the answer.
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
    // Two in the pool, and one that watches.
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

// --- closed ---

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
async fn on_error_keeps_after_a_success_and_closes_after_an_error() {
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
async fn an_escaped_cursor_does_not_hold_up_the_close() {
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
async fn a_panic_ends_the_client_and_not_the_instance() {
    let environment = started("kept", &mongodb().fresh_url()).await;
    assert!(environment.invoke(deed("insert")).await.is_answered());
    assert!(!environment.invoke(deed("panic")).await.is_answered());
    assert!(environment.invoke(deed("insert")).await.is_answered());
    assert_eq!(environment.starts(), 1);
    environment.shutdown().await;
}

// --- stopped ---

#[tokio::test]
async fn what_outlives_its_handler_is_stopped_on_the_server() {
    support::alone();
    let server = MongoDb::start(false);
    for (what, handler) in [
        // Stopped before the deadline.
        (deed("find"), "kept"),
        // Given up by the handler itself.
        (json!({"do": "give_up", "milliseconds": 50}), "kept"),
        // Left to itself by the handler; it holds the only connection that there may be.
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
        // The client is not used again; the instance is.
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

    // The certificate is its own root, which nobody else knows.
    let url = server.fresh_url();
    let (url, _) = url.split_once("&tlsCAFile").expect("a root of its own");
    let refused = call(function("kept", url), &events[..1]).await;
    refused_with(&refused, "TlsFailed", "certificate");
}

#[tokio::test]
async fn the_client_and_the_database_are_what_the_url_says() {
    let url = mongodb().url("in_the_url");
    let called = call(function("kept", &url), &[deed("name")]).await;
    assert_eq!(called.answer(), &json!("in_the_url"));
    let called = call(function("client", &mongodb().url("")), &[deed("name")]).await;
    assert_eq!(called.answer(), &json!("chosen"));
}

// --- bad input ---

/// The one error that was reported; nothing that was written shows the password.
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
async fn a_missing_or_empty_variable_is_an_init_error_that_names_it() {
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
        assert!(called.log.contains("MissingDatabaseUrl"), "{}", called.log);
    }
}

#[tokio::test]
async fn each_bad_url_has_its_own_error() {
    let cases = [
        (
            "kept",
            "mongodb://app:hunter2@",
            "InvalidDatabaseUrl",
            "cannot be read",
        ),
        (
            "kept",
            "mongodb://app:hunter2@host:port/db",
            "InvalidDatabaseUrl",
            "cannot be read",
        ),
        (
            "kept",
            "mongodb://app:12/hunter2@host/db",
            "InvalidDatabaseUrl",
            "special character",
        ),
        (
            "kept",
            "mongodb:app:hunter2@host/db",
            "UnknownDatabaseScheme",
            "mongodb://",
        ),
        ("kept", "hunter2", "UnknownDatabaseScheme", "mongodb://"),
        (
            "kept",
            "postgres://app:hunter2@host/db",
            "WrongDatabaseScheme",
            "`postgres:`",
        ),
        (
            "kept",
            "mongodb://app:hunter2@host/?connectTimeoutMS=hunter2",
            "InvalidDatabaseUrl",
            "cannot be read",
        ),
        (
            "kept",
            "mongodb://app:hunter2@127.0.0.1/",
            "InvalidDatabaseUrl",
            "names no database",
        ),
        (
            "kept",
            "mongodb://app:hunter2@127.0.0.1:99999/db",
            "InvalidDatabaseUrl",
            "the port of a host",
        ),
        (
            "kept",
            "mongodb://app:hunter2@127.0.0.1/db?authMechanism=XY",
            "InvalidDatabaseUrl",
            "`authMechanism`",
        ),
        (
            "kept",
            "mongodb://app:hunter2@127.0.0.1/db?maxPoolSize=abc",
            "InvalidDatabaseUrl",
            "`maxPoolSize`",
        ),
        (
            "kept",
            "mongodb://app:hunter2@127.0.0.1/db?poolsize=2",
            "InvalidDatabaseUrl",
            "`poolsize`",
        ),
        (
            "kept",
            "mongodb://app:hunter2@127.0.0.1/db?compressors=zstd",
            "InvalidDatabaseUrl",
            "`compressors`",
        ),
        (
            "kept",
            "mongodb://app:hunter2@127.0.0.1/db?tls=true&tlsCAFile=/nowhere/ca.pem",
            "InvalidDatabaseUrl",
            "`/nowhere/ca.pem` of the option `tlsCAFile` cannot be read",
        ),
    ];
    for (handler, url, kind, text) in cases {
        let called = call(function(handler, url), &[deed("nothing")]).await;
        refused_with(&called, kind, text);
    }
}

#[tokio::test]
async fn file_without_pem_is_named_with_its_option() {
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
            refused_with(&called, "InvalidDatabaseUrl", word);
        }
    }
}

#[tokio::test]
async fn password_where_the_port_should_be_is_not_shown() {
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
            ["DatabaseUnreachable", "ConnectionRefused"].contains(&error_type),
            "{error_type}: {message}"
        );
        assert!(message.contains("user:password@host"), "{message}");
        assert!(!format!("{called:?}").contains("12345"), "{called:?}");
    }
}

#[tokio::test]
async fn refused_user_is_named_with_the_server_and_the_options() {
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
                refused_with(&called, "AuthenticationFailed", words);
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_let_us_in_says_why() {
    let wrong_password = mongodb().fresh_url().replace(MongoDb::PASSWORD, "hunter2");
    let refused = format!("mongodb://app:hunter2@127.0.0.1:{}/db", refused_port());
    let silent = silent_listener();
    let unanswered = format!("mongodb://app:hunter2@127.0.0.1:{}/db", silent.port());
    let unknown = "mongodb://app:hunter2@no-such-host.invalid/db".to_owned();
    let wrong_set = format!("{}&replicaSet=wrong", mongodb().fresh_url());
    for (url, kind, text) in [
        (
            wrong_set,
            "DatabaseUnreachable",
            "MONGODB_URI asks for `wrong`",
        ),
        (wrong_password, "AuthenticationFailed", "check user"),
        (refused, "ConnectionRefused", "is the server running"),
        (unanswered, "ConnectTimeout", "took longer than 3000 ms"),
        (unknown, "DatabaseUnreachable", "no-such-host.invalid"),
    ] {
        let called = call(function("kept", &url), &[deed("find")]).await;
        refused_with(&called, kind, text);
    }
}
