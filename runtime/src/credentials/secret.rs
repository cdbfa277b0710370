//! What a provider hands over.

#![cfg_attr(
    not(any(feature = "postgres", feature = "mysql")),
    allow(dead_code, reason = "only what logs in looks at it")
)]

use std::{fmt, sync::Arc, time::Duration, time::SystemTime};

/// A password, and what else a provider knows about the way to the database.
///
/// Its `Debug` shows the names of what is set, and nothing else.
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
    /// What the secret says that the database is: `postgres`, `mysql` ..
    pub(super) engine: Option<Engine>,
    pub(crate) root_certificate: Option<Arc<[u8]>>,
    pub(crate) is_token: bool,
    /// Even a token may be sent to a server that has proved nothing.
    pub(crate) goes_to_any_server: bool,
    pub(super) fresh_for: Duration,
    pub(super) expires_at: Option<SystemTime>,
}

/// A family of databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Engine {
    Postgres,
    MySql,
    /// One that nothing here speaks to.
    Other,
}

impl Secret {
    /// Of the password alone; the URL says the rest.
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

    /// Who logs in.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Where the server is.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// The server's port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// The database's name.
    pub fn database(mut self, database: impl Into<String>) -> Self {
        self.database = Some(database.into());
        self
    }

    /// The certificates, in PEM, that the server's may be signed by, beside the public ones. They are looked at
    /// where the server is verified: `sslmode=verify-full`, MySQL's `ssl-mode=VERIFY_IDENTITY`.
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificate = Some(pem.into().into());
        self
    }

    /// How long it may be used without asking again, by the larger step of the monotonic and the wall
    /// clock. 0, the default, asks whenever a connection is opened.
    pub fn fresh_for(mut self, duration: Duration) -> Self {
        self.fresh_for = duration;
        self
    }

    /// When the server stops taking it. A secret that has expired when it is handed over is an error.
    pub fn expires_at(mut self, expires_at: SystemTime) -> Self {
        self.expires_at = Some(expires_at);
        self
    }

    /// The texts beside the password that the server is told, or found by, each with its name.
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

    /// Whether the server would see a difference.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.password == other.password
            && self.user == other.user
            && self.host == other.host
            && self.port == other.port
            && self.database == other.database
    }
}

/// What is in `text`, a password or the name of something, that a server cannot be told, or that nobody has meant.
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
