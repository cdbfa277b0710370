//! Reads connect options from an environment variable, and explains what is wrong with it.

use super::warnings;
use crate::{
    credentials,
    drivers::sql::driver::{Driver, Identify, TlsParts, TlsWords, UrlParts},
    error::{Error, ErrorKind},
    resource::AcquireContext,
};
use sqlx_core::{percent_encoding::percent_decode_str, url::form_urlencoded};
use std::{borrow::Cow, env};

/// A scheme, the feature that it needs, and whether that is enabled.
type Scheme = (&'static str, &'static str, bool);

/// Every scheme of a supported database.
const SCHEMES: [Scheme; 5] = [
    ("postgres", "postgres", cfg!(feature = "postgres")),
    ("postgresql", "postgres", cfg!(feature = "postgres")),
    ("mysql", "mysql", cfg!(feature = "mysql")),
    ("mariadb", "mysql", cfg!(feature = "mysql")),
    ("sqlite", "sqlite", cfg!(feature = "sqlite")),
];

/// The longest parameter name that is shown.
const MAX_KEY: usize = 40;

/// Returns the options in this parameter's `url`, the first statement on its connections, and which parts the URL sets.
pub(super) fn options_of<DB: Driver>(
    acquire: &AcquireContext,
    url: &str,
) -> Result<(DB::Options, String, UrlParts), Error> {
    let variable = acquire.settings().env.unwrap_or_default();
    check_scheme::<DB>(url, variable, &SCHEMES)?;
    if hides_a_password::<DB>(url) {
        let reason = "a special character in the password ends its host part too early";
        return Err(invalid::<DB>(variable, reason));
    }
    check_password::<DB>(url, variable)?;
    let url = known_parameters::<DB>(acquire, variable, url)?;
    let written =
        UrlParts::in_url::<DB>(&url).map_err(|reason| invalid::<DB>(variable, &reason))?;
    let proxy = acquire.settings().proxy;
    let read = || Ok((DB::options(&url)?, DB::setup_sql(&url, proxy)?));
    let (options, setup_sql) =
        read().map_err(|error: sqlx::Error| unreadable::<DB>(variable, &error.to_string()))?;
    // It may be the password of a user in a URL without a host, which errors would show as a port.
    let names_nobody = !written.user && acquire.settings().credentials.is_none();
    if names_nobody && has_port_without_user(&url) && !options.is_local() {
        let reason = "it has neither a user nor an `@`";
        return Err(invalid::<DB>(variable, reason));
    }
    if proxy.is_none() {
        return Ok((options, setup_sql, written));
    }
    match DB::for_proxy(options) {
        Ok(options) => Ok((options, setup_sql, written)),
        Err(fix) => Err(Error::new(
            ErrorKind::InvalidUrl,
            format!("the URL in {variable} does not go with `proxy`: {fix}"),
        )),
    }
}

/// The parts of a URL, as written.
struct Parts<'a> {
    /// Users and hosts.
    authority: &'a str,
    path: &'a str,
    query: &'a str,
    fragment: &'a str,
}

impl<'a> Parts<'a> {
    fn of(url: &'a str) -> Self {
        // SQLite URLs may have no slashes.
        let rest = url.split_once("://").or_else(|| url.split_once(':'));
        let rest = rest.map_or("", |(_, rest)| rest);
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = place.split_once('/').unwrap_or((place, ""));
        Self {
            authority,
            path,
            query,
            fragment,
        }
    }

    /// The parameters, each with its original text.
    fn parameters(&self) -> impl Iterator<Item = (&'a str, Cow<'a, str>, Cow<'a, str>)> + use<'a> {
        self.query.split('&').flat_map(|text| {
            form_urlencoded::parse(text.as_bytes()).map(move |(key, value)| (text, key, value))
        })
    }
}

impl UrlParts {
    pub(in crate::drivers::sql) fn in_url<DB: Driver>(url: &str) -> Result<Self, String> {
        let parts = Parts::of(url);
        let words = DB::Options::TLS;
        let (user, host) = parts
            .authority
            .rsplit_once('@')
            .unwrap_or(("", parts.authority));
        let mut written = Self {
            host: !host.is_empty(),
            user: !user.is_empty() && !user.starts_with(':'),
            tls: TlsParts::default(),
        };
        // sqlx reads libpq's variables too.
        if url.starts_with("postgres") {
            written.read_variables(words, |name| env::var(name).ok());
        }
        for (_, key, value) in parts.parameters() {
            match &*key {
                "host" | "hostaddr" | "socket" => written.host = true,
                "user" => written.user = true,
                key => written.tls.read(words, key, key, &value),
            }
        }
        written.tls.check(words)?;
        Ok(written)
    }

    fn read_variables(&mut self, words: &TlsWords, read: impl Fn(&str) -> Option<String>) {
        let set = |name| read(name).filter(|value| !value.is_empty());
        self.host |= set("PGHOST").or_else(|| set("PGHOSTADDR")).is_some();
        self.user |= set("PGUSER").is_some();
        for (variable, key) in [
            ("PGSSLMODE", "sslmode"),
            ("PGSSLROOTCERT", "sslrootcert"),
            ("PGSSLCERT", "sslcert"),
            ("PGSSLKEY", "sslkey"),
        ] {
            if let Some(value) = set(variable) {
                self.tls.read(words, key, variable, &value);
            }
        }
    }
}

/// Whether an `@` follows the part of the URL that can hold user and password: a `/`, `?` or `#` before it then belongs
/// to a password, and sqlx would take a part of the password for the database's name.
fn hides_a_password<DB: Driver>(url: &str) -> bool {
    if DB::IN_PROCESS {
        return false;
    }
    let parts = Parts::of(url);
    let is_no_value = |text: &str| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        key.contains('@') || value.contains('@') && !is_shown(key)
    };
    parts.path.contains('@')
        || parts.fragment.contains('@')
        || parts.query.split('&').any(is_no_value)
}

/// Rejects characters that a password cannot contain. sqlx's error would be about SASL, or unspecific.
fn check_password<DB: Driver>(url: &str, variable: &str) -> Result<(), Error> {
    let parts = Parts::of(url);
    let user = parts.authority.rsplit_once('@').map(|(user, _)| user);
    let encoded = user.and_then(|user| user.split_once(':'));
    let in_front = encoded.map(|(_, password)| percent_decode_str(password).decode_utf8_lossy());
    let parameters = parts.parameters();
    let mut passwords = parameters
        .filter(|(_, key, _)| key == "password")
        .map(|(_, _, password)| password)
        .chain(in_front);
    match passwords.find_map(|password| credentials::not_in_a_password(&password)) {
        Some(what) => Err(invalid::<DB>(
            variable,
            &format!("its password contains {what}"),
        )),
        None => Ok(()),
    }
}

/// `url` without the parameters that sqlx does not know: it would log their values.
fn known_parameters<'u, DB: Driver>(
    acquire: &AcquireContext,
    variable: &str,
    url: &'u str,
) -> Result<Cow<'u, str>, Error> {
    let (unknown, known) = shown_parameters::<DB>(url);
    if unknown.is_empty() {
        return Ok(Cow::Borrowed(url));
    }
    if DB::IN_PROCESS {
        let reason = format!("unknown parameters: {unknown}");
        return Err(invalid::<DB>(variable, &reason));
    }
    warnings::ignoring_parameters(acquire, variable, &unknown);
    let before = url.split_once('?').map_or(url, |(before, _)| before);
    Ok(Cow::Owned(format!("{before}?{known}")))
}

/// The parameters that sqlx does not know, as they may be shown, and those that it knows, as written.
fn shown_parameters<DB: Driver>(url: &str) -> (String, String) {
    let parts = Parts::of(url);
    let mut known = Vec::new();
    let mut unknown = Vec::new();
    // If the `@` that ends a password comes after it, an apparent parameter is part of the password.
    let is_rest_of_a_password =
        !DB::IN_PROCESS && !parts.authority.contains('@') && parts.query.contains('@');
    for (text, key, _) in parts.parameters() {
        if DB::PARAMETERS.contains(&&*key) || DB::Options::TLS.has(&key) || DB::is_parameter(&key) {
            known.push(text);
        } else if !is_rest_of_a_password && is_shown(&key) && text.contains('=') {
            unknown.push(key.into_owned());
        } else {
            unknown.push("(one that is not shown)".to_owned());
        }
    }
    (unknown.join(", "), known.join("&"))
}

/// Whether `key` looks like a parameter name and not like part of a password.
fn is_shown(key: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.[]".contains(&byte);
    (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(is_plain)
}

fn has_port_without_user(url: &str) -> bool {
    let authority = Parts::of(url).authority;
    let host = authority
        .rsplit_once(']')
        .map_or(authority, |(_, port)| port);
    !authority.contains('@') && host.contains(':')
}

fn check_scheme<DB: Driver>(url: &str, variable: &str, schemes: &[Scheme]) -> Result<(), Error> {
    let Some((scheme, rest)) = url.split_once(':') else {
        return Err(invalid::<DB>(variable, "it has no scheme"));
    };
    if DB::SCHEMES.contains(&scheme) {
        // A user may be named like a scheme: the rest is a password then.
        if !DB::IN_PROCESS && !rest.starts_with("//") {
            let reason = "its scheme is not followed by `//`";
            return Err(invalid::<DB>(variable, reason));
        }
        return Ok(());
    }
    let ours = DB::SCHEMES[0];
    let known = schemes.iter().find(|(known, ..)| *known == scheme);
    Err(match known {
        Some((_, _, true)) => Error::new(
            ErrorKind::WrongScheme,
            format!(
                "{variable} starts with `{scheme}:`, but the handler's parameter is for {}: change the parameter's type, or the URL to `{ours}://..`",
                DB::NAME
            ),
        ),
        Some((_, feature, false)) => Error::new(
            ErrorKind::FeatureDisabled,
            format!(
                "{variable} starts with `{scheme}:`, which needs db-handler's feature `{feature}`, and that is off; the handler's parameter is for {} (`{ours}:`)",
                DB::NAME
            ),
        ),
        // A password before a colon would end up here: do not repeat it.
        None => Error::new(
            ErrorKind::UnknownScheme,
            format!(
                "{variable} starts with no scheme that is known here: expected `{ours}://..` for {}",
                DB::NAME
            ),
        ),
    })
}

/// The error of a URL that sqlx cannot parse.
fn unreadable<DB: Driver>(variable: &str, reason: &str) -> Error {
    // A reason with a quotation may quote the password.
    if reason.contains(['"', '`', '\'']) {
        expected::<DB>(variable, "")
    } else {
        invalid::<DB>(variable, reason)
    }
}

fn invalid<DB: Driver>(variable: &str, reason: &str) -> Error {
    expected::<DB>(variable, &format!(" ({reason})"))
}

fn expected<DB: Driver>(variable: &str, reason: &str) -> Error {
    Error::new(
        ErrorKind::InvalidUrl,
        format!(
            "the URL in {variable} cannot be read{reason}: expected something like `{}`; percent-encode what is special in a password",
            DB::EXAMPLE
        ),
    )
}

#[cfg(all(test, feature = "postgres"))]
mod tests {
    use super::*;
    use sqlx::Postgres;

    fn refused(url: &str, schemes: &[Scheme]) -> Error {
        check_scheme::<Postgres>(url, "DATABASE_URL", schemes).expect_err("is no PostgreSQL URL")
    }

    #[test]
    fn both_names_of_postgres_are_fine() {
        for url in ["postgres://host/shop", "postgresql://host/shop"] {
            assert!(check_scheme::<Postgres>(url, "DATABASE_URL", &SCHEMES).is_ok());
        }
    }

    #[test]
    fn a_scheme_whose_feature_is_off_names_the_feature() {
        let error = refused("mysql://host/shop", &[("mysql", "mysql", false)]);
        assert_eq!(error.kind(), ErrorKind::FeatureDisabled);
        let text = error.to_string();
        assert!(text.contains("feature `mysql`, and that is off"), "{text}");
    }

    #[test]
    fn the_scheme_of_another_database_names_both() {
        let error = refused("mysql://host/shop", &[("mysql", "mysql", true)]);
        assert_eq!(error.kind(), ErrorKind::WrongScheme);
        let text = error.to_string();
        assert!(
            text.contains("`mysql:`") && text.contains("PostgreSQL"),
            "{text}"
        );
    }

    #[test]
    fn a_password_with_a_special_character_is_not_taken_for_a_place() {
        for url in [
            "postgres://app:12345/hunter2@host:5432/shop",
            "postgres://app:/hunter2@host/shop",
            "postgres://app:12?hunter2@host/shop",
            "postgres://app:12#hunter2@host/shop",
            "postgres://app:p@ss?hunter2@host/shop",
            "postgres://app:12?!hunter=2@host/shop",
        ] {
            assert!(hides_a_password::<Postgres>(url), "{url}");
        }
        for url in [
            "postgres://app:p%40ss@host/shop?sslmode=disable",
            "postgres://app:p@ss@host/shop",
            "postgres://host",
            "postgres://app:x@host/shop?application_name=a@b",
            "postgres://host/shop?user=a@b&password=c@d",
        ] {
            assert!(!hides_a_password::<Postgres>(url), "{url}");
        }
    }

    #[test]
    fn what_a_url_says_is_told_from_defaults() {
        let written = |url: &str| {
            let written = UrlParts::in_url::<Postgres>(url).expect("right");
            (written.host, written.user)
        };
        for full in [
            "postgres://app:x@host:5432/shop",
            "postgres:///?host=h&user=u",
            "postgres:///?h%6Fst=h&us%65r=u",
        ] {
            assert_eq!(written(full), (true, true), "{full}");
        }
        assert_eq!(written("postgres://:x@/"), (false, false));
        assert_eq!(written("postgres://host/shop"), (true, false));
    }

    fn acquire() -> AcquireContext {
        use crate::config::{Config, Defaults, Settings};
        AcquireContext::new(
            "tests::url",
            Settings::new(&Config::new(), &Defaults::SQL),
            None,
        )
    }

    #[test]
    fn only_what_sqlx_knows_is_left_in_the_query() {
        let left =
            |url| known_parameters::<Postgres>(&acquire(), "DATABASE_URL", url).expect("a URL");
        let known =
            "postgres://app:x@host/shop?options[a.b]=%20c&sslmode=require&ssl%72ootcert=/ca&host=h";
        assert_eq!(left(known), known);
        assert_eq!(
            left(
                "postgres://host/shop?passwd=hunter2&sslmode=disable&channel_binding=require&hunter2#x"
            ),
            "postgres://host/shop?sslmode=disable"
        );
    }

    #[test]
    fn the_rest_of_a_password_is_no_parameter_that_is_shown() {
        // sqlx cannot read either one: the host that it gets ends in the middle of the password.
        for url in [
            "postgres://app:12?hunter2=x@db.internal/shop",
            "postgres://app:ab?hunter2=x&hunter3=y@127.0.0.1/shop",
        ] {
            let (logged, _) = shown_parameters::<Postgres>(url);
            assert!(!logged.contains("hunter"), "{url}: {logged}");
        }
        let (logged, _) = shown_parameters::<Postgres>("postgres://app:x@host/shop?passwd=a@b");
        assert_eq!(logged, "passwd");
    }

    #[test]
    fn a_user_called_postgres_without_a_scheme_is_no_url() {
        for url in [
            "postgres:hunter2@db.internal/shop",
            "postgresql:hunter2@host",
        ] {
            let text = format!("{:?}", refused(url, &SCHEMES));
            assert!(text.contains("not followed by `//`"), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn an_unknown_parameter_of_sqlite_is_refused_by_its_name() {
        use sqlx::Sqlite;

        for url in ["sqlite:///a@b.db?mod=hunter2", "sqlite:a.db?mod=hunter2"] {
            let error = options_of::<Sqlite>(&acquire(), url).expect_err("unknown");
            let text = format!("{error:?}");
            assert!(text.contains("unknown parameters: mod"), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
        assert!(options_of::<Sqlite>(&acquire(), "sqlite:///a@b.db?mode=ro").is_ok());
    }

    #[test]
    fn a_port_without_a_user_may_be_a_password_with_its_host_forgotten() {
        let refused = |url| {
            let error = options_of::<Postgres>(&acquire(), url).err();
            error.map(|error| format!("{error:?}"))
        };
        for url in ["postgres://app:12345/shop", "postgres://app:12345"] {
            let text = refused(url).expect(url);
            assert!(text.contains("neither a user nor an `@`"), "{text}");
            assert!(!text.contains("12345"), "{text}");
        }
        for url in [
            "postgres://app@host:12345/shop",
            "postgres://host:12345/shop?user=app",
            "postgres://localhost:12345/shop",
            "postgres://[::1]:12345/shop",
            "postgres://[fd00::1]/shop",
            "postgres://host/shop",
        ] {
            assert_eq!(refused(url), None, "{url}");
        }
    }

    #[test]
    fn a_password_that_no_server_takes_is_named_by_its_character() {
        for url in [
            "postgres://app:hunter%0A2@host/shop",
            "postgres://app@host/shop?password=hunter%0A2",
        ] {
            let error = options_of::<Postgres>(&acquire(), url).expect_err("two lines");
            let text = format!("{error:?}");
            assert!(
                text.contains("its password contains a line break"),
                "{text}"
            );
            assert!(!text.contains("hunter"), "{text}");
        }
    }

    #[test]
    fn what_may_be_a_password_is_not_repeated() {
        for url in ["hunter2:x@host/shop", "hunter2"] {
            let error = refused(url, &SCHEMES);
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        let error = unreadable::<Postgres>("DATABASE_URL", "invalid value \"hunter2\"");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
