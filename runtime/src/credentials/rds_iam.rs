//! IAM authentication tokens of RDS and Aurora, signed locally.

use super::{Provider, Secret, Target, unavailable};
use crate::error::Error;
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider},
};
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign},
    sign::v4,
};
use std::{
    env, fmt,
    time::{Duration, SystemTime},
};

/// Lifetime of an RDS IAM token, from AWS's documentation.
const IAM_TOKEN_LIFE: Duration = Duration::from_mins(15);
/// How long an IAM token is used: shorter than its lifetime, so that it does not expire on its way to the
/// server.
const IAM_TOKEN_FRESH: Duration = Duration::from_mins(10);

/// Logs in with an IAM token instead of a password: a presigned request of the service `rds-db`.
///
/// A token is signed locally, with the credentials of the function's role, and is used for 10 of the 15 minutes
/// of its lifetime. Host, port and user are those of the URL
/// (`postgres://app@db.xyz.eu-west-1.rds.amazonaws.com/shop`). The user needs the role `rds_iam` (PostgreSQL)
/// or the plugin `AWSAuthenticationPlugin` (MySQL). The function's role needs the permission `rds-db:connect`.
///
/// A token is as sensitive as a password. It is sent only over TLS, to a server whose certificate **and name
/// are verified**: `sslmode=require` in the URL (MySQL: `ssl-mode=REQUIRED`) means `verify-full`
/// (`VERIFY_IDENTITY`) here, and so does a missing `sslmode`; a mode that allows plain text is an error. RDS
/// certificates are signed by AWS's own authorities: add `sslrootcert=/var/task/global-bundle.pem` to the URL
/// (`ssl-ca` for MySQL), or compile the bundle in with [`root_certificate`](Self::root_certificate).
///
/// ```
/// use db_handler::credentials::RdsIam;
///
/// static DB_USER: RdsIam = RdsIam::new();
/// # let _ = &DB_USER;
/// ```
///
/// # The region and the credentials
///
/// The region is that of [`region`](Self::region), else the one in the host's name, else that in `AWS_REGION`
/// or `AWS_DEFAULT_REGION`. The credentials are those of [`credentials`](Self::credentials), else those in
/// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`, which Lambda sets. If the region or
/// the credentials are missing, the error names what is missing.
pub struct RdsIam {
    region: Option<&'static str>,
    root_certificate: Option<&'static [u8]>,
    any_server: bool,
    credentials: Option<SharedCredentialsProvider>,
}

impl RdsIam {
    /// Creates a provider with region and credentials from the environment.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            region: None,
            root_certificate: None,
            any_server: false,
            credentials: None,
        }
    }

    /// Sets the database's region.
    #[must_use]
    pub const fn region(mut self, region: &'static str) -> Self {
        self.region = Some(region);
        self
    }

    /// Sets certificates, in PEM, that may sign the server's certificate, in addition to the public
    /// authorities: `include_bytes!("global-bundle.pem")`, from AWS's page "Certificate bundles".
    #[must_use]
    pub const fn root_certificate(mut self, pem: &'static [u8]) -> Self {
        self.root_certificate = Some(pem);
        self
    }

    /// Sends the token to any server, with the URL's own `sslmode`: with `sslmode=disable` in plain text. For
    /// tests with a server that has no certificate. An attacker on the network can log in with the token for 15
    /// minutes.
    #[must_use]
    pub const fn danger_accept_any_server(mut self) -> Self {
        self.any_server = true;
        self
    }

    /// Sets the credentials that sign: a provider of the AWS SDK, such as aws-config's chain, instead of the
    /// environment. Store the result in a `LazyLock`.
    #[must_use]
    pub fn credentials(mut self, credentials: impl ProvideCredentials + 'static) -> Self {
        self.credentials = Some(SharedCredentialsProvider::new(credentials));
        self
    }

    fn region_of(&self, host: &str) -> Result<String, Error> {
        if let Some(region) = self.region.or_else(|| region_in(host)) {
            return Ok(region.to_owned());
        }
        ["AWS_REGION", "AWS_DEFAULT_REGION"]
            .into_iter()
            .find_map(set)
            .ok_or_else(|| {
                unavailable(
                    "an IAM token needs the database's region: the host's name has none, and AWS_REGION is not set",
                )
            })
    }

    async fn signer(&self) -> Result<Credentials, Error> {
        let Some(provider) = &self.credentials else {
            return from_environment();
        };
        provider.provide_credentials().await.map_err(|error| {
            unavailable(format_args!(
                "the AWS credentials to sign an IAM token with cannot be had: {error}"
            ))
            .caused_by(error)
        })
    }
}

impl Default for RdsIam {
    fn default() -> Self {
        Self::new()
    }
}

impl Provider for RdsIam {
    async fn fetch(&self, target: &Target) -> Result<Secret, Error> {
        let needed = |what| {
            unavailable(format_args!(
                "an IAM token needs the {what} that it is for: {} names none (it should look like `postgres://user@host:5432/database`)",
                target.variable
            ))
        };
        let host = target.host().ok_or_else(|| needed("host"))?;
        let port = target.port().ok_or_else(|| needed("port"))?;
        let user = target.user().ok_or_else(|| needed("user"))?;
        let region = self.region_of(host)?;
        let signer = self.signer().await?;
        let now = SystemTime::now();
        if let Some(end) = signer.expiry()
            && let Ok(ago) = now.duration_since(end)
        {
            return Err(unavailable(format_args!(
                "the AWS credentials to sign an IAM token with expired {} s ago",
                ago.as_secs()
            )));
        }
        let end = now + IAM_TOKEN_LIFE;
        // AWS rejects a token once the credentials that signed it have expired.
        let end = signer.expiry().map_or(end, |expiry| expiry.min(end));
        let token = token(&format!("{host}:{port}"), user, &region, signer, now)?;
        let mut secret = Secret::new(token)
            .fresh_for(IAM_TOKEN_FRESH)
            .expires_at(end);
        secret.is_token = true;
        secret.goes_to_any_server = self.any_server;
        secret.root_certificate = self.root_certificate.map(Into::into);
        Ok(secret)
    }
}

impl fmt::Debug for RdsIam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RdsIam")
            .field("region", &self.region)
            .field("any_server", &self.any_server)
            .finish_non_exhaustive()
    }
}

/// Signs `GET https://host:port/?Action=connect&DBUser=user`, and returns it without its scheme.
fn token(
    place: &str,
    user: &str,
    region: &str,
    signer: Credentials,
    now: SystemTime,
) -> Result<String, Error> {
    let url = format!(
        "https://{place}/?Action=connect&DBUser={}",
        percent_encoded(user)
    );
    let unsignable = |what: &dyn fmt::Display| {
        unavailable(format_args!(
            "no IAM token can be signed for {place}: {what}"
        ))
    };
    let identity = signer.into();
    let mut settings = SigningSettings::default();
    settings.expires_in = Some(IAM_TOKEN_LIFE);
    settings.signature_location = SignatureLocation::QueryParams;
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("rds-db")
        .time(now)
        .settings(settings)
        .build()
        .map_err(|error| unsignable(&error))?
        .into();
    let request = SignableRequest::new("GET", &url, std::iter::empty(), SignableBody::Bytes(&[]))
        .map_err(|error| unsignable(&error))?;
    let (instructions, _) = sign(request, &params)
        .map_err(|error| unsignable(&error))?
        .into_parts();
    let mut token = url.trim_start_matches("https://").to_owned();
    let (_, query) = instructions.into_parts();
    for (name, value) in query {
        token.push('&');
        token.push_str(name);
        token.push('=');
        token.push_str(&percent_encoded(&value));
    }
    Ok(token)
}

fn from_environment() -> Result<Credentials, Error> {
    let needed = |variable| {
        set(variable).ok_or_else(|| {
            unavailable(format_args!(
                "an IAM token needs AWS credentials to be signed with: {variable} is not set (where they do not come from the environment, see `RdsIam::credentials`)"
            ))
        })
    };
    Ok(Credentials::new(
        needed("AWS_ACCESS_KEY_ID")?,
        needed("AWS_SECRET_ACCESS_KEY")?,
        set("AWS_SESSION_TOKEN"),
        None,
        "environment",
    ))
}

fn set(variable: &str) -> Option<String> {
    env::var(variable).ok().filter(|value| !value.is_empty())
}

/// Returns the region in a host's name: `eu-west-1` in `db.xyz.eu-west-1.rds.amazonaws.com`, also followed by
/// `.cn`.
fn region_in(host: &str) -> Option<&str> {
    let host = host.strip_suffix(".cn").unwrap_or(host);
    let (_, region) = host.strip_suffix(".rds.amazonaws.com")?.rsplit_once('.')?;
    Some(region)
}

/// Percent-encodes by the rules of SigV4: everything but RFC 3986's unreserved characters.
fn percent_encoded(text: &str) -> String {
    let encoded = text.bytes().map(|byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    });
    encoded.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const HOST: &str = "shop.cxyz.eu-west-1.rds.amazonaws.com";

    fn signer(expires_at: Option<SystemTime>) -> Credentials {
        Credentials::new(
            "AKIDEXAMPLE",
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            Some("a/session+token=".to_owned()),
            expires_at,
            "test",
        )
    }

    fn provider() -> RdsIam {
        RdsIam::new().credentials(signer(None))
    }

    async fn refused(provider: RdsIam, target: Target) -> String {
        let error = provider.fetch(&target).await.expect_err("not complete");
        let text = format!("{error:?}");
        assert_eq!(error.error_type(), "Credentials");
        assert!(
            !text.contains("EXAMPLEKEY") && !text.contains("session+token"),
            "{text}"
        );
        text
    }

    /// The expected value comes from another implementation, botocore's `generate_db_auth_token`.
    #[test]
    fn the_token_is_the_one_that_botocore_signs() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045);
        let token = token(
            &format!("{HOST}:5432"),
            "app user@shop",
            "eu-west-1",
            signer(None),
            at,
        )
        .expect("signable");
        let (place, query) = token.split_once('?').expect("a query");
        let expected = include_str!("rds_iam_token.txt").trim_end();
        let (expected_place, expected_query) = expected.split_once('?').expect("a query");
        assert_eq!(place, expected_place);
        // The order is not signed.
        let sorted = |query: &str| {
            let mut pairs: Vec<String> = query.split('&').map(ToOwned::to_owned).collect();
            pairs.sort();
            pairs
        };
        assert_eq!(sorted(query), sorted(expected_query));
    }

    #[tokio::test]
    async fn a_token_is_used_for_ten_of_its_fifteen_minutes() {
        let secret = provider()
            .fetch(&Target::of_tests(HOST))
            .await
            .expect("complete");
        assert_eq!(secret.fresh_for, Duration::from_secs(600));
        let left = secret
            .expires_at
            .and_then(|end| end.duration_since(SystemTime::now()).ok())
            .expect("an end");
        assert!(left > Duration::from_secs(890) && left <= Duration::from_secs(900));
        assert!(secret.is_token);
        assert!(
            secret.password().starts_with(&format!(
                "{HOST}:5432/?Action=connect&DBUser=app&X-Amz-Algorithm=AWS4-HMAC-SHA256&"
            )),
            "the token's beginning"
        );
    }

    #[tokio::test]
    async fn a_token_outlives_no_credentials() {
        let soon = SystemTime::now() + Duration::from_secs(60);
        let provider = RdsIam::new().credentials(signer(Some(soon)));
        let secret = provider.fetch(&Target::of_tests(HOST)).await;
        assert_eq!(secret.expect("complete").expires_at, Some(soon));
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let without_region = refused(provider(), Target::of_tests("db.internal")).await;
        assert!(without_region.contains("AWS_REGION"), "{without_region}");

        let target = || Target::of_tests(HOST);
        let without_signer = refused(RdsIam::new(), target()).await;
        assert!(
            without_signer.contains("AWS_ACCESS_KEY_ID"),
            "{without_signer}"
        );

        let user = None;
        let without_user = refused(provider(), Target { user, ..target() }).await;
        assert!(without_user.contains("needs the user"), "{without_user}");
        let host = None;
        let without_host = refused(provider(), Target { host, ..target() }).await;
        assert!(without_host.contains("needs the host"), "{without_host}");

        let past = SystemTime::now() - Duration::from_secs(60);
        let expired = refused(RdsIam::new().credentials(signer(Some(past))), target()).await;
        assert!(expired.contains("expired 60 s ago"), "{expired}");
    }

    #[test]
    fn the_region_is_in_the_hosts_name() {
        assert_eq!(region_in(HOST), Some("eu-west-1"));
        assert_eq!(
            region_in("c.cluster-ro-x.cn-north-1.rds.amazonaws.com.cn"),
            Some("cn-north-1")
        );
        assert_eq!(region_in("db.internal"), None);
        let elsewhere = RdsIam::new().region("us-east-1");
        assert_eq!(elsewhere.region_of(HOST).expect("given"), "us-east-1");
    }
}
