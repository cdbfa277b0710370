//! How strictly a connection is encrypted: as the URL says, or by default.

use super::driver::{CertificateFile, Identify, TlsMode, TlsModePart, TlsParts, TlsWords};
use crate::{
    credentials::Secret,
    util::{lock::lock, regular_file},
};
use sqlx_core::net::tls;
use std::{path::Path, sync::Mutex};

/// Returns `options` with the TLS mode that the server's location and `secret` require.
///
/// # Errors
/// If the URL's settings are not allowed with a token, or TLS is not compiled in.
pub(super) fn secured<O: Identify>(
    options: O,
    written: &TlsParts,
    secret: Option<&Secret>,
) -> Result<O, String> {
    let options = match secret {
        Some(secret) if secret.is_token && secret.goes_to_any_server => {
            by_default(options, written).revealing_password()
        }
        // A token has too many rights to be sent to an unverified server.
        Some(secret) if secret.is_token => {
            let has_root = written.root.is_some() || secret.root_certificate.is_some();
            for_token(options, written, has_root)?.revealing_password()
        }
        _ => by_default(options, written),
    };
    if options.tls_mode() >= TlsMode::Require {
        available::<O>(tls::available())?;
    }
    Ok(options)
}

/// Without any setting, a password is not sent to another machine in plain text.
fn by_default<O: Identify>(options: O, written: &TlsParts) -> O {
    if written.mode.is_some() || options.is_local() {
        options
    } else {
        options.with_tls_mode(TlsMode::Require)
    }
}

fn for_token<O: Identify>(options: O, written: &TlsParts, has_root: bool) -> Result<O, String> {
    let TlsWords {
        verify, verify_ca, ..
    } = O::TLS;
    let (name, root) = (O::TLS.mode_name(), O::TLS.root_name());
    if let Some(TlsModePart { parameter, value }) = &written.mode {
        let mode = options.tls_mode();
        if mode < TlsMode::Require {
            return Err(format!(
                "an IAM token is sent only over TLS, to a server whose name is verified, and `{parameter}={value}` allows plain text: \
                 write `{name}={verify}` (and `{root}=..`, if the certificate's authority is a private one), or leave it out"
            ));
        }
        if mode == TlsMode::VerifyCa && !has_root {
            return Err(format!(
                "an IAM token is sent only to a server whose name is verified, and everybody can have a certificate from a public authority, \
                 which is all that `{parameter}={verify_ca}` asks for without `{root}`: write `{name}={verify}`"
            ));
        }
    }
    Ok(options.with_tls_mode(TlsMode::VerifyFull))
}

fn available<O: Identify>(is_compiled_in: bool) -> Result<(), String> {
    if is_compiled_in {
        return Ok(());
    }
    let (mode, disable) = (O::TLS.mode_name(), O::TLS.disable);
    Err(format!(
        "this connection needs TLS, which is not compiled in: switch on db-handler's feature `tls-rustls` (or `tls-native-tls`), \
         or add `{mode}={disable}` to the URL if the network in between is trusted"
    ))
}

/// Whether the server has declined TLS, judged by sqlx's error text.
pub(super) fn is_declined(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Tls(error) if error.to_string() == "server does not support TLS")
}

/// The advice after a declined TLS handshake. A password can be sent without TLS, a token cannot.
pub(super) fn after_declined<O: Identify>(variable: &str, is_token: bool) -> String {
    let TlsWords {
        disable, verify, ..
    } = O::TLS;
    let (mode, root) = (O::TLS.mode_name(), O::TLS.root_name());
    let enable = format!(
        "enable TLS on the server (best with `{mode}={verify}` and `{root}=..` in {variable})"
    );
    if is_token {
        format!("an IAM token is sent over nothing else: {enable}")
    } else {
        format!(
            "a connection to another machine is encrypted unless the URL says otherwise: add `{mode}={disable}` to {variable} if this network is trusted, or {enable}"
        )
    }
}

/// The same advice for an unknown database.
pub(super) const AFTER_DECLINED: &str = "add `sslmode=disable` (MySQL: `ssl-mode=DISABLED`) to the URL if this network is trusted, or enable TLS on the server";

/// The beginning of a PEM block.
const BEGIN: &str = "-----BEGIN ";

/// Files that have been checked: a driver reads them for every connection, this check only once.
static READABLE: Mutex<Vec<CertificateFile>> = Mutex::new(Vec::new());

/// Checks the files that a connection with `mode` needs: the driver's own error would not name the file.
///
/// # Errors
/// Names the file that cannot be used, and says why.
pub(super) async fn look_at_files(written: &TlsParts, mode: TlsMode) -> Result<(), String> {
    let root = written.root.iter().filter(|_| mode >= TlsMode::VerifyCa);
    let client = written.client.iter().filter(|_| mode >= TlsMode::Prefer);
    let unknown: Vec<CertificateFile> = {
        let readable = lock(&READABLE);
        let files = root.chain(client);
        // If sqlx accepts the certificate itself as the value, there is no file.
        let files = files.filter(|file| !file.path.contains(BEGIN));
        files
            .filter(|file| !readable.contains(file))
            .cloned()
            .collect()
    };
    if unknown.is_empty() {
        return Ok(());
    }
    // The file may be on a network file system: reading it must not block other tasks.
    tokio::task::spawn_blocking(move || unknown.into_iter().try_for_each(look_at))
        .await
        .unwrap_or(Ok(()))
}

fn look_at(file: CertificateFile) -> Result<(), String> {
    let CertificateFile { parameter, path } = &file;
    let content = regular_file::read(Path::new(path)).map_err(|error| {
        format!("the file {path}, which `{parameter}` names, cannot be read: {error}")
    })?;
    let mut parts = content.windows(BEGIN.len());
    if !parts.any(|part| part == BEGIN.as_bytes()) {
        return Err(format!(
            "the file {path}, which `{parameter}` names, is not in PEM format: it has no line that begins with `-----BEGIN`"
        ));
    }
    lock(&READABLE).push(file);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "postgres")]
    mod policy {
        use super::*;
        use crate::drivers::sql::driver::UrlParts;
        use sqlx::{Postgres, postgres::PgConnectOptions};
        use std::str::FromStr;

        const HOST: &str = "postgres://app@db.internal/shop";

        fn token() -> Secret {
            let mut secret = Secret::new("token");
            secret.is_token = true;
            secret
        }

        fn mode(query: &str, secret: Option<&Secret>) -> Result<TlsMode, String> {
            mode_of(&format!("{HOST}?{query}"), secret)
        }

        fn mode_of(url: &str, secret: Option<&Secret>) -> Result<TlsMode, String> {
            let written = UrlParts::in_url::<Postgres>(url)?;
            let options = PgConnectOptions::from_str(url).expect("a URL");
            secured(options, &written.tls, secret).map(|options| options.tls_mode())
        }

        #[test]
        fn to_another_machine_nothing_written_means_require() {
            let password = Secret::new("password");
            for secret in [None, Some(&password)] {
                assert_eq!(mode("", secret), Ok(TlsMode::Require));
                assert_eq!(mode("sslmode=disable", secret), Ok(TlsMode::Disable));
                assert_eq!(mode("sslmode=prefer", secret), Ok(TlsMode::Prefer));
                assert_eq!(mode("ssl-mode=verify-ca", secret), Ok(TlsMode::VerifyCa));
                for here in ["postgres://127.0.0.1/shop", "postgres://%2Frun/shop"] {
                    assert_eq!(mode_of(here, secret), Ok(TlsMode::Prefer));
                }
            }
        }

        #[test]
        fn the_host_that_a_secret_names_counts() {
            let elsewhere = PgConnectOptions::from_str("postgres://localhost/shop")
                .expect("a URL")
                .with_secret(&Secret::new("password").host("db.internal"));
            let options = secured(elsewhere, &TlsParts::default(), None).expect("allowed");
            assert_eq!(options.tls_mode(), TlsMode::Require);
        }

        #[test]
        fn a_token_needs_a_verified_name() {
            let token = token();
            let for_token = |query| mode(query, Some(&token));
            for query in ["", "sslmode=require", "sslmode=verify-full"] {
                assert_eq!(for_token(query), Ok(TlsMode::VerifyFull), "{query}");
            }
            let with_root = "sslmode=verify-ca&sslrootcert=/ca.pem";
            assert_eq!(for_token(with_root), Ok(TlsMode::VerifyFull));
            let here = mode_of("postgres://localhost/shop", Some(&token));
            assert_eq!(here, Ok(TlsMode::VerifyFull));
            for query in [
                "sslmode=disable",
                "sslmode=allow",
                "sslmode=prefer",
                "ssl-mode=disable",
                "ssl%6Dode=DISABLE",
                "sslmode=verify-ca",
            ] {
                let why = for_token(query).expect_err(query);
                assert!(why.contains("write `sslmode=verify-full`"), "{why}");
            }
            let with_root = token.clone().root_certificate("pem");
            let verified = mode("sslmode=verify-ca", Some(&with_root));
            assert_eq!(verified, Ok(TlsMode::VerifyFull));
        }

        #[test]
        fn a_token_that_goes_anywhere_is_sent_as_the_url_says() {
            let mut token = token();
            token.goes_to_any_server = true;
            assert_eq!(mode("sslmode=disable", Some(&token)), Ok(TlsMode::Disable));
            assert_eq!(mode("", Some(&token)), Ok(TlsMode::Require));
        }

        #[test]
        fn libpqs_variable_counts_as_written_and_what_it_cannot_mean_is_named() {
            let read = |value: &str| {
                let mut tls = TlsParts::default();
                tls.read(PgConnectOptions::TLS, "sslmode", "PGSSLMODE", value);
                tls
            };
            let options = || PgConnectOptions::from_str(HOST).expect("a URL");
            let allowed = read("Prefer");
            assert_eq!(allowed.check(PgConnectOptions::TLS), Ok(()));
            let options = secured(options(), &allowed, None).expect("allowed");
            assert_eq!(options.tls_mode(), TlsMode::Prefer);
            let wrong = read("verify_full").check(PgConnectOptions::TLS);
            let why = wrong.expect_err("an underscore");
            assert!(why.starts_with("`PGSSLMODE` is none of disable,"), "{why}");
        }
    }

    #[cfg(feature = "mysql")]
    #[test]
    fn mysql_reveals_a_token_to_a_verified_server_alone() {
        use crate::drivers::sql::driver::UrlParts;
        use sqlx::{MySql, mysql::MySqlConnectOptions};
        use std::str::FromStr;

        let mut token = Secret::new("token");
        token.is_token = true;
        let secured_with = |query: &str, secret: &Secret| {
            let url = format!("mysql://app@db.internal/shop?{query}");
            let written = UrlParts::in_url::<MySql>(&url)?;
            let options = MySqlConnectOptions::from_str(&url).expect("a URL");
            secured(options, &written.tls, Some(secret))
        };
        let reveals = |options: &MySqlConnectOptions| {
            format!("{options:?}").contains("enable_cleartext_plugin: true")
        };
        for query in ["", "ssl-mode=REQUIRED", "sslmode=verify_identity"] {
            let options = secured_with(query, &token).expect(query);
            assert_eq!(options.tls_mode(), TlsMode::VerifyFull, "{query}");
            assert!(reveals(&options), "{query}");
        }
        for query in [
            "ssl-mode=DISABLED",
            "ssl-mode=PREFERRED",
            "ssl-mode=VERIFY_CA",
        ] {
            let why = secured_with(query, &token).expect_err(query);
            assert!(why.contains("write `ssl-mode=VERIFY_IDENTITY`"), "{why}");
        }
        let password = secured_with("", &Secret::new("password")).expect("allowed");
        assert_eq!(password.tls_mode(), TlsMode::Require);
        assert!(!reveals(&password));
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn without_tls_compiled_in_the_feature_is_named() {
        use sqlx::postgres::PgConnectOptions;

        let why = available::<PgConnectOptions>(false).expect_err("needed");
        assert!(why.contains("`tls-rustls`") && why.contains("`sslmode=disable`"));
        assert_eq!(available::<PgConnectOptions>(true), Ok(()));
    }
}
