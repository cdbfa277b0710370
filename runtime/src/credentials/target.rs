//! The destination of a connection, as known before its secret.

use super::secret::Engine;

/// The destination of a connection, as far as the URL defines it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[must_use]
pub struct Target {
    pub(crate) variable: &'static str,
    pub(crate) engine: Engine,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) user: Option<String>,
    pub(crate) database: Option<String>,
}

impl Target {
    /// Returns the environment variable of the URL.
    #[must_use]
    pub fn variable(&self) -> &'static str {
        self.variable
    }

    /// Returns the host in the URL.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// Returns the port in the URL, or its scheme's default.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Returns the user in the URL.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Returns the database in the URL.
    #[must_use]
    pub fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }
}

#[cfg(test)]
impl Target {
    /// Returns user `app` at the default port of `host`.
    pub(super) fn of_tests(host: &str) -> Self {
        Self {
            variable: "DATABASE_URL",
            engine: Engine::Postgres,
            host: Some(host.to_owned()),
            port: Some(5_432),
            user: Some("app".to_owned()),
            database: None,
        }
    }
}
