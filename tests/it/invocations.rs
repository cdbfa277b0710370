//! Connections and sessions of a handler's invocations, observed on PostgreSQL and MariaDB.

use crate::FUNCTION;
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::{collections::HashSet, path::Path, time::Duration};
use support::{
    Database,
    caller::{Called, call, local},
    function::{Function, FunctionBuilder},
    mariadb, postgres,
    runtime_api::RuntimeApi,
};

/// A timeout that no event of these tests reaches.
const AMPLE: Duration = Duration::from_secs(60);

/// Both servers, with the prefix of their handlers.
async fn databases() -> [(&'static str, Database); 2] {
    [
        ("postgres", postgres().fresh_database().await),
        ("mariadb", mariadb().fresh_database().await),
    ]
}

fn function(handler: &str, database: &Database) -> FunctionBuilder {
    local(Path::new(FUNCTION))
        .env("FUNCTION", "database")
        .env("HANDLER", handler)
        .env("DATABASE_URL", database.url())
}

fn session() -> Value {
    json!({"do": "session"})
}

fn distinct(called: &Called) -> usize {
    let sessions: HashSet<String> = called.answers.iter().map(Value::to_string).collect();
    sessions.len()
}

#[tokio::test]
async fn many_invocations_leave_no_connection() {
    let invocations = if crate::extended() { 1_000 } else { 200 };
    // Both servers concurrently, because this is the slowest test: MariaDB's handshake alone takes 50 ms with
    // sqlx 0.9.0.
    let many = databases().await.map(async |(prefix, database)| {
        let running = Running::start(&format!("{prefix}/always"), &database).await;
        let mut sessions = HashSet::new();
        for _ in 0..invocations {
            let session = running.succeed(&session()).await;
            assert!(
                sessions.insert(session.to_string()),
                "{prefix}: {session} served twice"
            );
        }
        // The function is running and waits for its next event.
        running.api.idle().await;
        database.wait_until_connections(0).await;
    });
    join_all(many).await;
}

#[tokio::test]
async fn always_leaves_no_connection_between_invocations() {
    for (prefix, database) in databases().await {
        for handler in ["always", "single"] {
            let running = Running::start(&format!("{prefix}/{handler}"), &database).await;
            for _ in 0..3 {
                running.succeed(&session()).await;
                running.api.idle().await;
                database.wait_until_connections(0).await;
            }
        }
    }
}

#[tokio::test]
async fn session_is_reused_with_close_never() {
    support::measures_time();
    for (prefix, database) in databases().await {
        for handler in ["never", "single_kept"] {
            let function = function(&format!("{prefix}/{handler}"), &database);
            let called = call(function, &vec![session(); 20]).await;
            assert_eq!(called.code, Some(0), "{}", called.log);
            assert_eq!(distinct(&called), 1, "{prefix}/{handler}: {called:?}");
        }
    }
}

#[tokio::test]
async fn on_error_reuses_session_until_error() {
    for (prefix, database) in databases().await {
        let fail = json!({"do": "fail"});
        let events = [session(), session(), fail, session(), session()];
        let called = call(function(&format!("{prefix}/on_error"), &database), &events).await;
        let [a, b, failure, c, d] = called.answers.as_slice() else {
            panic!("{called:?}");
        };
        assert_eq!(failure["errorType"], "Handler");
        assert_eq!((a, c), (b, d), "{prefix}: {called:?}");
        assert_ne!(a, c, "{prefix}: {called:?}");
    }
}

#[tokio::test]
async fn eager_connects_before_first_event() {
    for (prefix, database) in databases().await {
        let running = Running::start(&format!("{prefix}/eager"), &database).await;
        database.wait_until_connections(2).await;
        let before = ids(&database).await;
        let session = running.succeed(&session()).await;
        assert!(
            before.contains(&session.as_i64().expect("a number")),
            "{prefix}"
        );
    }
}

#[tokio::test]
async fn eager_connection_serves_first_event_with_close_always() {
    for (prefix, database) in databases().await {
        let running = Running::start(&format!("{prefix}/single_eager"), &database).await;
        database.wait_until_connections(1).await;
        let before = ids(&database).await;
        let session = running.succeed(&session()).await;
        assert_eq!(json!(before), json!([session]), "{prefix}");
        running.api.idle().await;
        database.wait_until_connections(0).await;
    }
}

#[tokio::test]
async fn lost_connection_closes_whole_pool() {
    support::measures_time();
    for (prefix, database) in databases().await {
        let running = Running::start(&format!("{prefix}/never"), &database).await;
        running.succeed(&json!({"do": "side_by_side"})).await;
        running.api.idle().await;
        assert_eq!(database.terminate_connections().await, 2, "{prefix}");
        // Within `trust_ms` there is no ping: this invocation may fail, but no later one.
        running.api.invoke(&session(), AMPLE).await;
        running.api.idle().await;
        running.succeed(&json!({"do": "side_by_side"})).await;
    }
}

#[tokio::test]
async fn lazy_does_not_connect_without_query() {
    for (prefix, database) in databases().await {
        let running = Running::start(&format!("{prefix}/never"), &database).await;
        running.succeed(&json!({"do": "nothing"})).await;
        running.api.idle().await;
        assert_eq!(database.connections().await, 0, "{prefix}");
    }
}

#[tokio::test]
async fn session_is_not_reused_after_panic() {
    for (prefix, database) in databases().await {
        for handler in ["never", "single_kept"] {
            let events = [session(), json!({"do": "panic"}), session()];
            let called = call(function(&format!("{prefix}/{handler}"), &database), &events).await;
            let [before, panic, after] = called.answers.as_slice() else {
                panic!("{called:?}");
            };
            assert_eq!(panic["errorType"], "HandlerPanicked", "{prefix}/{handler}");
            assert!(after.is_i64(), "{prefix}/{handler}: {after}");
            assert_ne!(before, after, "{prefix}/{handler}");
        }
    }
}

#[tokio::test]
async fn handler_error_does_not_end_session_with_close_never() {
    for (prefix, database) in databases().await {
        for handler in ["never", "single_kept"] {
            let events = [session(), json!({"do": "fail"}), session()];
            let called = call(function(&format!("{prefix}/{handler}"), &database), &events).await;
            assert_eq!(called.answers[0], called.answers[2], "{prefix}/{handler}");
        }
    }
}

#[tokio::test]
async fn each_parameter_has_its_own_database_and_policy() {
    for (prefix, database) in databases().await {
        let replica = match prefix {
            "postgres" => postgres().fresh_database().await,
            _ => mariadb().fresh_database().await,
        };
        let function =
            function(&format!("{prefix}/both"), &database).env("REPLICA_URL", replica.url());
        let called = call(function, &[session(), session()]).await;
        let [first, second] = called.answers.as_slice() else {
            panic!("{called:?}");
        };
        assert_ne!(first["main"], second["main"], "{prefix}: closed every time");
        assert_eq!(first["replica"], second["replica"], "{prefix}: kept");
    }
}

#[tokio::test]
async fn healthy_session_is_reused_after_pause() {
    for (prefix, database) in databases().await {
        for handler in ["never", "single_kept"] {
            let running = Running::start(&format!("{prefix}/{handler}"), &database).await;
            let before = running.succeed(&session()).await;
            running.api.idle().await;
            let pause = db_handler::config::TRUST + Duration::from_millis(100);
            running.function.freeze(pause).await;
            running.function.thaw().await;
            assert_eq!(
                running.succeed(&session()).await,
                before,
                "{prefix}/{handler}"
            );
        }
    }
}

#[tokio::test]
async fn handler_can_be_called_several_times_for_one_event() {
    for (prefix, database) in databases().await {
        let called = call(
            function(&format!("{prefix}/repeated"), &database),
            &[json!(5)],
        )
        .await;
        let sessions = called.answer().as_array().expect("sessions").clone();
        assert_eq!(sessions.len(), 5, "{called:?}");
        assert!(
            sessions.iter().all(|session| *session == sessions[0]),
            "{prefix}: kept between the calls: {sessions:?}"
        );
    }
}

#[tokio::test]
async fn connection_of_dropped_call_is_not_reused() {
    for (prefix, database) in databases().await {
        let function = function(&format!("{prefix}/impatient"), &database);
        let called = call(function, &[Value::Null]).await;
        let [before, after] = called.answer().as_array().expect("two").as_slice() else {
            panic!("{called:?}");
        };
        assert_ne!(before, after, "{prefix}");
    }
}

#[tokio::test]
async fn concurrent_invocations_share_pool_and_last_one_closes_it() {
    for (prefix, database) in databases().await {
        let handler = format!("{prefix}/always");
        let running =
            Running::started(&handler, &database, |function| function.concurrency(4)).await;
        let sleep = json!({"do": "sleep", "seconds": 0.1});
        let ids: Vec<String> = (0..8).map(|_| running.api.push(&sleep, AMPLE)).collect();
        for id in ids {
            let answer = running.api.answer(&id).await;
            assert!(!answer.is_error, "{prefix}: {}", answer.text());
        }
        running.api.idle().await;
        database.wait_until_connections(0).await;
    }
}

/// A function on a simulated platform.
struct Running {
    api: RuntimeApi,
    function: Function,
}

impl Running {
    async fn start(handler: &str, database: &Database) -> Self {
        Self::started(handler, database, |function| function).await
    }

    async fn started(
        handler: &str,
        database: &Database,
        with: impl FnOnce(FunctionBuilder) -> FunctionBuilder,
    ) -> Self {
        let api = RuntimeApi::start().await;
        let function = Function::builder(&api, Path::new(FUNCTION))
            .env("FUNCTION", "database")
            .env("HANDLER", handler)
            .env("DATABASE_URL", database.url());
        let function = with(function).start();
        Self { api, function }
    }

    async fn succeed(&self, event: &Value) -> Value {
        let answer = self.api.invoke(event, AMPLE).await;
        assert!(
            !answer.is_error,
            "{}\n{}",
            answer.text(),
            self.function.output()
        );
        answer.json()
    }
}

async fn ids(database: &Database) -> Vec<i64> {
    database
        .sessions()
        .await
        .iter()
        .map(|session| session.id)
        .collect()
}
