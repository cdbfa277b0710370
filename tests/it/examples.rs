//! Runs every example and checks its output.

use sandbox::{Fault, Platform, Sandbox};
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};
use std::{path::Path, time::Duration};
use support::{
    caller::{call, local},
    example,
    function::Function,
    mariadb, mongodb, postgres,
    runtime_api::RuntimeApi,
};

#[tokio::test]
async fn postgres_example_stores_orders() {
    let database = postgres().fresh_database().await;
    let order = json!({"item": "tea", "quantity": 2});
    let function = local(&example("postgres")).env("DATABASE_URL", database.url());
    let called = call(function, &[order.clone(), order]).await;
    assert_eq!(
        called.answers,
        [json!({"order": 1}), json!({"order": 2})],
        "{called:?}"
    );
    database.wait_until_connections(0).await;
}

#[tokio::test]
async fn mariadb_example_stores_orders() {
    let database = mariadb().fresh_database().await;
    let order = json!({"item": "tea", "quantity": 2});
    let function = local(&example("mariadb")).env("DATABASE_URL", database.url());
    let called = call(function, &[order.clone(), order]).await;
    assert_eq!(
        called.answers,
        [json!({"order": 1}), json!({"order": 2})],
        "{called:?}"
    );
}

#[tokio::test]
async fn mongodb_example_stores_orders() {
    let order = json!({"item": "tea", "quantity": 2});
    let function = local(&example("mongodb")).env("MONGODB_URI", mongodb().fresh_url());
    let called = call(function, &[order.clone(), order]).await;
    let ordered: Vec<_> = called
        .answers
        .iter()
        .map(|answer| &answer["quantity_ordered_so_far"])
        .collect();
    assert_eq!(ordered, [2, 4], "{called:?}");
}

#[tokio::test]
async fn scf_example_counts_visits_on_both_platforms() {
    let url = mongodb().fresh_url();
    let mut visits = 0;
    for platform in [Platform::Scf, Platform::Lambda] {
        let sandbox = Sandbox::new(sandbox::Function::new(example("scf_mongodb")))
            .platform(platform)
            .wall_clock_jumps(true)
            .database("MONGODB_URI", &url)
            .expect("a URL with host and port");
        let environment = sandbox.start().await.expect("the function starts");
        for number in 0..6 {
            let invocation = environment.invoke(json!({"path": "/tea"})).await;
            let answer = invocation.json().expect("an answer");
            visits += 1;
            assert_eq!(answer["of_this_page"], visits, "{platform:?}");
            assert_eq!(answer["request_id"], invocation.request_id);
            // The open connections go dark during a long freeze.
            if number == 3 {
                environment.apply(Fault::DarkExisting);
                let long = Duration::from_secs(60);
                environment.jump(long).expect("a wall clock that jumps");
            }
        }
        assert_eq!(environment.starts(), 1);
        environment.shutdown().await;
    }
}

#[tokio::test]
async fn concurrent_queries_example_finds_and_counts() {
    let database = postgres().fresh_database().await;
    let function = local(&example("concurrent_queries")).env("DATABASE_URL", database.url());
    let called = call(function, &[json!({"page": 2, "size": 3})]).await;
    assert_eq!(
        called.answer(),
        &json!({"total": 1000, "numbers": [7, 8, 9]})
    );
    database.wait_until_connections(0).await;
}

#[tokio::test]
async fn single_connection_example_greets() {
    let database = postgres().fresh_database().await;
    let function = local(&example("single_connection")).env("DATABASE_URL", database.url());
    let called = call(function, &[json!({"name": "Ada"}), json!({"name": "Bob"})]).await;
    assert_eq!(called.answers, [json!("Hello, Ada!"), json!("Hello, Bob!")]);
}

#[tokio::test]
async fn transaction_example_transfers_all_or_nothing() {
    let folder = tempfile::tempdir().expect("room");
    let url = format!("sqlite://{}/accounts.db?mode=rwc", folder.path().display());
    let function = local(&example("transaction")).env("DATABASE_URL", url);
    let transfer = |amount| json!({"from": "ada", "to": "bob", "amount": amount});
    let called = call(function, &[transfer(30), transfer(90), transfer(20)]).await;
    let [first, second, third] = called.answers.as_slice() else {
        panic!("{called:?}");
    };
    assert_eq!(first, &json!({"from": 70, "to": 30}));
    let why = second["errorMessage"].as_str().unwrap_or_default();
    assert!(why.contains("not enough on the account"), "{second}");
    assert_eq!(third, &json!({"from": 50, "to": 50}));
}

/// The number of rows in `audit`.
async fn audited(connection: &mut PgConnection) -> i64 {
    let count = sqlx::query_scalar("SELECT count(*) FROM audit");
    count.fetch_one(connection).await.expect("a number")
}

#[tokio::test]
async fn background_example_writes_audit_after_response() {
    let database = postgres().fresh_database().await;
    let payment = json!({"account": 7, "amount": 25});
    let function = local(&example("background")).env("DATABASE_URL", database.url());
    let called = call(function, std::slice::from_ref(&payment)).await;
    assert_eq!(called.answer(), &json!({"account": 7, "paid": 25}));

    let mut us = PgConnection::connect(database.url())
        .await
        .expect("a server");
    assert_eq!(audited(&mut us).await, 1);

    // The table is locked and nothing can be written, but the response is sent.
    let mut lock = us.begin().await.expect("a transaction");
    lock.execute("LOCK TABLE audit IN EXCLUSIVE MODE")
        .await
        .expect("a lock");
    let api = RuntimeApi::start().await;
    let _function = Function::builder(&api, Path::new(&example("background")))
        .env("DATABASE_URL", database.url())
        .start();
    let answer = api.invoke(&payment, Duration::from_secs(60)).await;
    assert_eq!(answer.json(), json!({"account": 7, "paid": 25}));
    database.wait_until_running(1).await;
    lock.commit().await.expect("unlocked");
    api.next_after(&answer.id).await;
    assert_eq!(audited(&mut us).await, 2);
    us.close().await.expect("a goodbye");
    database.wait_until_connections(0).await;
}

#[tokio::test]
async fn plain_lambda_runtime_example_returns_time() {
    let database = postgres().fresh_database().await;
    let api = RuntimeApi::start().await;
    let binary = example("plain_lambda_runtime");
    let _function = Function::builder(&api, Path::new(&binary))
        .env("DATABASE_URL", database.url())
        .start();
    let answer = api.invoke(&json!({}), Duration::from_secs(60)).await;
    assert!(answer.json()["now"].is_string(), "{}", answer.text());
}
