//! Every example does what it says.

use serde_json::json;
use std::{path::Path, time::Duration};
use support::{
    caller::{call, local},
    example,
    function::Function,
    mariadb, postgres,
    runtime_api::RuntimeApi,
};

#[tokio::test]
async fn the_postgres_example_stores_orders() {
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
async fn the_mariadb_example_stores_orders() {
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
async fn the_concurrent_queries_example_finds_and_counts() {
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
async fn the_single_connection_example_greets() {
    let database = postgres().fresh_database().await;
    let function = local(&example("single_connection")).env("DATABASE_URL", database.url());
    let called = call(function, &[json!({"name": "Ada"}), json!({"name": "Bob"})]).await;
    assert_eq!(called.answers, [json!("Hello, Ada!"), json!("Hello, Bob!")]);
}

#[tokio::test]
async fn the_plain_lambda_runtime_example_tells_the_time() {
    let database = postgres().fresh_database().await;
    let api = RuntimeApi::start().await;
    let binary = example("plain_lambda_runtime");
    let _function = Function::builder(&api, Path::new(&binary))
        .env("DATABASE_URL", database.url())
        .start();
    let answer = api.invoke(&json!({}), Duration::from_secs(60)).await;
    assert!(answer.json()["now"].is_string(), "{}", answer.text());
}
