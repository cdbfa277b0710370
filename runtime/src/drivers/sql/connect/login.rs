//! As whom, and where, a connection is opened: what the URL says, what the credentials say over it, and
//! a second try with fresh ones.

use super::{url, warnings};
use crate::{
    credentials::{self, Bound, Engine, Resolved, Source, Target},
    drivers::sql::{
        driver::{Driver, Identify, Written, WrittenTls},
        error::{self, SaidBy},
        tls,
    },
    error::{Error, ErrorKind, Stage},
    resource::Acquire,
    util::clock::Stamp,
};
use futures_util::future::BoxFuture;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// See the module.
pub(in crate::drivers::sql) struct Login<DB: Driver> {
    /// With everything but the credentials.
    options: DB::Options,
    /// What is said first on a new connection.
    setup_sql: String,
    credentials: Option<(Source, Target)>,
    tls: WrittenTls,
}

/// The options for one try, and the secret in them.
pub(in crate::drivers::sql) struct Attempt<DB: Driver> {
    pub(in crate::drivers::sql) options: DB::Options,
    resolved: Option<Resolved>,
    /// How long it took to get the secret.
    fetching: Duration,
}

impl<DB: Driver> Login<DB> {
    /// Reads the URL. With credentials, its variable need not be set.
    pub(in crate::drivers::sql) fn read(acquire: &Acquire) -> Result<Self, Error> {
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

    /// What is to be said first on a new connection.
    pub(in crate::drivers::sql) fn setup_sql(&self) -> &str {
        &self.setup_sql
    }

    /// Host, port and database, as far as the URL knows them.
    pub(in crate::drivers::sql) fn place(&self) -> String {
        DB::target(&self.options)
    }

    /// The options for the next try, with a secret that is fresh.
    pub(in crate::drivers::sql) async fn attempt(
        &self,
        acquire: &Acquire,
    ) -> Result<Attempt<DB>, Error> {
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
        warnings::give(
            acquire,
            is_token,
            attempt.options.skips_server_verification(),
        );
        Ok(attempt)
    }

    /// The options for a second try after the server did not let `failed` in; `None` without
    /// credentials that could have changed.
    pub(in crate::drivers::sql) async fn after_denial(
        &self,
        acquire: &Acquire,
        failed: &Attempt<DB>,
    ) -> Result<Option<Attempt<DB>>, Error> {
        let (Some((source, target)), Some(failed)) = (&self.credentials, &failed.resolved) else {
            return Ok(None);
        };
        tracing::debug!(
            handler = acquire.handler(),
            "the server did not let us in: the credentials are fetched afresh"
        );
        let from = Instant::now();
        let resolved = credentials::refresh(bound(acquire), *source, target, failed)
            .await
            .map_err(|error| named(acquire, error))?;
        self.with(acquire, Some(resolved), from.elapsed())
            .await
            .map(Some)
    }

    /// Connects by `dial`, and where the server does not let us in, once more with fresh credentials.
    /// Bounded by the acquire.
    pub(in crate::drivers::sql) async fn connect<'d, T>(
        &self,
        acquire: &Acquire,
        dial: impl Fn(&DB::Options) -> BoxFuture<'d, Result<T, sqlx::Error>> + Send + Sync,
    ) -> Result<T, Denied> {
        let first = self.attempt(acquire).await?;
        let error = match dial_once::<DB, T>(acquire, &first, &dial).await {
            Err(denied) if denied.why.kind() == ErrorKind::Authentication => denied,
            other => return other,
        };
        match self.after_denial(acquire, &first).await? {
            Some(second) => dial_once::<DB, T>(acquire, &second, &dial).await,
            None => Err(error),
        }
    }

    /// Whether what `attempt` logs in with may be used on.
    pub(in crate::drivers::sql) fn is_fresh(attempt: &Attempt<DB>) -> bool {
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
        acquire: &Acquire,
        resolved: Option<Resolved>,
        fetching: Duration,
    ) -> Result<Attempt<DB>, Error> {
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
        Ok(Attempt {
            options,
            resolved,
            fetching,
        })
    }
}

fn bound(acquire: &Acquire) -> Bound {
    Bound {
        until: acquire.until(),
        timeout: acquire.within(),
    }
}

fn named(acquire: &Acquire, error: Error) -> Error {
    error.at(Stage::Acquire).in_handler(acquire.handler())
}

/// A connection that could not be opened.
#[derive(Debug)]
pub(in crate::drivers::sql) struct Denied {
    pub(in crate::drivers::sql) why: Error,
    /// The server has no room, and may have some in a moment.
    pub(in crate::drivers::sql) is_server_full: bool,
}

impl From<Error> for Denied {
    fn from(why: Error) -> Self {
        Self {
            why,
            is_server_full: false,
        }
    }
}

async fn dial_once<'d, DB: Driver, T>(
    acquire: &Acquire,
    attempt: &Attempt<DB>,
    dial: &(impl Fn(&DB::Options) -> BoxFuture<'d, Result<T, sqlx::Error>> + Sync),
) -> Result<T, Denied> {
    let place = || DB::target(&attempt.options);
    match timeout_at(acquire.until(), dial(&attempt.options)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => {
            let is_server_full = error.as_database_error().is_some_and(DB::is_server_full);
            let said_by = match &attempt.resolved {
                Some(resolved) => SaidBy::Secret(&resolved.secret),
                None => SaidBy::Url,
            };
            Err(Denied {
                why: error::connecting_as::<DB>(acquire, said_by, &place(), error),
                is_server_full,
            })
        }
        // Then it is not the network that has to be looked at.
        Err(_) if attempt.fetching > acquire.within() / 2 => Err(acquire
            .failed(
                ErrorKind::ConnectTimeout,
                format!(
                    "getting what `credentials` provides took {} ms of the {} ms that connecting to {} at {} may take, and the rest was not enough",
                    attempt.fetching.as_millis(),
                    acquire.within().as_millis(),
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
    written: &Written,
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
