//! The secret that a provider returns.

#![cfg_attr(
    not(any(feature = "postgres", feature = "mysql")),
    allow(dead_code, reason = "only what logs in looks at it")
)]

use std::{fmt, sync::Arc, time::Duration, time::SystemTime};

/// A password, and optionally user, host, port and database.
///
/// `Debug` shows only the names of the fields that are set.
///
/// ```
/// use db_handler::credentials::Secret;
///
/// let secret = Secret::new("hunter2").user("app").port(5433);
/// assert_eq!(format!("{secret:?}"), "Secret(password, user, port)");
/// ```
#[derive(Clone)]
#[must_use]
pub struct Secret {
    password: Arc<str>,
    pub(crate) user: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) database: Option<String>,
    /// The secret's field `engine`: `postgres`, `mysql` ..
    pub(super) engine: Option<Engine>,
    pub(crate) root_certificate: Option<Arc<[u8]>>,
    pub(crate) is_token: bool,
    /// Allows sending a token to a server that is not verified.
    pub(crate) goes_to_any_server: bool,
    pub(super) fresh_for: Duration,
    pub(super) expires_at: Option<SystemTime>,
}

/// A database engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Engine {
    Postgres,
    MySql,
    /// An engine without a driver in this crate.
    Other,
}

impl Secret {
    /// Creates a secret with a password only. The URL has the rest.
    pub fn new(password: impl Into<String>) -> Self {
        Self {
            password: password.into().into(),
            user: None,
            host: None,
            port: None,
            database: None,
            engine: None,
            root_certificate: None,
            is_token: false,
            goes_to_any_server: false,
            fresh_for: Duration::ZERO,
            expires_at: None,
        }
    }

    /// Sets the user.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Sets the server's host.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Sets the server's port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Sets the database's name.
    pub fn database(mut self, database: impl Into<String>) -> Self {
        self.database = Some(database.into());
        self
    }

    /// Sets certificates, in PEM, that may sign the server's certificate, in addition to the public
    /// authorities. Used only if the server is verified: `sslmode=verify-full`, MySQL's
    /// `ssl-mode=VERIFY_IDENTITY`.
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificate = Some(pem.into().into());
        self
    }

    /// Sets how long the secret may be used before it is fetched again, by the larger difference of the
    /// monotonic and the wall clock. With 0, the default, it is fetched whenever a connection is opened.
    pub fn fresh_for(mut self, duration: Duration) -> Self {
        self.fresh_for = duration;
        self
    }

    /// Sets when the server stops accepting the secret. A provider that returns an expired secret causes an
    /// error.
    pub fn expires_at(mut self, expires_at: SystemTime) -> Self {
        self.expires_at = Some(expires_at);
        self
    }

    /// Returns the strings besides the password that are sent to the server or locate it, each with its name.
    pub(super) fn names(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("user", &self.user),
            ("host", &self.host),
            ("database", &self.database),
        ];
        all.into_iter()
            .filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// Returns whether both are the same to the server.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.password == other.password
            && self.user == other.user
            && self.host == other.host
            && self.port == other.port
            && self.database == other.database
    }
}

/// Returns the kind of the first control character in `text`, a password or a name. A server rejects it, or it
/// is a mistake.
pub(crate) fn not_in_a_password(text: &str) -> Option<&'static str> {
    let control = text.chars().find(|character| character.is_control())?;
    Some(match control {
        '\n' | '\r' => "a line break",
        '\0' => "a NUL character",
        _ => "a control character",
    })
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(password")?;
        let set = [
            ("user", self.user.is_some()),
            ("host", self.host.is_some()),
            ("port", self.port.is_some()),
            ("database", self.database.is_some()),
            ("root_certificate", self.root_certificate.is_some()),
        ];
        for (name, _) in set.iter().filter(|(_, is_set)| *is_set) {
            write!(f, ", {name}")?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_no_password_is_named() {
        for (password, named) in [
            ("one\ntwo", Some("a line break")),
            ("one\r\ntwo", Some("a line break")),
            ("one\0two", Some("a NUL character")),
            ("one\ttwo", Some("a control character")),
            ("p\u{e4}\u{df} w\u{f6}rd \u{1f511}", None),
            ("", None),
        ] {
            assert_eq!(not_in_a_password(password), named, "{password:?}");
        }
    }

    #[test]
    fn debug_shows_no_value() {
        let secret = Secret::new("hunter2")
            .user("hunter3")
            .host("hunter4")
            .database("hunter5");
        let shown = format!("{secret:?} {secret:#?}");
        assert!(!shown.contains("hunter"), "{shown}");
    }
}
