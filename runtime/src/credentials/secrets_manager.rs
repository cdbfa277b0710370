//! AWS Secrets Manager, through the AWS SDK.

use super::{Provider, Secret, Target, unavailable};
use crate::error::Error;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_secretsmanager::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::get_secret_value::GetSecretValueError,
};
use aws_smithy_http_client::tls::{Provider as Tls, rustls_provider::CryptoMode};
use std::{
    borrow::Cow,
    env::{self, VarError},
    error::Error as StdError,
    fmt::{self, Write},
    time::Duration,
};
use tokio::sync::OnceCell;

/// How long a secret of AWS Secrets Manager is used (the figure of AWS's own caching clients).
const SECRET_FRESH: Duration = Duration::from_hours(1);

/// A secret in AWS Secrets Manager, in the JSON that AWS writes for RDS: see [`Secret::from_rds_json`].
///
/// The secret is used for an hour (see [`fresh_for`](Self::fresh_for)), and fetched again when the server
/// rejects it: a rotation is noticed immediately. The function's role needs the permission
/// `secretsmanager:GetSecretValue`.
///
/// ```
/// use db_handler::credentials::SecretsManager;
///
/// static DB_SECRET: SecretsManager = SecretsManager::secret("prod/shop/db");
/// # let _ = &DB_SECRET;
/// ```
///
/// Region and credentials come from the AWS SDK's default chain (`AWS_REGION` and the variables that Lambda
/// sets). [`client`](Self::client) sets a client of your own.
pub struct SecretsManager {
    id: Id,
    fresh_for: Duration,
    client: OnceCell<Client>,
}

/// The name or ARN of a secret.
#[derive(Debug)]
enum Id {
    Written(&'static str),
    /// Stored in the environment variable of this name.
    Variable(&'static str),
}

impl Id {
    fn read(&self) -> Result<Cow<'static, str>, Error> {
        match self {
            Self::Written(id) => Ok(Cow::Borrowed(id)),
            Self::Variable(variable) => match env::var(variable) {
                Ok(id) if !id.trim().is_empty() => Ok(Cow::Owned(id.trim().to_owned())),
                Ok(_) | Err(VarError::NotPresent) => Err(unavailable(format_args!(
                    "the environment variable {variable} is not set, or empty: set it to the name or ARN of a secret in AWS Secrets Manager"
                ))),
                Err(VarError::NotUnicode(_)) => Err(unavailable(format_args!(
                    "the environment variable {variable} is not valid Unicode"
                ))),
            },
        }
    }
}

impl SecretsManager {
    /// Reads the current version of the secret with this name or ARN.
    #[must_use]
    pub const fn secret(id: &'static str) -> Self {
        Self::of(Id::Written(id))
    }

    /// Reads the current version of the secret whose name or ARN is in the environment variable `variable`. If
    /// the variable is not set, [`run`](crate::run) reports it before the first event.
    ///
    /// ```
    /// use db_handler::credentials::SecretsManager;
    ///
    /// static DB_SECRET: SecretsManager = SecretsManager::from_env("DB_SECRET_ARN");
    /// # let _ = &DB_SECRET;
    /// ```
    #[must_use]
    pub const fn from_env(variable: &'static str) -> Self {
        Self::of(Id::Variable(variable))
    }

    const fn of(id: Id) -> Self {
        Self {
            id,
            fresh_for: SECRET_FRESH,
            client: OnceCell::const_new(),
        }
    }

    /// Sets how long the secret is used before it is fetched again. With 0, it is fetched whenever a connection
    /// is opened.
    #[must_use]
    pub const fn fresh_for(mut self, duration: Duration) -> Self {
        self.fresh_for = duration;
        self
    }

    /// Sets the client. Store the result in a `LazyLock`.
    #[must_use]
    pub fn client(mut self, client: Client) -> Self {
        self.client = OnceCell::new_with(Some(client));
        self
    }

    async fn ask(&self) -> Result<String, Error> {
        let client = self.client.get_or_init(default_client).await;
        if client.config().region().is_none() {
            return Err(unavailable(
                "AWS Secrets Manager needs a region: AWS_REGION is not set",
            ));
        }
        let id = self.id.read()?;
        let response = client.get_secret_value().secret_id(&*id).send().await;
        let response = response.map_err(|error| Self::refused(&id, error))?;
        response.secret_string.ok_or_else(|| {
            unavailable(format_args!(
                "the secret {id} in AWS Secrets Manager is binary, and has no text"
            ))
        })
    }

    fn refused(id: &str, error: SdkError<GetSecretValueError>) -> Error {
        let said = match (error.code(), error.message()) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(code), None) => code.to_owned(),
            _ => match refusal(&error) {
                Some(refusal) => format!("{}: {refusal}", in_words(&error)),
                None => in_words(&error),
            },
        };
        let refused = unavailable(format_args!(
            "AWS Secrets Manager does not hand over {id}: {said}"
        ));
        // Without the response itself, which may contain the secret.
        match error.into_source() {
            Ok(source) => refused.caused_by(source),
            Err(_) => refused,
        }
    }
}

/// Maximum number of characters of an error response that a message quotes.
const TOLD: usize = 500;

/// Returns the body of an error response that does not come from the service, such as a proxy's.
fn refusal(error: &SdkError<GetSecretValueError>) -> Option<String> {
    let response = error.raw_response()?;
    if response.status().is_success() {
        return None;
    }
    let text = str::from_utf8(response.body().bytes()?).ok()?;
    Some(text.chars().take(TOLD).collect())
}

/// Joins the texts of `error` and its causes. `Debug` is not used, because it shows the response that could not
/// be parsed.
fn in_words(error: &dyn StdError) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(said, ": {error}");
        cause = error.source();
    }
    said
}

impl Provider for SecretsManager {
    async fn fetch(&self, _: &Target) -> Result<Secret, Error> {
        let json = self.ask().await?;
        Ok(Secret::from_rds_json(&json)?.fresh_for(self.fresh_for))
    }

    fn check(&self) -> Result<(), Error> {
        self.id.read().map(drop)
    }
}

impl fmt::Debug for SecretsManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretsManager")
            .field("id", &self.id)
            .field("fresh_for", &self.fresh_for)
            .finish_non_exhaustive()
    }
}

async fn default_client() -> Client {
    // The TLS library that sqlx uses: the SDK's default would be a second one.
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Tls::Rustls(CryptoMode::Ring))
        .build_https();
    let mut config = aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http);
    // The instance metadata request for a region takes seconds where there is no metadata service.
    if let Some(region) = region(|variable| env::var(variable).ok()) {
        config = config.region(Region::new(region));
    }
    Client::new(&config.load().await)
}

fn region(read: impl Fn(&'static str) -> Option<String>) -> Option<String> {
    ["AWS_REGION", "AWS_DEFAULT_REGION"]
        .into_iter()
        .filter_map(read)
        .find(|region| !region.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_is_none() {
        let read = |variable| {
            let value = if variable == "AWS_REGION" {
                ""
            } else {
                "eu-west-1"
            };
            Some(value.to_owned())
        };
        assert_eq!(region(read).as_deref(), Some("eu-west-1"));
        assert_eq!(region(|_| None), None);
    }
}
