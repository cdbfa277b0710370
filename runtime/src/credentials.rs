//! Providers of user and password, for URLs without them: `credentials = ..`.
//!
//! The value is the path of a [`Provider`]: a `static` of one of the types below, or an async function.
//!
//! | provider | where the secret comes from |
//! | --- | --- |
//! | [`Environment`] | variables with a common prefix: `DB_PASSWORD`, `DB_USER` or `DB_USERNAME`, `DB_HOST` .. |
//! | [`SecretFile`] | a file that holds the password, or the JSON that AWS writes for RDS |
//! | an `async fn() -> Result<Secret, E>` | wherever you like |
//! | `SecretsManager` (feature `secrets-manager`) | AWS Secrets Manager, in the format of RDS |
//! | `RdsIam` (feature `rds-iam`) | a token for RDS or Aurora, signed locally |
//!
//! ```
//! # #[cfg(feature = "postgres")]
//! # mod example {
//! use db_handler::{
//!     Error, LambdaEvent,
//!     credentials::SecretFile,
//!     db_handler,
//!     sqlx::{self, PgConnection},
//! };
//!
//! static DB_PASSWORD: SecretFile = SecretFile::password("/run/secrets/db-password");
//!
//! // DATABASE_URL is `postgres://app@db.internal/shop`: everything but the password.
//! #[db_handler(credentials = DB_PASSWORD)]
//! async fn orders(event: LambdaEvent<String>, db: &mut PgConnection) -> Result<i64, Error> {
//!     # let _ = event;
//!     Ok(sqlx::query_scalar("SELECT count(*) FROM orders").fetch_one(db).await?)
//! }
//! # }
//! # fn main() {}
//! ```
//!
//! The fields of a [`Secret`] override those of the URL. If the secret names the host, the URL's variable need
//! not be set.
//!
//! # When a secret is fetched
//!
//! Whenever a connection is opened, unless the last secret is still fresh: see [`Secret::fresh_for`]. There is
//! no timer, because a freeze would stop it: the age of a secret is the larger difference of the monotonic and
//! the wall clock.
//!
//! When the server rejects the secret, it is fetched again, once, and connecting is retried, once: a rotation
//! does not fail an invocation. If the new secret is the same, the rotation may be half done: the secret is
//! fetched once more, 500 ms later, if the time allows.
//!
//! sqlx's pool opens its connections itself. With credentials, the first one is opened before the handler gets
//! the pool, so that a rotation is noticed. Connections that the pool opens later use the secret that was fresh
//! at the beginning of the invocation.

mod environment;
mod file;
mod rds_json;
#[cfg(feature = "_sql")]
mod resolve;
mod secret;
mod target;

#[cfg(feature = "rds-iam")]
mod rds_iam;
#[cfg(feature = "secrets-manager")]
mod secrets_manager;

pub use environment::Environment;
pub use file::SecretFile;
#[cfg(feature = "rds-iam")]
pub use rds_iam::RdsIam;
pub use secret::Secret;
#[cfg(feature = "_sql")]
pub(crate) use secret::{Engine, not_in_a_password};
#[cfg(feature = "secrets-manager")]
pub use secrets_manager::SecretsManager;
pub use target::Target;

#[cfg(feature = "_sql")]
pub(crate) use resolve::{Bound, Resolved, refresh, resolve};

use crate::{
    error::{Error, ErrorKind},
    util::catch_panic,
};
#[cfg(feature = "_sql")]
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::{
    any::{Any, TypeId},
    error::Error as StdError,
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::LazyLock,
};

/// A source of secrets.
///
/// Implemented for the types of this module, for every async function without arguments that returns a
/// [`Secret`], and for a [`LazyLock`] of any of these.
///
/// ```
/// use db_handler::credentials::{Provider, Secret, Target};
/// use db_handler::Error;
///
/// /// One password for each user, from a vault.
/// struct Vault;
///
/// impl Provider for Vault {
///     async fn fetch(&self, target: &Target) -> Result<Secret, Error> {
///         # async fn ask_the_vault(_: &str) -> Result<String, Error> { Ok(String::new()) }
///         let user = target.user().unwrap_or("app");
///         Ok(Secret::new(ask_the_vault(user).await?))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` provides no credentials",
    label = "not a provider",
    note = "`credentials` takes the path of a `static` of a type of `db_handler::credentials`, or of an `async fn() -> Result<Secret, E>`",
    note = "implement `db_handler::credentials::Provider` for a type of your own"
)]
pub trait Provider: Send + Sync + 'static {
    /// Fetches the secret for `target`. Called by one caller at a time for each target, bounded by what is left
    /// of `acquire_ms`. The future may be dropped at any `.await`.
    ///
    /// # Errors
    /// If there is no secret. The error becomes the response: name what is missing, but never its value.
    fn fetch(&self, target: &Target) -> impl Future<Output = Result<Secret, Error>> + Send;

    /// Checks, before the first event, for what is missing and will not appear by itself, such as an
    /// environment variable. Makes no request, and does not block. The default checks nothing.
    ///
    /// [`run`](crate::run) calls this in the init phase, and returns its error.
    ///
    /// # Errors
    /// If something is missing: name it, but never its value.
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }
}

impl<F, Fut, E> Provider for F
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Secret, E>> + Send,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    async fn fetch(&self, _: &Target) -> Result<Secret, Error> {
        self().await.map_err(|error| {
            let error = Error::other(error);
            // An error with a kind of its own stays as it is.
            if error.kind() == ErrorKind::Handler {
                unavailable(error.message()).caused_by(error)
            } else {
                error
            }
        })
    }
}

impl<P: Provider> Provider for LazyLock<P> {
    async fn fetch(&self, target: &Target) -> Result<Secret, Error> {
        (**self).fetch(target).await
    }

    fn check(&self) -> Result<(), Error> {
        (**self).check()
    }
}

/// A provider, as the settings store it.
#[derive(Clone, Copy)]
pub struct Source(&'static dyn AnyProvider);

impl Source {
    /// Creates a source from `provider`.
    #[must_use]
    pub const fn new<P: Provider>(provider: &'static P) -> Self {
        Self(provider)
    }

    /// See [`Provider::check`].
    pub(crate) fn check(self) -> Result<(), Error> {
        catch_unwind(AssertUnwindSafe(|| self.0.check()))
            .unwrap_or_else(|panic| Err(self.panicked(&*panic)))
    }

    /// Fetches the secret. A panic of the provider becomes an error.
    #[cfg(feature = "_sql")]
    async fn fetch(self, target: &Target) -> Result<Secret, Error> {
        // Called inside the future, because the provider may panic before it returns one.
        let fetching = AssertUnwindSafe(async { self.0.fetch(target).await }).catch_unwind();
        fetching
            .await
            .unwrap_or_else(|panic| Err(self.panicked(&*panic)))
    }

    fn panicked(self, panic: &(dyn Any + Send)) -> Error {
        unavailable(format_args!(
            "the provider `{}` panicked: {}",
            self.0.name(),
            catch_panic::message(panic)
        ))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

/// A [`Provider`] as a trait object.
#[cfg_attr(
    not(feature = "_sql"),
    allow(dead_code, reason = "only what opens connections asks")
)]
trait AnyProvider: Send + Sync {
    fn fetch<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Secret, Error>>;
    fn check(&self) -> Result<(), Error>;
    /// Identifies the provider. An address alone does not distinguish functions, which are zero-sized.
    fn id(&self) -> (TypeId, usize);
    fn name(&self) -> &'static str;
}

impl<P: Provider> AnyProvider for P {
    fn fetch<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Secret, Error>> {
        Box::pin(Provider::fetch(self, target))
    }

    fn check(&self) -> Result<(), Error> {
        Provider::check(self)
    }

    fn id(&self) -> (TypeId, usize) {
        (TypeId::of::<P>(), std::ptr::from_ref(self).addr())
    }

    fn name(&self) -> &'static str {
        std::any::type_name::<P>()
    }
}

/// Creates the error of a provider that has no secret.
fn unavailable(message: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Credentials, format!("credentials: {message}"))
}
