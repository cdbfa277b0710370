//! The context of opening and acquiring a resource.

use crate::{
    config::Settings,
    error::{Error, ErrorKind, Stage},
};
use std::{env, time::Duration};
use tokio::time::Instant;

/// The context of opening a resource or of acquiring from it: handler, settings and timeout.
#[derive(Debug, Clone, Copy)]
pub struct AcquireContext {
    handler: &'static str,
    settings: Settings,
    started: Instant,
    within: Duration,
}

impl AcquireContext {
    /// Starts the timeout. `stop_at` is when the handler would be cancelled.
    pub(crate) fn new(handler: &'static str, settings: Settings, stop_at: Option<Instant>) -> Self {
        let started = Instant::now();
        let within = match stop_at {
            Some(stop_at) => settings
                .acquire
                .min(stop_at.saturating_duration_since(started)),
            None => settings.acquire,
        };
        Self {
            handler,
            settings,
            started,
            within,
        }
    }

    /// Returns the handler, as `module::function`.
    #[must_use]
    pub fn handler(&self) -> &'static str {
        self.handler
    }

    /// Returns the settings of this parameter.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns when the timeout ends.
    pub(crate) fn until(&self) -> Instant {
        self.started + self.within
    }

    /// Returns this context with the timeout restarted.
    #[cfg(feature = "_sql")]
    pub(crate) fn restarted(&self) -> Self {
        Self {
            started: Instant::now(),
            ..*self
        }
    }

    /// Returns this context without the limit of the invocation's deadline, for what outlives the invocation.
    #[cfg(any(feature = "_sql", feature = "mongodb"))]
    pub(crate) fn unclamped(&self) -> Self {
        Self {
            within: self.settings.acquire,
            ..*self
        }
    }

    /// Returns the timeout of the whole acquire: `acquire_ms`, or less if the deadline is nearer.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.within
    }

    /// Returns how much of [`timeout`](Self::timeout) is left.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.within.saturating_sub(self.started.elapsed())
    }

    /// Creates the error for `what` ("opening the pool", ..) exceeding [`timeout`](Self::timeout).
    #[must_use]
    pub fn timeout_error(&self, what: &str) -> Error {
        let clamped = if self.within < self.settings.acquire {
            ", limited by the invocation's deadline"
        } else {
            ""
        };
        Error::new(
            ErrorKind::ConnectTimeout,
            format!(
                "{what} timed out after {} ms{clamped}: check security groups, routes and firewalls",
                self.within.as_millis()
            ),
        )
    }

    /// Creates an error of this acquire.
    #[cfg(any(feature = "_sql", feature = "mongodb"))]
    pub(crate) fn failed(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        Error::new(kind, message)
            .at(Stage::Acquire)
            .in_handler(self.handler)
    }

    /// Reads the URL from the environment variable of this parameter.
    ///
    /// It may contain a password: keep it out of errors and logs.
    ///
    /// # Errors
    /// [`ErrorKind::MissingUrl`] if the variable is missing or empty, [`ErrorKind::InvalidUrl`] if it is not
    /// valid Unicode.
    pub fn url(&self) -> Result<String, Error> {
        url(self.settings.env).map_err(|error| error.at(Stage::Acquire))
    }
}

/// Reads the URL from `variable`.
pub(crate) fn url(variable: Option<&str>) -> Result<String, Error> {
    let Some(variable) = variable else {
        return Err(Error::new(
            ErrorKind::MissingUrl,
            "no environment variable is configured for the URL: add `env = \"DATABASE_URL\"`",
        ));
    };
    match env::var(variable) {
        Ok(url) if !url.trim().is_empty() => Ok(url.trim().to_owned()),
        Ok(_) => Err(Error::new(
            ErrorKind::MissingUrl,
            format!("the environment variable {variable} is empty: set it to the database's URL"),
        )),
        Err(env::VarError::NotPresent) => Err(Error::new(
            ErrorKind::MissingUrl,
            format!("the environment variable {variable} is not set: set it to the database's URL"),
        )),
        Err(env::VarError::NotUnicode(_)) => Err(Error::new(
            ErrorKind::InvalidUrl,
            format!("the environment variable {variable} is not valid Unicode"),
        )),
    }
}
