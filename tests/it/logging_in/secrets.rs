//! Invalid secrets and failing providers: each has its own error.

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

/// Starts the server before the provider's time limit begins.
fn is_ready(_: &Postgres) {}

/// A secret with all fields and this password.
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
async fn line_break_in_secret_is_reported() {
    async fn two_lines() -> Result<Secret, Error> {
        Ok(secret("hunter2\nhunter3"))
    }
    handlers!(single, pool, two_lines);
    is_ready(postgres());
    assert_both!([single, pool], "Credentials", ["the password contains a line break"], not ["ready to serve", "hunter"]);
}

#[tokio::test]
async fn nul_in_secret_is_reported_without_value() {
    async fn user() -> Result<Secret, Error> {
        Ok(secret("hunter2").user("hunter\0x"))
    }
    async fn database() -> Result<Secret, Error> {
        Ok(secret("hunter2").database("hunter\0x"))
    }
    async fn host() -> Result<Secret, Error> {
        Ok(secret("hunter2").host("hunter\0x"))
    }
    is_ready(postgres());
    {
        handlers!(single, pool, user);
        assert_both!(
            [single, pool],
            "Credentials",
            ["the user in the secret contains a NUL character"],
            not["hunter"]
        );
    }
    {
        handlers!(single, pool, database);
        assert_both!(
            [single, pool],
            "Credentials",
            ["the database in the secret contains a NUL character"],
            not["hunter"]
        );
    }
    handlers!(single, pool, host);
    assert_both!(
        [single, pool],
        "Credentials",
        ["the host in the secret contains a NUL character"],
        not["hunter"]
    );
}

/// Reading it would block, or never end.
#[tokio::test]
async fn irregular_secret_file_is_rejected() {
    static FOLDER: LazyLock<tempfile::TempDir> =
        LazyLock::new(|| tempfile::tempdir().expect("room for a folder"));
    static FIFO: LazyLock<SecretFile> = LazyLock::new(|| {
        let path = FOLDER.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.is_ok_and(|made| made.success()), "mkfifo");
        // Kubernetes mounts secrets as links, too.
        let link = FOLDER.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("room for a link");
        SecretFile::password(Box::leak(link.display().to_string().into()))
    });
    static DEVICE: SecretFile = SecretFile::password("/dev/zero");
    static DIRECTORY: SecretFile = SecretFile::json("/");
    is_ready(postgres());
    {
        handlers!(single, pool, FIFO);
        assert_both!(
            [single, pool],
            "Credentials",
            ["/link: it is a FIFO, and not a regular file"],
            not["took longer"]
        );
    }
    {
        handlers!(single, pool, DEVICE);
        assert_both!(
            [single, pool],
            "Credentials",
            ["/dev/zero: it is a device, and not a regular file"],
            not["took longer"]
        );
    }
    handlers!(single, pool, DIRECTORY);
    assert_both!(
        [single, pool],
        "Credentials",
        ["cannot read /: it is a directory, and not a regular file"],
        not["took longer"]
    );
}

/// Kubernetes mounts secrets as links to links.
#[tokio::test]
async fn secret_file_behind_links_is_read() {
    static FOLDER: LazyLock<tempfile::TempDir> =
        LazyLock::new(|| tempfile::tempdir().expect("room for a folder"));
    static FILE: LazyLock<SecretFile> = LazyLock::new(|| {
        let folder = FOLDER.path();
        let json = json!({
            "host": "127.0.0.1",
            "port": postgres().port(),
            "username": Postgres::USER,
            "password": Postgres::PASSWORD,
            "dbname": "app",
        });
        fs::create_dir(folder.join("..2026")).expect("room for a folder");
        fs::write(folder.join("..2026/db.json"), json.to_string()).expect("room for a file");
        std::os::unix::fs::symlink("..2026", folder.join("..data")).expect("room for a link");
        std::os::unix::fs::symlink("..data/db.json", folder.join("db.json")).expect("room for one");
        SecretFile::json(Box::leak(
            folder.join("db.json").display().to_string().into(),
        ))
    });
    is_ready(postgres());
    handlers!(single, pool, FILE);
    single(event()).await.expect("let in");
    pool(event()).await.expect("let in");
}

#[tokio::test]
async fn panicking_provider_is_named() {
    #[allow(clippy::unused_async, reason = "it panics before it is one")]
    async fn panics() -> Result<Secret, Error> {
        panic!("the vault is on fire")
    }
    handlers!(single, pool, panics);
    assert_both!(
        [single, pool],
        "Credentials",
        ["panics", "panicked: the vault is on fire"],
        not["PostgreSQL panicked"]
    );
}

#[tokio::test]
async fn blocking_provider_is_named() {
    async fn blocks() -> Result<Secret, Error> {
        thread::sleep(Duration::from_millis(700));
        Ok(secret(Postgres::PASSWORD))
    }
    handlers!(single, pool, blocks, pool(acquire_ms = 500));
    is_ready(postgres());
    assert_both!(
        [single, pool],
        "Credentials",
        ["blocks` took longer than 500 ms"],
        not["firewall"]
    );
}

#[tokio::test]
async fn slow_provider_is_not_reported_as_network_error() {
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
async fn host_in_secret_is_not_attributed_to_url() {
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
        "ServerUnreachable",
        ["is the host in what `credentials` provides right"],
        not["DATABASE_URL"]
    );
}

/// Redshift uses PostgreSQL's protocol. The file starts with a byte order mark, as some editors write it.
#[tokio::test]
async fn redshift_secret_with_byte_order_mark_is_read() {
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
async fn missing_variable_is_named_before_first_event() {
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
async fn prefix_with_underscore_and_custom_names_log_in() {
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
async fn secret_name_can_come_from_variable() {
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
