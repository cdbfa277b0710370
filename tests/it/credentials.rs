//! Credentials from a provider instead of the URL, against live servers, with rotation.

use crate::FUNCTION;
use aws_config::BehaviorVersion;
use aws_sdk_secretsmanager::{
    Client,
    config::{Credentials, Region},
};
use db_handler::{
    Error, LambdaEvent,
    credentials::{Provider, Secret, SecretFile, SecretsManager, Target},
    db_handler,
    sqlx::{self, AssertSqlSafe, Connection, PgConnection, PgPool, postgres::PgConnectOptions},
};
use serde_json::json;
use std::{
    fs,
    path::PathBuf,
    str::FromStr,
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use support::{Aws, Postgres, aws, postgres, wait_for};
use tokio::time::{sleep, timeout};

fn event() -> LambdaEvent<()> {
    LambdaEvent::new((), db_handler::Context::default())
}

/// Upper bound of the measurements.
const LONGEST: Duration = Duration::from_secs(60);

/// A secret in RDS's format for a user of the shared server.
fn rds_json(user: &str, password: &str) -> String {
    json!({
        "engine": "postgres",
        "host": "127.0.0.1",
        "port": postgres().port(),
        "username": user,
        "password": password,
        "dbname": "app",
    })
    .to_string()
}

/// Replaces the file atomically, as mounted secrets are replaced.
fn replace(file: &PathBuf, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).expect("room for a secret");
    fs::rename(&new, file).expect("the same folder");
}

async fn create_role(name: &str, password: &str) {
    let mut admin = postgres().admin().await;
    let sql = format!("create role {name} login password '{password}'");
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut admin)
        .await
        .expect("the observer may");
}

async fn alter_role(name: &str, password: &str) {
    let mut admin = postgres().admin().await;
    let sql = format!("alter role {name} password '{password}'");
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut admin)
        .await
        .expect("the observer may");
}

/// How often the server has rejected the password of `user`.
fn denials(user: &str) -> usize {
    let said = format!("password authentication failed for user \"{user}\"");
    postgres().log().matches(&said).count()
}

const USER_AND_LABEL: &str = "select current_user || ' ' || current_setting('application_name')";

mod files {
    use super::*;

    static FOLDER: LazyLock<tempfile::TempDir> =
        LazyLock::new(|| tempfile::tempdir().expect("room for a folder"));
    static FILE: LazyLock<PathBuf> = LazyLock::new(|| FOLDER.path().join("secret.json"));
    static ROTATING: LazyLock<SecretFile> =
        LazyLock::new(|| SecretFile::json(Box::leak(FILE.display().to_string().into())));

    #[db_handler(credentials = ROTATING, pool(max = 2))]
    async fn single(event: LambdaEvent<()>, db: &mut PgConnection) -> Result<String, Error> {
        let () = event.payload;
        Ok(sqlx::query_scalar(USER_AND_LABEL).fetch_one(db).await?)
    }

    #[db_handler(credentials = ROTATING, pool(max = 2))]
    async fn pooled(event: LambdaEvent<()>, db: &PgPool) -> Result<String, Error> {
        let () = event.payload;
        Ok(sqlx::query_scalar(USER_AND_LABEL).fetch_one(db).await?)
    }

    #[db_handler(credentials = ROTATING, pool(max = 2), close = "never")]
    async fn kept(event: LambdaEvent<()>, db: &mut PgConnection) -> Result<String, Error> {
        let () = event.payload;
        let user = sqlx::query_scalar(USER_AND_LABEL)
            .fetch_one(&mut *db)
            .await?;
        // The next invocation needs a new connection.
        let _ = sqlx::query("select pg_terminate_backend(pg_backend_pid())")
            .execute(db)
            .await;
        Ok(user)
    }

    /// Ten rotations under load. The server and the file take turns in changing first.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn rotation_fails_no_invocation() {
        support::alone();
        create_role("rotated", "generation-0").await;
        replace(&FILE, &rds_json("rotated", "generation-0"));
        let over = AtomicBool::new(false);
        let answered: [AtomicUsize; 3] = Default::default();
        let judge = |of: usize, outcome: Result<String, Error>| {
            let seen = outcome.expect("no rotation is a reason to fail");
            assert!(seen.starts_with("rotated it-"), "{seen}");
            answered[of].fetch_add(1, Ordering::Relaxed);
        };
        let count = || {
            let counts = answered.each_ref();
            counts.map(|count| count.load(Ordering::Relaxed))
        };
        let several_at_once = async |of| {
            while !over.load(Ordering::Relaxed) {
                judge(of, single(event()).await);
                judge(of, kept(event()).await);
            }
        };
        let one_by_one = async {
            while !over.load(Ordering::Relaxed) {
                judge(2, pooled(event()).await);
            }
        };
        let rotate = async {
            for generation in 1..=10 {
                let password = format!("generation-{generation}");
                let json = rds_json("rotated", &password);
                let turned_away = denials("rotated");
                let somebody_is_turned_away = async || {
                    let what = "a login between the two halves of a rotation";
                    let look = async || denials("rotated");
                    wait_for(what, look, |denials| *denials > turned_away).await;
                };
                if generation % 2 == 0 {
                    alter_role("rotated", &password).await;
                    somebody_is_turned_away().await;
                    replace(&FILE, &json);
                } else {
                    replace(&FILE, &json);
                    somebody_is_turned_away().await;
                    alter_role("rotated", &password).await;
                }
                // One rotation at a time: invocations that began during this one have ended.
                let before = count();
                let each_has_ended_one =
                    |now: &[usize; 3]| before.iter().zip(now).all(|(before, now)| now > before);
                let look = async || count();
                wait_for("the invocations under way", look, each_has_ended_one).await;
            }
            over.store(true, Ordering::Relaxed);
        };
        let running = Box::pin(async {
            tokio::join!(several_at_once(0), several_at_once(1), one_by_one, rotate)
        });
        timeout(LONGEST, running).await.expect("in time");
        println!(
            "{} invocations, 10 rotations, none failed",
            count().iter().sum::<usize>()
        );
    }
}

mod refused {
    use super::*;

    async fn outdated() -> Result<Secret, Error> {
        Secret::from_rds_json(&rds_json("misled", "hunter2"))
    }

    #[db_handler(credentials = outdated, pool(acquire_ms = 20_000))]
    async fn handler(event: LambdaEvent<()>, db: &mut PgConnection) -> Result<(), Error> {
        let () = event.payload;
        sqlx::query("select 1").execute(db).await?;
        Ok(())
    }

    #[tokio::test]
    async fn wrong_password_is_tried_twice_and_not_shown() {
        let failed_before = failures();
        let error = handler(event()).await.expect_err("the wrong password");
        assert_eq!(error.error_type(), "Authentication");
        let text = format!("{error:?}");
        assert!(text.contains("what `credentials` provides"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
        assert_eq!(failures() - failed_before, 2, "{}", postgres().log());
    }

    fn failures() -> usize {
        let log = postgres().log();
        assert!(!log.contains("hunter2"), "{log}");
        denials("misled")
    }
}

mod secrets_manager {
    use super::*;

    fn client(key: &str) -> Client {
        client_of(aws().url(), key)
    }

    fn client_of(endpoint: impl Into<String>, key: &str) -> Client {
        let (key_id, _) = aws().access_key();
        let config = aws_config::SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(Aws::REGION))
            .endpoint_url(endpoint)
            .credentials_provider(
                aws_sdk_secretsmanager::config::SharedCredentialsProvider::new(Credentials::new(
                    key_id, key, None, None, "test",
                )),
            )
            .http_client(plain_http())
            .sleep_impl(aws_sdk_secretsmanager::config::SharedAsyncSleep::new(Sleep))
            .build();
        Client::new(&config)
    }

    /// The SDK's sleep implementation.
    #[derive(Debug)]
    struct Sleep;

    impl aws_sdk_secretsmanager::config::AsyncSleep for Sleep {
        fn sleep(&self, duration: Duration) -> aws_sdk_secretsmanager::config::Sleep {
            aws_sdk_secretsmanager::config::Sleep::new(sleep(duration))
        }
    }

    fn plain_http() -> impl aws_sdk_secretsmanager::config::HttpClient + 'static {
        aws_smithy_http_client::Builder::new().build_http()
    }

    fn ours() -> Client {
        let (_, key) = aws().access_key();
        client(key)
    }

    static SECRET: LazyLock<SecretsManager> =
        LazyLock::new(|| SecretsManager::secret("prod/shop/db").client(ours()));

    #[db_handler(credentials = SECRET)]
    async fn single(event: LambdaEvent<()>, db: &mut PgConnection) -> Result<String, Error> {
        let () = event.payload;
        Ok(sqlx::query_scalar(USER_AND_LABEL).fetch_one(db).await?)
    }

    /// The secret is cached for an hour: only a rejected login triggers another fetch.
    #[tokio::test]
    async fn rejected_secret_is_fetched_again() {
        create_role("managed", "first").await;
        ours()
            .create_secret()
            .name("prod/shop/db")
            .secret_string(rds_json("managed", "first"))
            .send()
            .await
            .expect("moto takes it");
        let seen = single(event()).await.expect("the secret holds");
        assert!(seen.starts_with("managed "), "{seen}");

        alter_role("managed", "second").await;
        ours()
            .put_secret_value()
            .secret_id("prod/shop/db")
            .secret_string(rds_json("managed", "second"))
            .send()
            .await
            .expect("moto takes it");
        for _ in 0..2 {
            let seen = single(event()).await.expect("fetched afresh");
            assert!(seen.starts_with("managed "), "{seen}");
        }
    }

    async fn refused(provider: SecretsManager) -> String {
        let provider: &'static SecretsManager = Box::leak(Box::new(provider));
        let error = provider
            .fetch(&target())
            .await
            .expect_err("not handed over");
        assert_eq!(error.error_type(), "Credentials");
        format!("{error:?}")
    }

    /// The target of any handler: this provider ignores it.
    fn target() -> Target {
        static SEEN: Mutex<Option<Target>> = Mutex::new(None);
        struct Looking;
        impl Provider for Looking {
            async fn fetch(&self, target: &Target) -> Result<Secret, Error> {
                *SEEN.lock().expect("whole") = Some(target.clone());
                Err(Error::other("seen"))
            }
        }
        static LOOKING: Looking = Looking;
        #[db_handler(credentials = LOOKING)]
        async fn handler(event: LambdaEvent<()>, db: &mut PgConnection) -> Result<(), Error> {
            let _ = (event, db);
            Ok(())
        }
        futures_util::future::FutureExt::now_or_never(handler(event()));
        SEEN.lock().expect("whole").clone().expect("seen")
    }

    #[tokio::test]
    async fn service_errors_are_reported_without_access_key() {
        let missing = refused(SecretsManager::secret("prod/nothing").client(ours())).await;
        assert!(missing.contains("prod/nothing"), "{missing}");
        assert!(missing.contains("ResourceNotFoundException"), "{missing}");

        // The stand-in checks signatures. The requests below show that the one above was correctly signed.
        let wrong = client("hunter2-is-not-the-key");
        let forged = refused(SecretsManager::secret("prod/nothing").client(wrong)).await;
        assert!(forged.contains("ignature"), "{forged}");
        assert!(!forged.contains("hunter2"), "{forged}");

        ours()
            .create_secret()
            .name("prod/gone")
            .secret_string(rds_json("app", Postgres::PASSWORD))
            .send()
            .await
            .expect("moto takes it");
        ours()
            .delete_secret()
            .secret_id("prod/gone")
            .send()
            .await
            .expect("moto deletes it");
        let gone = refused(SecretsManager::secret("prod/gone").client(ours())).await;
        assert!(gone.contains("InvalidRequestException"), "{gone}");
        assert!(!gone.contains(Postgres::PASSWORD), "{gone}");
    }

    /// The response contains the secret and is truncated.
    #[tokio::test]
    async fn unreadable_response_is_not_shown() {
        let url = always_answering(r#"{"Name": "prod/half", "SecretString": "hunter2", "#).await;
        let client = client_of(url, "any");
        let unread = refused(SecretsManager::secret("prod/half").client(client)).await;
        assert!(unread.contains("prod/half"), "{unread}");
        assert!(!unread.contains("hunter2"), "{unread}");
    }
}

/// Starts an HTTP server that responds to every request with `body`, and returns its URL.
async fn always_answering(body: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("its port"));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(move |_| async move {
                let body = http_body_util::Full::new(bytes::Bytes::from(body));
                Ok::<_, std::convert::Infallible>(hyper::Response::new(body))
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(hyper_util::rt::TokioIo::new(stream), service);
            // The client closes the connection early.
            tokio::spawn(async { drop(connection.await) });
        }
    });
    url
}

mod iam {
    use super::*;
    use std::path::Path;
    use support::caller::{call, local};

    const KEY: &str = "hunter2-signs-with-this";
    const SESSION: &str = "hunter2-is-the-session";

    /// The error of a function with these variables besides the URL and the signer's.
    async fn refused(query: &str, variables: &[(&str, &str)]) -> (String, String) {
        let port = postgres().port();
        let url = format!("postgres://{}@127.0.0.1:{port}/app?{query}", Postgres::USER);
        let mut function = local(Path::new(FUNCTION))
            .env("FUNCTION", "iam")
            .env("DATABASE_URL", url)
            .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", KEY)
            .env("AWS_SESSION_TOKEN", SESSION);
        for (name, value) in variables {
            function = function.env(name, value);
        }
        let called = call(function, &[json!(null)]).await;
        let shown = format!("{called:?}");
        assert!(
            !shown.contains("hunter2") && !shown.contains("X-Amz-Signature"),
            "{shown}"
        );
        let text = |field: &str| {
            called.answers[0][field]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        (text("errorType"), text("errorMessage"))
    }

    const REGION: (&str, &str) = ("AWS_REGION", "eu-west-1");

    #[tokio::test]
    async fn missing_setting_is_named() {
        let (kind, message) = refused("sslmode=disable", &[("AWS_REGION", "")]).await;
        assert_eq!(kind, "Credentials", "{message}");
        assert!(message.contains("AWS_REGION is not set"), "{message}");
        let (kind, message) =
            refused("sslmode=disable", &[REGION, ("AWS_ACCESS_KEY_ID", "")]).await;
        assert_eq!(kind, "Credentials", "{message}");
        assert!(
            message.contains("AWS_ACCESS_KEY_ID is not set"),
            "{message}"
        );
    }

    /// The URL has no TLS setting.
    #[tokio::test]
    async fn token_is_not_sent_to_unverified_server() {
        let (kind, message) = refused("", &[REGION]).await;
        assert_eq!(kind, "Tls", "{message}");
    }

    /// The server does not accept tokens, but it has received one.
    #[tokio::test]
    async fn token_is_sent_to_verified_server() {
        let certificate = postgres().certificate().display();
        let (kind, message) = refused(&format!("sslrootcert={certificate}"), &[REGION]).await;
        assert_eq!(kind, "Authentication", "{message}");
        let log = postgres().log();
        assert!(!log.contains("X-Amz-Signature"), "{log}");
    }
}

#[tokio::test]
async fn secret_can_contain_only_password() {
    static OPTIONS: LazyLock<PgConnectOptions> =
        LazyLock::new(|| PgConnectOptions::from_str(&postgres().url()).expect("a URL"));
    async fn everything() -> Result<Secret, Error> {
        Ok(Secret::new(Postgres::PASSWORD)
            .host(OPTIONS.get_host())
            .port(OPTIONS.get_port())
            .user(OPTIONS.get_username())
            .database("app"))
    }
    #[db_handler(credentials = everything, connect = "eager")]
    async fn handler(event: LambdaEvent<()>, db: &mut PgConnection) -> Result<bool, Error> {
        let () = event.payload;
        Ok(db.ping().await.is_ok())
    }
    // Starts the server before the provider's time limit begins.
    LazyLock::force(&OPTIONS);
    assert!(handler(event()).await.expect("let in"));
}
