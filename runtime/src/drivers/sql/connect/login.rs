//! Resolves connect options from the URL and the credentials, and retries once with fresh credentials.

use super::{url, warnings};
use crate::{
    credentials::{self, Bound, Engine, Resolved, Source, Target},
    drivers::sql::{
        driver::{Driver, Identify, TlsParts, UrlParts},
        error::{self, SaidBy},
        tls,
    },
    error::{Error, ErrorKind, Stage},
    resource::AcquireContext,
    util::clock::Stamp,
};
use futures_util::future::BoxFuture;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Creates the connect options of each login.
pub(in crate::drivers::sql) struct Authenticator<DB: Driver> {
    /// Without the credentials.
    options: DB::Options,
    /// The first statement on a new connection.
    setup_sql: String,
    credentials: Option<(Source, Target)>,
    tls: TlsParts,
}

/// The options for one login, and the secret in them.
pub(in crate::drivers::sql) struct LoginAttempt<DB: Driver> {
    pub(in crate::drivers::sql) options: DB::Options,
    resolved: Option<Resolved>,
    /// How long it took to fetch the secret.
    fetching: Duration,
}

impl<DB: Driver> Authenticator<DB> {
    /// Reads the URL. With credentials, its variable need not be set.
    pub(in crate::drivers::sql) fn read(acquire: &AcquireContext) -> Result<Self, Error> {
        let source = acquire.settings().credentials;
        let text = match acquire.url() {
            Err(error) if source.is_some() && error.kind() == ErrorKind::MissingUrl => None,
            url => Some(url?),
        };
        let text = text.unwrap_or_else(|| format!("{}:///", DB::SCHEMES[0]));
        let (options, setup_sql, written) = url::options_of::<DB>(acquire, &text)?;
        let variable = acquire.settings().env.unwrap_or("the URL");
        let credentials = match source {
            Some(source) => Some((source, targeted::<DB>(&options, variable, &written)?)),
            None => None,
        };
        Ok(Self {
            options,
            setup_sql,
            credentials,
            tls: written.tls,
        })
    }

    /// The first statement on a new connection.
    pub(in crate::drivers::sql) fn setup_sql(&self) -> &str {
        &self.setup_sql
    }

    /// Host, port and database, as far as the URL has them.
    pub(in crate::drivers::sql) fn place(&self) -> String {
        DB::target(&self.options)
    }

    /// The options for the next login, with a fresh secret.
    pub(in crate::drivers::sql) async fn attempt(
        &self,
        acquire: &AcquireContext,
    ) -> Result<LoginAttempt<DB>, Error> {
        let from = Instant::now();
        let resolved = match &self.credentials {
            Some((source, target)) => Some(
                credentials::resolve(bound(acquire), *source, target)
                    .await
                    .map_err(|error| named(acquire, error))?,
            ),
            None => None,
        };
        let attempt = self.with(acquire, resolved, from.elapsed()).await?;
        let is_token = attempt.resolved.as_ref().is_some_and(Resolved::is_token);
        warnings::emit(
            acquire,
            is_token,
            attempt.options.skips_server_verification(),
        );
        Ok(attempt)
    }

    /// The options for a second login after the server refused `failed`; `None` without credentials, which could have
    /// changed.
    pub(in crate::drivers::sql) async fn after_denial(
        &self,
        acquire: &AcquireContext,
        failed: &LoginAttempt<DB>,
    ) -> Result<Option<LoginAttempt<DB>>, Error> {
        let (Some((source, target)), Some(failed)) = (&self.credentials, &failed.resolved) else {
            return Ok(None);
        };
        tracing::debug!(
            handler = acquire.handler(),
            "the server rejected the credentials: fetching them again"
        );
        let from = Instant::now();
        let resolved = credentials::refresh(bound(acquire), *source, target, failed)
            .await
            .map_err(|error| named(acquire, error))?;
        self.with(acquire, Some(resolved), from.elapsed())
            .await
            .map(Some)
    }

    /// Connects with `connect`, and once more with fresh credentials if the server refuses the login. Bounded by
    /// `acquire`.
    pub(in crate::drivers::sql) async fn connect<'d, T>(
        &self,
        acquire: &AcquireContext,
        connect: impl Fn(&DB::Options) -> BoxFuture<'d, Result<T, sqlx::Error>> + Send + Sync,
    ) -> Result<T, ConnectError> {
        let first = self.attempt(acquire).await?;
        let error = match connect_once::<DB, T>(acquire, &first, &connect).await {
            Err(denied) if denied.why.kind() == ErrorKind::Authentication => denied,
            other => return other,
        };
        match self.after_denial(acquire, &first).await? {
            Some(second) => connect_once::<DB, T>(acquire, &second, &connect).await,
            None => Err(error),
        }
    }

    /// Whether the secret of `attempt` may still be used.
    pub(in crate::drivers::sql) fn is_fresh(attempt: &LoginAttempt<DB>) -> bool {
        attempt
            .resolved
            .as_ref()
            .is_none_or(|resolved| resolved.is_fresh(Stamp::now()))
    }

    /// Whether there are credentials, which may change.
    pub(in crate::drivers::sql) fn may_change(&self) -> bool {
        self.credentials.is_some()
    }

    async fn with(
        &self,
        acquire: &AcquireContext,
        resolved: Option<Resolved>,
        fetching: Duration,
    ) -> Result<LoginAttempt<DB>, Error> {
        let secret = resolved.as_ref().map(|resolved| &*resolved.secret);
        let options = match secret {
            Some(secret) => self.options.clone().with_secret(secret),
            None => self.options.clone(),
        };
        let options = tls::secured(options, &self.tls, secret)
            .map_err(|why| acquire.failed(ErrorKind::Tls, why))?;
        tls::look_at_files(&self.tls, options.tls_mode())
            .await
            .map_err(|why| acquire.failed(ErrorKind::InvalidUrl, why))?;
        Ok(LoginAttempt {
            options,
            resolved,
            fetching,
        })
    }
}

fn bound(acquire: &AcquireContext) -> Bound {
    Bound {
        until: acquire.until(),
        timeout: acquire.timeout(),
    }
}

fn named(acquire: &AcquireContext, error: Error) -> Error {
    error.at(Stage::Acquire).in_handler(acquire.handler())
}

/// A failure to open a connection.
#[derive(Debug)]
pub(in crate::drivers::sql) struct ConnectError {
    pub(in crate::drivers::sql) why: Error,
    /// The server is at its connection limit, and may be below it in a moment.
    pub(in crate::drivers::sql) is_server_full: bool,
}

impl From<Error> for ConnectError {
    fn from(why: Error) -> Self {
        Self {
            why,
            is_server_full: false,
        }
    }
}

async fn connect_once<'d, DB: Driver, T>(
    acquire: &AcquireContext,
    attempt: &LoginAttempt<DB>,
    connect: &(impl Fn(&DB::Options) -> BoxFuture<'d, Result<T, sqlx::Error>> + Sync),
) -> Result<T, ConnectError> {
    let place = || DB::target(&attempt.options);
    match timeout_at(acquire.until(), connect(&attempt.options)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => {
            let is_server_full = error.as_database_error().is_some_and(DB::is_server_full);
            let said_by = match &attempt.resolved {
                Some(resolved) => SaidBy::Secret(&resolved.secret),
                None => SaidBy::Url,
            };
            Err(ConnectError {
                why: error::connecting_as::<DB>(acquire, said_by, &place(), error),
                is_server_full,
            })
        }
        // The time went into fetching the secret, not into the network.
        Err(_) if attempt.fetching > acquire.timeout() / 2 => Err(acquire
            .failed(
                ErrorKind::ConnectTimeout,
                format!(
                    "getting what `credentials` provides took {} ms of the {} ms that connecting to {} at {} may take, and the rest was not enough",
                    attempt.fetching.as_millis(),
                    acquire.timeout().as_millis(),
                    DB::NAME,
                    place(),
                ),
            )
            .into()),
        Err(_) => Err(error::connect_timed_out::<DB>(acquire, &place()).into()),
    }
}

fn targeted<DB: Driver>(
    options: &DB::Options,
    variable: &'static str,
    written: &UrlParts,
) -> Result<Target, Error> {
    let target = options.target(variable, written);
    if target.engine == Engine::Other {
        return Err(Error::new(
            ErrorKind::Credentials,
            format!("{} takes no credentials: remove `credentials`", DB::NAME),
        )
        .at(Stage::Acquire));
    }
    Ok(target)
}
