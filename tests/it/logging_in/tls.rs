//! Passwords are sent to another machine in plain text only if the URL allows it; tokens are sent only to a server
//! with a verified hostname.

use super::login::{
    assert_in, assert_refused, from_elsewhere, insert_into_mongodb, log_in, mongodb_url_at,
};
use serde_json::json;
use std::{net::SocketAddr, sync::LazyLock};
use support::{MariaDb, MongoDb, Postgres, mariadb, mongodb, postgres};

static POSTGRES_WITHOUT_TLS: LazyLock<Postgres> =
    LazyLock::new(|| Postgres::builder().setting("ssl", "off").start());
static MARIADB_WITHOUT_TLS: LazyLock<MariaDb> =
    LazyLock::new(|| MariaDb::builder().setting("ssl", "0").start());

fn postgres_url(address: impl Into<SocketAddr>, query: &str) -> String {
    let (user, password, address) = (Postgres::USER, Postgres::PASSWORD, address.into());
    format!("postgres://{user}:{password}@{address}/app?{query}")
}

fn mysql_url(address: impl Into<SocketAddr>, query: &str) -> String {
    let (user, password, address) = (MariaDb::USER, MariaDb::PASSWORD, address.into());
    format!("mysql://{user}:{password}@{address}/app?{query}")
}

#[tokio::test]
async fn remote_server_uses_tls_by_default() {
    let address = from_elsewhere(postgres().port()).await;
    for handler in ["single", "pool"] {
        assert_in(handler, &postgres_url(address, ""), true).await;
        assert_in(handler, &postgres_url(address, "sslmode=disable"), false).await;
    }
    let address = from_elsewhere(mariadb().port()).await;
    for handler in ["mysql_single", "mysql_pool"] {
        assert_in(handler, &mysql_url(address, ""), true).await;
        assert_in(handler, &mysql_url(address, "ssl-mode=DISABLED"), false).await;
    }
}

#[tokio::test]
async fn server_without_tls_gets_no_password_and_error_names_both_fixes() {
    let port = POSTGRES_WITHOUT_TLS.port();
    let address = from_elsewhere(port).await;
    for handler in ["single", "pool"] {
        let words = [
            "`sslmode=disable`",
            "network is trusted",
            "enable TLS on the server",
        ];
        assert_refused(handler, &postgres_url(address, ""), "Tls", &words).await;
        let required = postgres_url(([127, 0, 0, 1], port), "sslmode=require");
        assert_refused(handler, &required, "Tls", &words).await;
        assert_in(handler, &postgres_url(address, "sslmode=prefer"), false).await;
        assert_in(handler, &postgres_url(([127, 0, 0, 1], port), ""), false).await;
    }
    let url = postgres_url(address, "");
    let stated = [("DATABASE_URL", url.as_str()), ("PGSSLMODE", "disable")];
    let called = log_in("single", &stated).await;
    assert_eq!(called.answer()["tls"], false, "{called:?}");
    let wrong = [("DATABASE_URL", url.as_str()), ("PGSSLMODE", "verify_full")];
    let called = log_in("single", &wrong).await;
    let (error_type, message) = called.error();
    assert_eq!(error_type, "InvalidUrl", "{message}");
    assert!(message.contains("`PGSSLMODE` is none of"), "{message}");

    let port = MARIADB_WITHOUT_TLS.port();
    let address = from_elsewhere(port).await;
    for handler in ["mysql_single", "mysql_pool"] {
        let words = [
            "`ssl-mode=DISABLED`",
            "network is trusted",
            "enable TLS on the server",
        ];
        assert_refused(handler, &mysql_url(address, ""), "Tls", &words).await;
        assert_in(handler, &mysql_url(address, "ssl-mode=PREFERRED"), false).await;
        assert_in(handler, &mysql_url(([127, 0, 0, 1], port), ""), false).await;
    }
}

/// A URL without a password, for a token.
fn token_url(query: &str) -> String {
    let (user, port) = (Postgres::USER, postgres().port());
    format!("postgres://{user}@127.0.0.1:{port}/app?{query}")
}

fn mysql_token_url(query: &str) -> String {
    let (user, port) = (MariaDb::USER, mariadb().port());
    format!("mysql://{user}@127.0.0.1:{port}/app?{query}")
}

#[tokio::test]
async fn token_requires_sslmode_that_verifies_hostname() {
    let certificate = postgres().certificate().display();
    let words = ["IAM token", "write `sslmode=verify-full`"];
    for handler in ["token", "token_pool"] {
        for query in ["sslmode=disable", "sslmode=prefer", "sslmode=verify-ca"] {
            assert_refused(handler, &token_url(query), "Tls", &words).await;
        }
    }
    assert_refused("token", &token_url("sslmode=allow"), "Tls", &words).await;
    for query in ["", "sslmode=require"] {
        // As strict as `verify-full`: the certificate is self-signed.
        assert_refused("token", &token_url(query), "Tls", &["certificate"]).await;
        let query = format!("{query}&sslrootcert={certificate}");
        assert_refused("token", &token_url(&query), "Authentication", &[]).await;
    }
    let query = format!("sslmode=verify-ca&sslrootcert={certificate}");
    assert_refused("token", &token_url(&query), "Authentication", &[]).await;
}

#[tokio::test]
async fn mysql_token_is_sent_only_to_verified_hostname() {
    let certificate = mariadb().certificate().display();
    let words = ["IAM token", "write `ssl-mode=VERIFY_IDENTITY`"];
    for query in [
        "ssl-mode=DISABLED",
        "ssl-mode=PREFERRED",
        "ssl-mode=VERIFY_CA",
    ] {
        assert_refused("mysql_token", &mysql_token_url(query), "Tls", &words).await;
    }
    for query in ["", "ssl-mode=REQUIRED"] {
        let url = mysql_token_url(query);
        assert_refused("mysql_token", &url, "Tls", &["certificate"]).await;
        let url = mysql_token_url(&format!("{query}&ssl-ca={certificate}"));
        assert_refused("mysql_token", &url, "Authentication", &[]).await;
    }
}

#[tokio::test]
async fn token_for_any_server_follows_url() {
    let url = token_url("sslmode=disable");
    assert_refused("token_for_anybody", &url, "Authentication", &[]).await;
    let url = mysql_token_url("ssl-mode=DISABLED");
    assert_refused("mysql_token_for_anybody", &url, "Authentication", &[]).await;
}

#[tokio::test]
async fn remote_mongodb_uses_tls_by_default() {
    let address = from_elsewhere(mongodb().port()).await;
    let url = mongodb_url_at(address);
    let called = insert_into_mongodb(&url).await;
    let (_, message) = called.error();
    assert!(message.contains("`tls=false`"), "{message}");
    assert!(!format!("{called:?}").contains(MongoDb::PASSWORD));
    let called = insert_into_mongodb(&format!("{url}&tls=false")).await;
    assert_eq!(called.answer(), &json!(1), "{called:?}");
}
