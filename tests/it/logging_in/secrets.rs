//! Secrets that do not fit, and providers that misbehave: each is named as what it is.

use super::login::log_in;
use aws_config::BehaviorVersion;
use aws_sdk_secretsmanager::config::{Credentials, Region, SharedCredentialsProvider};
use db_handler::{
    Error, LambdaEvent,
    credentials::{Secret, SecretFile},
    db_handler,
    sqlx::{self, PgConnection, PgPool},
};
use serde_json::json;
use std::{fs, sync::LazyLock, thread, time::Duration};
use support::{Aws, Postgres, aws, postgres, silent_listener};

fn event() -> LambdaEvent<()> {
    LambdaEvent::new((), db_handler::Context::default())
}

/// The server starts at its first use: not while a provider's time is running.
fn is_ready(_: &Postgres) {}

/// Everything but the password.
fn secret(password: &str) -> Secret {
    Secret::new(password)
        .host("127.0.0.1")
        .port(postgres().port())
        .user(Postgres::USER)
        .database("app")
}

/// Two handlers with the same provider.
macro_rules! handlers {
    ($single:ident, $pool:ident, $provider:ident $(, $key:ident($($setting:tt)*))*) => {
        #[db_handler(credentials = $provider $(, $key($($setting)*))*)]
        async fn $single(event: LambdaEvent<()>, db: &mut PgConnection) -> Result<(), Error> {
            let () = event.payload;
            sqlx::query("select 1").execute(db).await?;
            Ok(())
        }

        #[db_handler(credentials = $provider $(, $key($($setting)*))*)]
        async fn $pool(event: LambdaEvent<()>, db: &PgPool) -> Result<(), Error> {
            let () = event.payload;
            sqlx::query("select 1").execute(db).await?;
            Ok(())
        }
    };
}

/// Checks type and words of both handlers' errors.
macro_rules! assert_both {
    ([$($handler:ident),*], $error_type:literal, $words:expr, not $others:expr) => {$(
        let error = $handler(event()).await.expect_err("no secret that fits");
        let text = format!("{error:?}");
        assert_eq!(error.error_type(), $error_type, "{text}");
        for word in $words {
            assert!(text.contains(word), "no {word:?} in {text}");
        }
        for other in $others {
            assert!(!text.contains(other), "{other:?} in {text}");
        }
    )*};
}

#[tokio::test]
async fn a_secret_with_two_lines_is_named_as_such() {
    async fn two_lines() -> Result<Secret, Error> {
        Ok(secret("hunter2\nhunter3"))
    }
    handlers!(single, pool, two_lines);
    is_ready(postgres());
    assert_both!([single, pool], "CredentialsUnavailable", ["the password contains a line break"], not ["ready to serve", "hunter"]);
}

#[tokio::test]
async fn a_provider_that_panics_is_named() {
    #[allow(clippy::unused_async, reason = "it panics before it is one")]
    async fn panics() -> Result<Secret, Error> {
        panic!("the vault is on fire")
    }
    handlers!(single, pool, panics);
    assert_both!(
        [single, pool],
        "CredentialsUnavailable",
        ["panics", "panicked: the vault is on fire"],
        not["PostgreSQL panicked"]
    );
}

#[tokio::test]
async fn a_provider_that_blocks_its_thread_for_too_long_is_named() {
    async fn blocks() -> Result<Secret, Error> {
        thread::sleep(Duration::from_millis(700));
        Ok(secret(Postgres::PASSWORD))
    }
    handlers!(single, pool, blocks, pool(acquire_ms = 500));
    is_ready(postgres());
    assert_both!(
        [single, pool],
        "CredentialsUnavailable",
        ["blocks` took longer than 500 ms"],
        not["firewall"]
    );
}

#[tokio::test]
async fn what_a_provider_has_left_of_the_time_is_not_blamed_on_the_network() {
    static SILENT: LazyLock<support::SilentListener> = LazyLock::new(silent_listener);
    async fn slow() -> Result<Secret, Error> {
        thread::sleep(Duration::from_millis(3_100));
        Ok(secret(Postgres::PASSWORD).port(SILENT.port()))
    }
    #[db_handler(credentials = slow, pool(acquire_ms = 6000))]
    async fn single(event: LambdaEvent<()>, db: &mut PgConnection) -> Result<(), Error> {
        let () = event.payload;
        sqlx::query("select 1").execute(db).await?;
        Ok(())
    }
    is_ready(postgres());
    assert_both!(
        [single],
        "ConnectTimeout",
        ["getting what `credentials` provides took", "of the 6000 ms"],
        not["firewall"]
    );
}

#[tokio::test]
async fn a_host_in_a_secret_is_not_blamed_on_the_url() {
    async fn nowhere() -> Result<Secret, Error> {
        Ok(secret(Postgres::PASSWORD).host("no-such-host.invalid"))
    }
    #[db_handler(credentials = nowhere)]
    async fn single(event: LambdaEvent<()>, db: &mut PgConnection) -> Result<(), Error> {
        let () = event.payload;
        sqlx::query("select 1").execute(db).await?;
        Ok(())
    }
    is_ready(postgres());
    assert_both!(
        [single],
        "DatabaseUnreachable",
        ["is the host in what `credentials` provides right"],
        not["DATABASE_URL"]
    );
}

/// Redshift speaks PostgreSQL's protocol; an editor has put a mark in front.
#[tokio::test]
async fn the_secret_of_redshift_is_read_with_a_byte_order_mark() {
    static FILE: LazyLock<tempfile::NamedTempFile> =
        LazyLock::new(|| tempfile::NamedTempFile::new().expect("room for a file"));
    static SECRET: LazyLock<SecretFile> = LazyLock::new(|| {
        let path = FILE.path().display().to_string();
        SecretFile::json(Box::leak(path.into()))
    });
    let json = json!({
        "engine": "Redshift",
        "host": "127.0.0.1",
        "port": postgres().port(),
        "username": Postgres::USER,
        "password": Postgres::PASSWORD,
        "dbname": "app",
    });
    fs::write(FILE.path(), format!("\u{feff}{json}")).expect("room for a secret");
    handlers!(single, pool, SECRET);
    single(event()).await.expect("let in");
    pool(event()).await.expect("let in");
}

#[tokio::test]
async fn a_variable_that_is_missing_is_named_before_the_first_event() {
    for (handler, variable) in [("environment", "DB_PASSWORD"), ("secret", "DB_SECRET_ARN")] {
        for value in [None, Some((variable, ""))] {
            let set: Vec<_> = value.into_iter().collect();
            let called = log_in(handler, &set).await;
            assert_eq!(called.code, Some(1), "{called:?}");
            assert!(called.answers.is_empty(), "{called:?}");
            let expected =
                format!("init: credentials: the environment variable {variable} is not set");
            assert!(called.log.contains(&expected), "{}", called.log);
        }
    }
}

#[tokio::test]
async fn a_prefix_with_its_underscore_and_other_names_log_in() {
    let port = postgres().port().to_string();
    let variables = [
        ("DB_PASSWORD", Postgres::PASSWORD),
        ("DB_USERNAME", Postgres::USER),
        ("DB_NAME", "app"),
        ("DB_HOST", "127.0.0.1"),
        ("DB_PORT", port.as_str()),
    ];
    let called = log_in("environment", &variables).await;
    assert_eq!(called.answer()["user"], Postgres::USER, "{called:?}");
}

#[tokio::test]
async fn the_name_of_a_secret_may_stand_in_a_variable() {
    let (key_id, key) = aws().access_key();
    let config = aws_config::SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(Aws::REGION))
        .endpoint_url(aws().url())
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
            key_id, key, None, None, "test",
        )))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    let json = json!({
        "engine": "postgres",
        "host": "127.0.0.1",
        "port": postgres().port(),
        "username": Postgres::USER,
        "password": Postgres::PASSWORD,
        "dbname": "app",
    });
    let created = aws_sdk_secretsmanager::Client::new(&config)
        .create_secret()
        .name("prod/in-a-variable")
        .secret_string(json.to_string())
        .send()
        .await
        .expect("moto takes it");
    let arn = created.arn().expect("its ARN");
    let url = aws().url().clone();
    let variables = [
        ("DB_SECRET_ARN", arn),
        ("AWS_REGION", Aws::REGION),
        ("AWS_ACCESS_KEY_ID", key_id),
        ("AWS_SECRET_ACCESS_KEY", key),
        ("AWS_SESSION_TOKEN", ""),
        ("AWS_ENDPOINT_URL", &url),
    ];
    let called = log_in("secret", &variables).await;
    assert_eq!(called.answer()["user"], Postgres::USER, "{called:?}");
}
