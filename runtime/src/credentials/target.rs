//! What is known about the way to the database before its secret is.

use super::secret::Engine;

/// Where a connection is to lead, as far as the URL says so.
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
    /// The environment variable of the URL.
    #[must_use]
    pub fn variable(&self) -> &'static str {
        self.variable
    }

    /// The host that the URL names.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The port that the URL names, or its scheme's.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The user that the URL names.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The database that the URL names.
    #[must_use]
    pub fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }
}

#[cfg(test)]
impl Target {
    /// `app` at the default port of `host`.
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
