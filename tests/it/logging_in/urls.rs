//! Errors and warnings about URLs, and the parts of URLs that they show.

use super::login::{assert_in, assert_refused};
use support::{mariadb, postgres};

/// Replaces the query of the URL.
fn with(url: &str, query: &str) -> String {
    format!(
        "{}?{query}",
        url.split_once('?').map_or(url, |(url, _)| url)
    )
}

#[tokio::test]
async fn unusable_certificate_file_is_named() {
    let no_file = "/nowhere/bundle.pem";
    let no_pem = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let (certificate, maria) = (postgres().certificate(), mariadb().certificate());
    let (certificate, maria) = (certificate.display(), maria.display());
    for handler in ["single", "pool"] {
        for (query, word) in [
            (
                format!("sslmode=verify-full&sslrootcert={no_file}"),
                no_file,
            ),
            (format!("sslmode=verify-ca&sslrootcert={no_pem}"), no_pem),
            (
                format!(
                    "sslmode=verify-full&sslrootcert={certificate}&sslcert={certificate}&sslkey={no_file}"
                ),
                "`sslkey`",
            ),
        ] {
            let url = with(&postgres().url(), &query);
            let message = assert_refused(handler, &url, "InvalidUrl", &[word]).await;
            assert!(!message.contains("running"), "{message}");
        }
    }
    for handler in ["mysql_single", "mysql_pool"] {
        let url = with(
            &mariadb().url(),
            &format!("ssl-mode=VERIFY_CA&ssl-ca={no_file}"),
        );
        assert_refused(handler, &url, "InvalidUrl", &[no_file, "`ssl-ca`"]).await;
        let url = with(
            &mariadb().url(),
            &format!("ssl-mode=VERIFY_IDENTITY&ssl-ca={maria}"),
        );
        assert_in(handler, &url, true).await;
    }
}

#[tokio::test]
async fn at_sign_in_parameter_is_not_part_of_password() {
    let url = with(&postgres().url(), "sslmode=disable&application_name=a@b");
    for handler in ["single", "pool"] {
        assert_in(handler, &url, false).await;
    }
}

#[tokio::test]
async fn unknown_parameter_is_logged_without_value() {
    for (handler, url, query) in [
        ("single", postgres().url(), "sslmode=disable&passwd=hunter2"),
        ("pool", postgres().url(), "sslmode=disable&passwd=hunter2"),
        (
            "mysql_single",
            mariadb().url(),
            "ssl-mode=DISABLED&passwd=hunter2",
        ),
        (
            "mysql_pool",
            mariadb().url(),
            "ssl-mode=DISABLED&passwd=hunter2",
        ),
    ] {
        // All of these calls also assert that no value is shown.
        let called = assert_in(handler, &with(&url, query), false).await;
        let said = called.log.lines().filter(|line| line.contains("passwd"));
        assert_eq!(said.count(), 1, "{}", called.log);
    }
}

#[tokio::test]
async fn password_in_place_of_port_is_not_shown() {
    for (handler, scheme) in [
        ("single", "postgres"),
        ("pool", "postgres"),
        ("mysql_single", "mysql"),
    ] {
        let url = format!("{scheme}://app:12345/shop");
        let words = ["neither a user nor an `@`", "user:password@host"];
        let message = assert_refused(handler, &url, "InvalidUrl", &words).await;
        assert!(!message.contains("12345"), "{message}");
    }
}

#[tokio::test]
async fn time_zone_is_escaped_in_statement() {
    for handler in ["mysql_single", "mysql_pool"] {
        for (value, named) in [(r"\',@stray:='yes'%23", "timezone"), (r"%5C'", "timezone")] {
            let url = with(
                &mariadb().url(),
                &format!("ssl-mode=DISABLED&timezone={value}"),
            );
            assert_refused(handler, &url, "InvalidUrl", &[named]).await;
        }
        let url = with(&mariadb().url(), "ssl-mode=DISABLED&timezone=-03:00");
        assert_in(handler, &url, false).await;
    }
}

#[tokio::test]
async fn invalid_ssl_mode_is_named() {
    let url = with(&postgres().url(), "sslmode=verify_full");
    let words = ["`sslmode` is none of disable, allow"];
    assert_refused("single", &url, "InvalidUrl", &words).await;
    let url = with(&mariadb().url(), "ssl-mode=require");
    let words = ["`ssl-mode` is none of DISABLED, PREFERRED"];
    assert_refused("mysql_single", &url, "InvalidUrl", &words).await;
}
