//! `crate = ...` finds a runtime that is renamed in `Cargo.toml`.

use database::{Context, Error, ErrorKind, LambdaEvent, db_handler, sqlx::PgPool};

#[db_handler(crate = ::database, env = "SET_NOWHERE")]
async fn handler(event: LambdaEvent<u32>, db: &PgPool) -> Result<u32, Error> {
    let _ = db;
    Ok(event.payload)
}

#[tokio::test]
async fn renamed_dependency_is_found() {
    let event = LambdaEvent::new(1, Context::default());
    let error = Box::pin(handler(event)).await;
    let error = error.expect_err("a variable that is not set");
    assert_eq!(error.kind(), ErrorKind::MissingUrl);
    assert!(error.to_string().contains("SET_NOWHERE"), "{error}");
}
