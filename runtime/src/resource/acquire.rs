//! What is known while a resource is being opened or acquired.

use crate::{
    config::Settings,
    error::{Error, ErrorKind, Stage},
};
use std::{env, time::Duration};
use tokio::time::Instant;

/// What is known while a resource is being opened or taken from.
#[derive(Debug, Clone, Copy)]
pub struct Acquire {
    handler: &'static str,
    settings: Settings,
    started: Instant,
    within: Duration,
}

impl Acquire {
    /// Starts the clock; `stop_at` is when the handler would be stopped.
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

    /// The handler, as `module::function`.
    #[must_use]
    pub fn handler(&self) -> &'static str {
        self.handler
    }

    /// The settings of this parameter.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// When the acquire is over.
    pub(crate) fn until(&self) -> Instant {
        self.started + self.within
    }

    /// The same, beginning now.
    #[cfg(feature = "_sql")]
    pub(crate) fn restarted(&self) -> Self {
        Self {
            started: Instant::now(),
            ..*self
        }
    }

    /// The same for what outlives the invocation, and with it the invocation's deadline.
    #[cfg(any(feature = "_sql", feature = "mongodb"))]
    pub(crate) fn unclamped(&self) -> Self {
        Self {
            within: self.settings.acquire,
            ..*self
        }
    }

    /// How long the whole acquire may take: `acquire_ms`, or less when the deadline is nearer.
    #[must_use]
    pub fn within(&self) -> Duration {
        self.within
    }

    /// What is left of [`within`](Self::within).
    #[must_use]
    pub fn left(&self) -> Duration {
        self.within.saturating_sub(self.started.elapsed())
    }

    /// The error for `what` ("opening the pool", ..) having used up [`within`](Self::within).
    #[must_use]
    pub fn timed_out(&self, what: &str) -> Error {
        let clamped = if self.within < self.settings.acquire {
            ", which is all that the deadline leaves of `acquire_ms`"
        } else {
            ""
        };
        Error::new(
            ErrorKind::ConnectTimeout,
            format!(
                "{what} took longer than {} ms{clamped}: is the server reachable from here (security group, route, firewall)?",
                self.within.as_millis()
            ),
        )
    }

    /// An error of this acquire.
    #[cfg(any(feature = "_sql", feature = "mongodb"))]
    pub(crate) fn failed(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        Error::new(kind, message)
            .at(Stage::Acquire)
            .in_handler(self.handler)
    }

    /// The URL, from the environment variable of this parameter.
    ///
    /// It may hold a password: put it into no error and no log.
    ///
    /// # Errors
    /// [`ErrorKind::MissingUrl`] when the variable is missing or empty, [`ErrorKind::InvalidUrl`]
    /// when it is no Unicode.
    pub fn url(&self) -> Result<String, Error> {
        url(self.settings.env).map_err(|error| error.at(Stage::Acquire))
    }
}

/// Reads the URL from `variable`.
pub(crate) fn url(variable: Option<&str>) -> Result<String, Error> {
    let Some(variable) = variable else {
        return Err(Error::new(
            ErrorKind::MissingUrl,
            "the attribute names no environment variable for the URL: add `env = \"DATABASE_URL\"`",
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
