//! Secrets in environment variables.

use super::{Provider, Secret, Target, unavailable};
use crate::error::Error;
use std::{
    env::{self, VarError},
    num::NonZero,
};

/// Environment variables with a common prefix: `PREFIX_PASSWORD`, and optionally `PREFIX_USER` (or
/// `PREFIX_USERNAME`), `PREFIX_HOST`, `PREFIX_PORT` and `PREFIX_DATABASE` (or `PREFIX_NAME`).
///
/// The first of these names are also those of Tencent's SDK for databases (with the prefix `DB_{REF}`). The
/// variables are read whenever a connection is opened. If the password is missing, [`run`](crate::run) reports
/// it before the first event.
///
/// ```
/// use db_handler::credentials::Environment;
///
/// static ORDERS: Environment = Environment::prefix("DB_ORDERS");
/// # let _ = &ORDERS;
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Environment {
    prefix: &'static str,
}

impl Environment {
    /// Reads variables that begin with `prefix` and an underscore. The underscore may be part of `prefix`:
    /// `"DB"` and `"DB_"` are the same.
    #[must_use]
    pub const fn prefix(prefix: &'static str) -> Self {
        Self { prefix }
    }

    fn variable(&self, field: &str) -> String {
        let prefix = self.prefix.strip_suffix('_').unwrap_or(self.prefix);
        format!("{prefix}_{field}")
    }

    fn secret(&self, read: impl Fn(&str) -> Result<String, VarError>) -> Result<Secret, Error> {
        let value = |field: &str| {
            let variable = self.variable(field);
            match read(&variable) {
                Ok(value) if !value.is_empty() => Ok(Some(value)),
                Ok(_) | Err(VarError::NotPresent) => Ok(None),
                Err(VarError::NotUnicode(_)) => Err(unavailable(format_args!(
                    "the environment variable {variable} is not valid Unicode"
                ))),
            }
        };
        let first_of = |one, other| match value(one)? {
            Some(value) => Ok(Some(value)),
            None => value(other),
        };
        let password = value("PASSWORD")?.ok_or_else(|| {
            unavailable(format_args!(
                "the environment variable {} is not set, or empty",
                self.variable("PASSWORD")
            ))
        })?;
        let mut secret = Secret::new(password);
        secret.user = first_of("USER", "USERNAME")?;
        secret.host = value("HOST")?;
        secret.database = first_of("DATABASE", "NAME")?;
        if let Some(port) = value("PORT")? {
            let port: NonZero<u16> = port.parse().map_err(|_| {
                unavailable(format_args!(
                    "the environment variable {} must be an integer from 1 to 65535",
                    self.variable("PORT")
                ))
            })?;
            secret.port = Some(port.get());
        }
        Ok(secret)
    }
}

impl Provider for Environment {
    async fn fetch(&self, _: &Target) -> Result<Secret, Error> {
        self.secret(|variable| env::var(variable))
    }

    fn check(&self) -> Result<(), Error> {
        self.secret(|variable| env::var(variable)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<Secret, Error> {
        read_with(Environment::prefix("DB"), set)
    }

    fn read_with(environment: Environment, set: &[(&str, &str)]) -> Result<Secret, Error> {
        environment.secret(|variable| {
            set.iter()
                .find(|(name, _)| *name == variable)
                .map(|(_, value)| (*value).to_owned())
                .ok_or(VarError::NotPresent)
        })
    }

    #[test]
    fn what_is_set_is_taken() {
        let secret = read(&[
            ("DB_PASSWORD", "hunter2"),
            ("DB_USER", "app"),
            ("DB_PORT", "5433"),
            ("DB_HOST", ""),
        ])
        .expect("complete");
        assert_eq!(secret.password(), "hunter2");
        assert_eq!(secret.user.as_deref(), Some("app"));
        assert_eq!((secret.host, secret.port), (None, Some(5_433)));
    }

    #[test]
    fn an_underscore_at_the_end_of_a_prefix_is_the_one_that_follows_it() {
        let set = [("DB_PASSWORD", "hunter2")];
        for prefix in ["DB", "DB_"] {
            let secret = read_with(Environment::prefix(prefix), &set).expect("complete");
            assert_eq!(secret.password(), "hunter2");
        }
        let error = read_with(Environment::prefix("DB_"), &[]).expect_err("no password");
        assert!(error.to_string().contains(" DB_PASSWORD "), "{error}");
    }

    #[test]
    fn other_names_for_user_and_database_are_known() {
        let others = [
            ("DB_PASSWORD", "hunter2"),
            ("DB_USERNAME", "app"),
            ("DB_NAME", "shop"),
        ];
        let secret = read(&others).expect("complete");
        assert_eq!(secret.user.as_deref(), Some("app"));
        assert_eq!(secret.database.as_deref(), Some("shop"));

        let first = [("DB_USER", "first"), ("DB_DATABASE", "first")];
        let secret = read(&[others.as_slice(), &first].concat()).expect("complete");
        assert_eq!(secret.user.as_deref(), Some("first"));
        assert_eq!(secret.database.as_deref(), Some("first"));
    }

    #[test]
    fn a_missing_password_and_a_bad_port_are_named() {
        let error = read(&[("DB_USER", "app")]).expect_err("no password");
        assert!(error.to_string().contains("DB_PASSWORD"), "{error}");
        for port in ["hunter3", "0", "65536"] {
            let error =
                read(&[("DB_PASSWORD", "hunter2"), ("DB_PORT", port)]).expect_err("no port");
            assert!(error.to_string().contains("DB_PORT"), "{error}");
            assert!(!format!("{error:?}").contains("hunter"), "{error:?}");
        }
    }
}
