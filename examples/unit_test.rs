//! Tests an annotated handler like any other function.
//!
//! The handler reads its URL from the environment in tests, too. `std::env::set_var` is `unsafe` in edition 2024, and
//! tests run concurrently: let cargo set the variable in `.cargo/config.toml`, beside your `Cargo.toml` or above it.
//!
//! ```toml
//! [env]
//! UNIT_TEST_DATABASE_URL = "sqlite::memory:"
//! ```
//!
//! ```sh
//! cargo test -p db-handler-examples --example unit_test
//! ```

use db_handler::{
    Error, ErrorKind, LambdaEvent, db_handler,
    sqlx::{self, SqlitePool},
};

#[db_handler(env = "UNIT_TEST_DATABASE_URL")]
async fn double(event: LambdaEvent<i64>, db: &SqlitePool) -> Result<i64, Error> {
    if event.payload < 0 {
        return Err(Error::new(
            ErrorKind::Event,
            format!("{} is negative", event.payload),
        ));
    }
    let doubled = sqlx::query_scalar("SELECT ? * 2")
        .bind(event.payload)
        .fetch_one(db)
        .await?;
    Ok(doubled)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    db_handler::run(double).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use db_handler::{Context, Stage};

    /// An event without a request id and a deadline, which a test rarely needs.
    fn event<T>(payload: T) -> LambdaEvent<T> {
        LambdaEvent::new(payload, Context::default())
    }

    #[tokio::test]
    async fn doubles_number() {
        assert_eq!(double(event(21)).await.ok(), Some(42));
    }

    #[tokio::test]
    async fn rejects_negative_number() {
        let error = double(event(-1)).await.expect_err("negative");
        assert_eq!(error.kind(), ErrorKind::Event);
        assert_eq!(error.to_string(), "handler: -1 is negative");
    }

    /// The error for a missing variable.
    #[tokio::test]
    async fn missing_url_names_variable_to_set() {
        #[db_handler(env = "UNIT_TEST_SET_NOWHERE")]
        async fn forgotten(event: LambdaEvent<i64>, db: &SqlitePool) -> Result<i64, Error> {
            let _ = db;
            Ok(event.payload)
        }

        let error = forgotten(event(21)).await.expect_err("no URL");
        assert_eq!(error.stage(), Stage::Acquire);
        assert_eq!(error.kind(), ErrorKind::MissingUrl);
        assert_eq!(
            error.to_string(),
            "unit_test::tests::forgotten: acquire: the environment variable UNIT_TEST_SET_NOWHERE is not set: set it to the database's URL"
        );
    }
}
