//! As whom, and where, a connection is opened: what the URL says, what the credentials say over it, and
//! a second try with fresh ones.

use super::{advice, driver::Driver, fault, url};
use crate::{
    clock::Stamp,
    credentials::{self, Engine, Resolved, Secret, Source, Target},
    error::{Error, ErrorKind, Stage},
    resource::Acquire,
};
use futures_util::future::BoxFuture;
use std::env;
use tokio::time::timeout_at;

/// How the connect options of one database take what is not in the URL.
pub trait Identify: Sized {
    /// What the URL said about the way to the server.
    fn target(&self, variable: &'static str, written: &Written) -> Target;

    /// Puts what `secret` holds over what the URL said; with `verify`, the server has to prove its name.
    fn identified_by(self, secret: &Secret, verify: bool) -> Self;

    /// Whether another server could pass for the one that is meant.
    fn trusts_anybody(&self) -> bool;
}

/// Which parts are there in a URL, whatever defaults sqlx has for the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a part of its own")]
pub struct Written {
    pub(super) host: bool,
    pub(super) user: bool,
    pub(super) database: bool,
    pub(super) tls_mode: bool,
}

/// See the module.
pub(super) struct Login<DB: Driver> {
    /// With everything but the credentials.
    options: DB::Options,
    /// What is said first on a new connection.
    greeting: String,
    credentials: Option<(Source, Target)>,
    writes_tls_mode: bool,
}

/// The options for one try, and the secret in them.
pub(super) struct Attempt<DB: Driver> {
    pub(super) options: DB::Options,
    resolved: Option<Resolved>,
}

impl<DB: Driver> Login<DB> {
    /// Reads the URL. With credentials, its variable need not be set.
    pub(super) fn read(acquire: &Acquire) -> Result<Self, Error> {
        let source = acquire.settings().credentials;
        let text = match acquire.url() {
            Err(error) if source.is_some() && error.kind() == ErrorKind::MissingUrl => None,
            url => Some(url?),
        };
        let written = text.as_deref().map(Written::in_url).unwrap_or_default();
        let (options, greeting) = match text {
            Some(text) => url::options_of::<DB>(acquire, &text)?,
            None => url::options_of::<DB>(acquire, &format!("{}:///", DB::SCHEMES[0]))?,
        };
        let variable = acquire.settings().env.unwrap_or("the URL");
        let credentials = match source {
            Some(source) => Some((source, targeted::<DB>(&options, variable, &written)?)),
            None => None,
        };
        Ok(Self {
            options,
            greeting,
            credentials,
            writes_tls_mode: written.tls_mode,
        })
    }

    /// What is to be said first on a new connection.
    pub(super) fn greeting(&self) -> &str {
        &self.greeting
    }

    /// Host, port and database, as far as the URL knows them.
    pub(super) fn place(&self) -> String {
        DB::target(&self.options)
    }

    /// The options for the next try, with a secret that is fresh.
    pub(super) async fn attempt(&self, acquire: &Acquire) -> Result<Attempt<DB>, Error> {
        let Some((source, target)) = &self.credentials else {
            advice::give(acquire, false, self.options.trusts_anybody());
            return Ok(Attempt {
                options: self.options.clone(),
                resolved: None,
            });
        };
        let resolved = credentials::resolve(acquire, *source, target).await?;
        let attempt = self.with(resolved);
        let is_token = attempt.resolved.as_ref().is_some_and(Resolved::is_token);
        advice::give(acquire, is_token, attempt.options.trusts_anybody());
        Ok(attempt)
    }

    /// The options for a second try after the server did not let `failed` in; `None` without
    /// credentials that could have changed.
    pub(super) async fn after_denial(
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
        let resolved = credentials::refresh(acquire, *source, target, failed).await?;
        Ok(Some(self.with(resolved)))
    }

    /// Connects by `dial`, and where the server does not let us in, once more with fresh credentials.
    /// Bounded by the acquire.
    pub(super) async fn connect<'d, T>(
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
    pub(super) fn is_fresh(attempt: &Attempt<DB>) -> bool {
        attempt
            .resolved
            .as_ref()
            .is_none_or(|resolved| resolved.is_fresh(Stamp::now()))
    }

    /// Whether there are credentials, which may change.
    pub(super) fn may_change(&self) -> bool {
        self.credentials.is_some()
    }

    fn with(&self, resolved: Resolved) -> Attempt<DB> {
        let secret = &resolved.secret;
        // What a token may do is too much to be shown to a server that has not proved who it is.
        let verify = secret.is_token && !self.writes_tls_mode;
        Attempt {
            options: self.options.clone().identified_by(secret, verify),
            resolved: Some(resolved),
        }
    }
}

/// A connection that could not be opened.
#[derive(Debug)]
pub(super) struct Denied {
    pub(super) why: Error,
    /// The server has no room, and may have some in a moment.
    pub(super) for_lack_of_room: bool,
}

impl From<Error> for Denied {
    fn from(why: Error) -> Self {
        Self {
            why,
            for_lack_of_room: false,
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
            let for_lack_of_room = error.as_database_error().is_some_and(DB::has_no_room);
            Err(Denied {
                why: fault::connecting::<DB>(acquire, &place(), error),
                for_lack_of_room,
            })
        }
        Err(_) => Err(fault::connect_timed_out::<DB>(acquire, &place()).into()),
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

impl Written {
    fn in_url(url: &str) -> Self {
        let rest = url.split_once("://").map_or("", |(_, rest)| rest);
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = place.split_once('/').unwrap_or((place, ""));
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let has = |names: &[&str]| {
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .any(|(name, _)| names.contains(&name))
        };
        // sqlx reads PostgreSQL's variables, too.
        let set = |name| url.starts_with("postgres") && env::var_os(name).is_some();
        Self {
            host: !host.is_empty() || has(&["host", "hostaddr", "socket"]) || set("PGHOST"),
            user: !user.is_empty() && !user.starts_with(':') || has(&["user"]) || set("PGUSER"),
            database: !path.is_empty() || has(&["dbname"]) || set("PGDATABASE"),
            tls_mode: has(&["sslmode", "ssl-mode"]) || set("PGSSLMODE"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "postgres")]
    #[test]
    fn a_token_is_for_a_server_that_proves_its_name_unless_the_url_says_otherwise() {
        use crate::config::{Config, Defaults, Settings};
        use sqlx::postgres::{PgConnectOptions, PgSslMode};
        use std::str::FromStr;

        async fn token() -> Result<Secret, Error> {
            let mut secret = Secret::new("token");
            secret.is_token = true;
            Ok(secret)
        }
        async fn password() -> Result<Secret, Error> {
            Ok(Secret::new("password"))
        }
        let mode = |source, url: &str| {
            let written = Written::in_url(url);
            let options = PgConnectOptions::from_str(url).expect("a URL");
            let target = options.target("DATABASE_URL", &written);
            let login = Login::<sqlx::Postgres> {
                options,
                greeting: String::new(),
                credentials: Some((source, target)),
                writes_tls_mode: written.tls_mode,
            };
            let settings = Settings::new(&Config::new(), &Defaults::SQL);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let acquire = Acquire::new("tests::tls", settings, None);
                let attempt = login.attempt(&acquire).await.expect("provided");
                attempt.options.get_ssl_mode()
            })
        };
        let modes = [
            mode(Source::new(&token), "postgres://app@db.internal/shop"),
            mode(
                Source::new(&token),
                "postgres://app@db.internal/shop?sslmode=require",
            ),
            mode(Source::new(&password), "postgres://app@db.internal/shop"),
        ];
        assert!(matches!(
            modes,
            [PgSslMode::VerifyFull, PgSslMode::Require, PgSslMode::Prefer]
        ));
    }

    #[test]
    fn what_a_url_says_is_told_from_defaults() {
        let full = Written::in_url("postgres://app:x@host:5432/shop?sslmode=require");
        let all = Written {
            host: true,
            user: true,
            database: true,
            tls_mode: true,
        };
        assert_eq!(full, all);
        assert_eq!(
            Written::in_url("postgres:///?host=h&user=u&dbname=d&ssl-mode=disable"),
            all
        );
        assert_eq!(Written::in_url("mysql://:x@/"), Written::default());
    }
}
