//! An annotated handler is an ordinary function of the event, which `lambda_runtime` and tower layers accept.
//! Without `db_handler::run`, the pool is closed before the response is posted instead of after it.

use db_handler::{
    db_handler,
    sqlx::{self, PgPool},
};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::{Value, json};

#[db_handler]
async fn now(_event: LambdaEvent<Value>, db: &PgPool) -> Result<Value, Error> {
    let now: String = sqlx::query_scalar("SELECT now()::text")
        .fetch_one(db)
        .await?;
    Ok(json!({ "now": now }))
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    lambda_runtime::run(service_fn(now)).await
}
