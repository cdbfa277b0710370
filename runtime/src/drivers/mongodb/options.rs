//! Reads the driver's options from an environment variable, and explains what is wrong with it.

use super::{blame, error};
use crate::{
    error::{Error, ErrorKind, Stage},
    resource::AcquireContext,
    util::local_host::{is_local_host, with_port},
};
use ::mongodb::{
    bson::oid::ObjectId,
    options::{
        ClientOptions, Credential, DriverInfo, ServerAddress, ServerMonitoringMode, Tls, TlsOptions,
    },
};
use std::{
    env,
    net::{IpAddr, ToSocketAddrs},
    time::Duration,
};

const EXAMPLE: &str = "mongodb+srv://user:password@host/database";

/// The schemes of other databases, for a URL in the wrong variable.
const OTHERS: [&str; 5] = ["postgres", "postgresql", "mysql", "mariadb", "sqlite"];

/// The platforms' variables for the function's name and version.
const NAMES: [(&str, &str); 2] = [
    ("AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_VERSION"),
    ("SCF_FUNCTIONNAME", "SCF_FUNCTIONVERSION"),
];

const PORT: u16 = 27_017;

/// The longest application name that a server accepts: `appName` in MongoDB's connection string options.
const LONGEST_NAME: usize = 128;

/// Reads the options from this parameter's URL, bounded by its settings.
pub(super) async fn read(acquire: &AcquireContext) -> Result<ClientOptions, Error> {
    let url = acquire.url()?;
    check_scheme(acquire, &url)?;
    let mut options = ClientOptions::parse(&url)
        .await
        .map_err(|error| not_resolved(acquire, &url, &error))?;
    encrypt(&mut options);
    if let Some(reason) = blame::wrong_file(&options).await {
        return Err(wrong(acquire, &reason));
    }
    if nobody_has_these_names(&options).await {
        return Err(error::no_such_host(acquire, &options));
    }
    bound(&mut options, acquire);
    Ok(options)
}

/// Whether the text after the colon of this host is certain to be a port. Without a user it may be a password in a URL
/// without a host, as in `mongodb://user:password/database`.
fn has_certain_port(options: &ClientOptions, host: &str) -> bool {
    let has_user = |credential: &Credential| credential.username.is_some();
    options.credential.as_ref().is_some_and(has_user)
        || is_local_host(host)
        || host.parse::<IpAddr>().is_ok()
}

/// Whether the URL names only hosts that do not exist, each of which may be a user name. The driver's error would show
/// everything in the URL about them.
async fn nobody_has_these_names(options: &ClientOptions) -> bool {
    let mut names = Vec::with_capacity(options.hosts.len());
    for address in &options.hosts {
        match address {
            ServerAddress::Tcp { host, port } if !has_certain_port(options, host) => {
                names.push((host.clone(), port.unwrap_or_default()));
            }
            _ => return false,
        }
    }
    let is_known = |name: &(String, u16)| (name.0.as_str(), name.1).to_socket_addrs().is_ok();
    let looking = tokio::task::spawn_blocking(move || !names.iter().any(is_known));
    looking.await.unwrap_or(false)
}

/// Enables TLS where the URL says nothing about it and a password would cross the network in plain text. Only an
/// explicit `tls=false` prevents it.
fn encrypt(options: &mut ClientOptions) {
    let is_local = |address: &ServerAddress| match address {
        ServerAddress::Tcp { host, .. } => is_local_host(host),
        #[cfg(unix)]
        ServerAddress::Unix { .. } => true,
        _ => false,
    };
    let crosses_a_network = !options.hosts.iter().all(is_local);
    if options.tls.is_none() && options.credential.is_some() && crosses_a_network {
        options.tls = Some(Tls::Enabled(TlsOptions::default()));
    }
}

fn bound(options: &mut ClientOptions, acquire: &AcquireContext) {
    let settings = acquire.settings();
    let shorter = |given: Option<Duration>, bound: Duration| {
        Some(given.map_or(bound, |given| given.min(bound)))
    };
    options.server_selection_timeout = shorter(options.server_selection_timeout, acquire.timeout());
    options.connect_timeout = shorter(options.connect_timeout, acquire.timeout());
    options.max_idle_time = shorter(options.max_idle_time, settings.idle);
    // The attribute's numbers override the URL's: `budget` was checked with them.
    options.max_pool_size = Some(settings.max);
    options.min_pool_size = Some(settings.min);
    if options
        .max_connecting
        .is_some_and(|most| most > settings.max)
    {
        options.max_connecting = Some(settings.max);
    }
    // The driver does the same on the platforms that it recognizes, but it does not recognize all of them.
    options
        .server_monitoring_mode
        .get_or_insert(ServerMonitoringMode::Poll);
    options
        .app_name
        .get_or_insert_with(|| app_name(acquire.handler()));
    options.driver_info = Some(mark());
}

/// Labels the connections, so that the operations on them can be found on the server.
pub(super) fn mark() -> DriverInfo {
    DriverInfo::builder()
        .name("db-handler")
        .version(env!("CARGO_PKG_VERSION").to_owned())
        .platform(ObjectId::new().to_hex())
        .build()
}

fn app_name(handler: &str) -> String {
    let read = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let mut name = NAMES
        .iter()
        .find_map(|(name, version)| {
            let name = read(*name)?;
            Some(match read(*version) {
                Some(version) => format!("{name}:{version}"),
                None => name,
            })
        })
        .unwrap_or_else(|| handler.to_owned());
    let end = name.floor_char_boundary(LONGEST_NAME);
    name.truncate(end);
    name
}

/// The hosts: the only part of a URL that errors may show.
pub(super) fn target(options: &ClientOptions) -> String {
    let hosts = options.hosts.iter().map(|address| shown(options, address));
    hosts.collect::<Vec<String>>().join(", ")
}

/// One host, as errors may show it.
pub(super) fn shown(options: &ClientOptions, address: &ServerAddress) -> String {
    match address {
        ServerAddress::Tcp { host, .. } if !has_certain_port(options, host) => host.clone(),
        ServerAddress::Tcp { host, port } => with_port(host, port.unwrap_or(PORT)),
        other => other.to_string(),
    }
}

/// Whether [`target`] omits a port.
pub(super) fn hides_a_port(options: &ClientOptions) -> bool {
    options.hosts.iter().any(|address| match address {
        ServerAddress::Tcp { host, port } => port.is_some() && !has_certain_port(options, host),
        _ => false,
    })
}

fn check_scheme(acquire: &AcquireContext, url: &str) -> Result<(), Error> {
    let variable = variable(acquire);
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    let scheme = scheme.or_else(|| url.split_once(':').map(|(scheme, _)| scheme));
    match scheme {
        Some("mongodb" | "mongodb+srv") if hides_a_password(url) => Err(invalid(
            acquire,
            " (a special character in the password ends its host part too early)",
        )),
        Some("mongodb" | "mongodb+srv") if url.contains("://") => Ok(()),
        Some(other) if OTHERS.contains(&other) => Err(Error::new(
            ErrorKind::WrongScheme,
            format!(
                "{variable} starts with `{other}:`, but the handler's parameter is for MongoDB: change the parameter's type, or the URL to `mongodb://..`"
            ),
        )
        .at(Stage::Acquire)),
        // A password before a colon would end up here: do not repeat it.
        _ => Err(Error::new(
            ErrorKind::UnknownScheme,
            format!(
                "{variable} starts with no scheme that is known here: expected `mongodb://..` or `mongodb+srv://..` for MongoDB"
            ),
        )
        .at(Stage::Acquire)),
    }
}

/// Whether an `@` follows the part of the URL that can hold user and password: a `/`, `?` or `#` before it then belongs
/// to a password.
fn hides_a_password(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else {
        return false;
    };
    let end = rest.find(['/', '?', '#']);
    end.is_some_and(|end| {
        rest[end..]
            .split('?')
            .next()
            .is_some_and(|path| path.contains('@'))
    })
}

/// The error of a URL that the driver could not resolve or parse.
fn not_resolved(acquire: &AcquireContext, url: &str, error: &::mongodb::error::Error) -> Error {
    if let ::mongodb::error::ErrorKind::DnsResolve { .. } = &*error.kind {
        return Error::new(
            ErrorKind::ServerUnreachable,
            format!(
                "the name of the MongoDB cluster in {} cannot be looked up ({error_kind}): is it right, and is there a resolver here?",
                variable(acquire),
                error_kind = error.kind,
            ),
        )
        .at(Stage::Acquire);
    }
    match blame::wrong_part(url) {
        Some(reason) => wrong(acquire, &reason),
        None => unreadable(acquire, error),
    }
}

/// The error of a URL whose invalid part is known.
fn wrong(acquire: &AcquireContext, reason: &str) -> Error {
    Error::new(
        ErrorKind::InvalidUrl,
        format!("the URL in {} cannot be read: {reason}", variable(acquire)),
    )
    .at(Stage::Acquire)
}

/// The error of options that the driver rejects.
pub(super) fn not_taken(acquire: &AcquireContext, error: &::mongodb::error::Error) -> Error {
    match &*error.kind {
        // The message is about files, and names them.
        ::mongodb::error::ErrorKind::InvalidTlsConfig { message, .. } => wrong(
            acquire,
            &format!("`tlsCAFile` or `tlsCertificateKeyFile` cannot be used: {message}"),
        ),
        _ => unreadable(acquire, error),
    }
}

/// The error of a URL that the driver rejects for an unknown reason.
///
/// The driver's message is left out where it may quote the URL, and with it the password.
fn unreadable(acquire: &AcquireContext, error: &::mongodb::error::Error) -> Error {
    let reason = match &*error.kind {
        ::mongodb::error::ErrorKind::InvalidArgument { message, .. }
        | ::mongodb::error::ErrorKind::InvalidTlsConfig { message, .. }
            if SAFE.iter().any(|safe| message.contains(safe)) =>
        {
            format!(" ({message})")
        }
        _ => String::new(),
    };
    invalid(acquire, &reason)
}

/// Messages of the driver that quote nothing from the URL.
const SAFE: [&str; 12] = [
    "multiple seeds",
    // A port, a socket, or more than one host.
    "with 'mongodb+srv'",
    "with loadBalanced=true",
    "with directConnection=true",
    "empty authSource",
    "read preference",
    "can't be set if tls=false",
    "the hostname cannot be empty",
    "must be percent-encoded",
    "Unable to parse PEM-encoded",
    "cannot specify replicaSet with loadBalanced",
    "username and mechanism both not provided",
];

fn invalid(acquire: &AcquireContext, reason: &str) -> Error {
    Error::new(
        ErrorKind::InvalidUrl,
        format!(
            "the URL in {} cannot be read{reason}: expected something like `{EXAMPLE}`; percent-encode what is special in a password",
            variable(acquire)
        ),
    )
    .at(Stage::Acquire)
}

/// The error for a `&Database` from a URL without a database.
pub(super) fn no_database(acquire: &AcquireContext) -> Error {
    Error::new(
        ErrorKind::InvalidUrl,
        format!(
            "the URL in {} names no database, which a parameter `&mongodb::Database` needs: add it after the host, as in `{EXAMPLE}`, or take `&mongodb::Client`",
            variable(acquire)
        ),
    )
    .at(Stage::Acquire)
}

pub(super) fn variable(acquire: &AcquireContext) -> &'static str {
    acquire.settings().env.unwrap_or("the URL's variable")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn port_is_shown_where_it_cannot_be_a_password() {
        for (url, expected) in [
            ("mongodb://app:12345/shop", "app"),
            ("mongodb://app:12345", "app"),
            (
                "mongodb://a.internal:1,b.internal:2/",
                "a.internal, b.internal",
            ),
            ("mongodb://app:x@host:12345/shop", "host:12345"),
            ("mongodb://app@host/shop", "host:27017"),
            ("mongodb://localhost:12345/shop", "localhost:12345"),
            ("mongodb://10.0.0.1:12345/shop", "10.0.0.1:12345"),
            ("mongodb://[fd00::1]:12345/shop", "[fd00::1]:12345"),
            ("mongodb://[::1]/shop", "[::1]:27017"),
        ] {
            let options = ClientOptions::parse(url).await.expect(url);
            assert_eq!(target(&options), expected, "{url}");
        }
    }

    async fn tls(url: &str) -> Option<bool> {
        let mut options = ClientOptions::parse(url).await.expect("a URL");
        encrypt(&mut options);
        options.tls.map(|tls| matches!(tls, Tls::Enabled(_)))
    }

    #[tokio::test]
    async fn a_password_goes_to_another_machine_over_tls_unless_the_url_says_otherwise() {
        assert_eq!(tls("mongodb://app:x@db.internal/shop").await, Some(true));
        assert_eq!(
            tls("mongodb://app:x@127.0.0.1,10.0.0.1/shop").await,
            Some(true)
        );
        let plain = "mongodb://app:x@db.internal/shop?tls=false";
        assert_eq!(tls(plain).await, Some(false));
        for as_the_driver_has_it in [
            "mongodb://app:x@127.0.0.1,localhost/shop",
            "mongodb://db.internal/shop",
        ] {
            assert_eq!(tls(as_the_driver_has_it).await, None);
        }
    }

    #[tokio::test]
    async fn what_a_cluster_name_cannot_have_is_named() {
        use crate::config::{Config, Defaults, Settings};

        let settings = Settings::new(&Config::new(), &Defaults::KEPT);
        let acquire = AcquireContext::new("tests::options", settings, None);
        for (url, named) in [
            ("mongodb+srv://app:hunter2@a.b.c:27017/", "a port cannot be"),
            ("mongodb+srv://app:hunter2@a.b.c,d.e.f/", "exactly one host"),
        ] {
            let error = ClientOptions::parse(url).await.expect_err(url);
            let text = not_resolved(&acquire, url, &error).to_string();
            assert!(text.contains(named), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
