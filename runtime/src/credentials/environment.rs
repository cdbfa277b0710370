//! A secret in several environment variables.

use super::{Provider, Secret, Target, unavailable};
use crate::error::Error;
use std::{
    env::{self, VarError},
    num::NonZero,
};

/// Environment variables with a common prefix: `PREFIX_PASSWORD`, and where they are set
/// `PREFIX_USER`, `PREFIX_HOST`, `PREFIX_PORT` and `PREFIX_DATABASE`.
///
/// These are the names of Tencent's SDK for databases, too (there the prefix is `DB_{REF}`). They are
/// read whenever a connection is opened.
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
    /// Variables that begin with `prefix` and an underscore.
    #[must_use]
    pub const fn prefix(prefix: &'static str) -> Self {
        Self { prefix }
    }

    fn secret(&self, read: impl Fn(&str) -> Result<String, VarError>) -> Result<Secret, Error> {
        let value = |field: &str| {
            let variable = format!("{}_{field}", self.prefix);
            match read(&variable) {
                Ok(value) if !value.is_empty() => Ok(Some(value)),
                Ok(_) | Err(VarError::NotPresent) => Ok(None),
                Err(VarError::NotUnicode(_)) => Err(unavailable(format_args!(
                    "the environment variable {variable} is not valid Unicode"
                ))),
            }
        };
        let password = value("PASSWORD")?.ok_or_else(|| {
            unavailable(format_args!(
                "the environment variable {}_PASSWORD is not set, or empty",
                self.prefix
            ))
        })?;
        let mut secret = Secret::new(password);
        secret.user = value("USER")?;
        secret.host = value("HOST")?;
        secret.database = value("DATABASE")?;
        if let Some(port) = value("PORT")? {
            let port: NonZero<u16> = port.parse().map_err(|_| {
                unavailable(format_args!(
                    "the environment variable {}_PORT is no number between 1 and 65535",
                    self.prefix
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<Secret, Error> {
        Environment::prefix("DB").secret(|variable| {
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
