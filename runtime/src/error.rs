//! The error type of this crate: which stage failed, why, and what to do about it.

use std::{error::Error as StdError, fmt, sync::Arc};

type BoxError = Box<dyn StdError + Send + Sync>;

/// The stage of an invocation in which an error occurred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Before the first event: settings and eager connections.
    Init,
    /// Acquiring the handler's resources: opening, checking, waiting for a free connection.
    Acquire,
    /// The handler itself.
    Handler,
    /// Between the handler's `Ok` and its response: committing its work.
    Commit,
    /// After the handler: draining, reusing or closing.
    Cleanup,
    /// The platform's interface: fetching events, posting responses.
    Platform,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Init => "init",
            Self::Acquire => "acquire",
            Self::Handler => "handler",
            Self::Commit => "commit",
            Self::Cleanup => "cleanup",
            Self::Platform => "platform",
        })
    }
}

macro_rules! kinds {
    ($($(#[$docs:meta])* $name:ident,)*) => {
        /// The cause of an [`Error`]. A pool alone reports most connection failures as the same timeout; here each
        /// cause has its own variant.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorKind {
            $($(#[$docs])* $name,)*
        }

        impl ErrorKind {
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$name,)*];

            /// The error type that is reported to the platform: the variant's name.
            #[must_use]
            pub const fn error_type(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

kinds! {
    /// The environment variable that holds the URL is missing or empty.
    MissingUrl,
    /// The credentials provider failed.
    Credentials,
    /// The URL is invalid.
    InvalidUrl,
    /// The URL's scheme is not supported.
    UnknownScheme,
    /// The URL's scheme is that of another database than the parameter's type.
    WrongScheme,
    /// The URL's scheme is that of a database whose feature is disabled.
    FeatureDisabled,
    /// All connections of the pool are in use.
    PoolExhausted,
    /// Connecting timed out.
    ConnectTimeout,
    /// The server's port is closed.
    ConnectionRefused,
    /// The server's name or network cannot be reached.
    ServerUnreachable,
    /// The server is starting up or shutting down.
    ServerUnavailable,
    /// The server is at its connection limit.
    TooManyConnections,
    /// The server rejected the password or the user.
    Authentication,
    /// The database does not exist, or SQLite cannot open the file.
    NoSuchDatabase,
    /// The TLS handshake failed.
    Tls,
    /// A connection was lost while it was in use.
    ConnectionLost,
    /// The server is read-only, for example a former writer after a failover. Its connections are replaced
    /// before the next invocation.
    ReadOnly,
    /// A resource was used after its invocation ended.
    UsedAfterInvocation,
    /// The handler was cancelled shortly before the platform's deadline.
    DeadlineExceeded,
    /// The database rejected a statement, or its result could not be read.
    Query,
    /// The handler returned `Ok`, but the database did not commit its transaction. The transaction was rolled
    /// back.
    CommitFailed,
    /// The handler returned `Ok`, and the connection was lost during the commit. The transaction may or may not
    /// have been committed.
    CommitUnknown,
    /// A method of a resource panicked.
    Panicked,
    /// A background task panicked, was cancelled, or was spawned after its invocation ended.
    Background,
    /// The event does not have the form that the handler expects.
    Event,
    /// Any other error of a handler.
    Handler,
    /// The platform's interface did not behave as documented.
    Platform,
}

/// The error of an annotated handler: the cause and the stage.
///
/// A handler can return this type (`sqlx::Error` and the other drivers' errors convert through `?`) or any
/// other error type that implements `From<db_handler::Error>`: `lambda_runtime::Error`, `anyhow::Error`, an
/// enum.
///
/// It contains no password: of a URL it shows host, port and database name only.
///
/// ```
/// use db_handler::{Error, ErrorKind};
///
/// fn parse(quantity: &str) -> Result<u32, Error> {
///     quantity.parse().map_err(Error::other)
/// }
///
/// let error = parse("many").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Handler);
/// assert_eq!(error.to_string(), "handler: invalid digit found in string");
/// ```
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    stage: Stage,
    handler: Option<String>,
    message: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Creates an error of the given kind, for custom resources. The lifecycle fills in the stage.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            stage: Stage::Handler,
            handler: None,
            message: message.into(),
            source: None,
        }))
    }

    /// Wraps any other error of a handler, for `map_err(Error::other)?`.
    #[must_use]
    pub fn other(error: impl Into<BoxError>) -> Self {
        let error: BoxError = error.into();
        // An [`Error`] that was boxed keeps its kind and stage.
        match error.downcast::<Self>() {
            Ok(ours) => *ours,
            Err(error) => Self::new(ErrorKind::Handler, error.to_string()).caused_by(error),
        }
    }

    /// Sets the cause, as `std::error::Error::source` reports it.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// Returns the cause.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the stage that failed.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.0.stage
    }

    /// Returns the handler that failed, as `module::function`, if it is known.
    #[must_use]
    pub fn handler(&self) -> Option<&str> {
        self.0.handler.as_deref()
    }

    /// Returns the error type that is reported to the platform: see [`ErrorKind::error_type`].
    #[must_use]
    pub fn error_type(&self) -> &'static str {
        self.0.kind.error_type()
    }

    /// The text that `Display` writes after handler and stage.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// Appends `more` to the message.
    pub(crate) fn adding(mut self, more: &str) -> Self {
        self.0.message.push_str(more);
        self
    }

    pub(crate) fn at(mut self, stage: Stage) -> Self {
        self.0.stage = stage;
        self
    }

    pub(crate) fn in_handler(mut self, handler: &str) -> Self {
        self.0.handler.get_or_insert_with(|| handler.to_owned());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            stage,
            handler,
            message,
            ..
        } = &*self.0;
        if let Some(handler) = handler {
            write!(f, "{handler}: ")?;
        }
        write!(f, "{stage}: {message}")
    }
}

/// Writes the text of `Display` and the chain of causes. `fn main() -> Result<(), Error>` prints this.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} [{}]", self.error_type())?;
        let mut said = self.to_string();
        let mut source = self.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Many errors repeat the text of their cause.
            if !said.contains(&text) {
                write!(f, "\n  caused by: {text}")?;
            }
            said = text;
            source = cause.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<BoxError> for Error {
    fn from(error: BoxError) -> Self {
        Self::other(error)
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::other(error)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::other(error)
    }
}

#[cfg(feature = "anyhow")]
impl From<anyhow::Error> for Error {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(ours) => ours,
            Err(error) => Self::other(BoxError::from(error)),
        }
    }
}

impl From<Error> for lambda_runtime::Diagnostic {
    fn from(error: Error) -> Self {
        Self {
            error_type: error.error_type().to_owned(),
            error_message: error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_handler_and_stage() {
        let error = Error::new(
            ErrorKind::PoolExhausted,
            "no free connection within 3000 ms",
        )
        .at(Stage::Acquire)
        .in_handler("orders::create_order");
        assert_eq!(
            error.to_string(),
            "orders::create_order: acquire: no free connection within 3000 ms"
        );
        assert_eq!(error.error_type(), "PoolExhausted");
    }

    /// Alarms and retry rules compare these names.
    #[test]
    fn error_types_do_not_change() {
        let all: Vec<&str> = ErrorKind::ALL
            .iter()
            .map(|kind| kind.error_type())
            .collect();
        assert_eq!(
            all,
            [
                "MissingUrl",
                "Credentials",
                "InvalidUrl",
                "UnknownScheme",
                "WrongScheme",
                "FeatureDisabled",
                "PoolExhausted",
                "ConnectTimeout",
                "ConnectionRefused",
                "ServerUnreachable",
                "ServerUnavailable",
                "TooManyConnections",
                "Authentication",
                "NoSuchDatabase",
                "Tls",
                "ConnectionLost",
                "ReadOnly",
                "UsedAfterInvocation",
                "DeadlineExceeded",
                "Query",
                "CommitFailed",
                "CommitUnknown",
                "Panicked",
                "Background",
                "Event",
                "Handler",
                "Platform",
            ]
        );
    }

    #[test]
    fn the_first_handler_named_stays() {
        let error = Error::new(ErrorKind::Query, "no such table")
            .in_handler("inner")
            .in_handler("outer");
        assert_eq!(error.handler(), Some("inner"));
    }

    #[test]
    fn boxing_does_not_lose_the_kind() {
        let boxed: BoxError = Error::new(ErrorKind::ConnectionRefused, "refused").into();
        assert_eq!(Error::from(boxed).kind(), ErrorKind::ConnectionRefused);
    }

    #[test]
    fn debug_names_causes_once() {
        let cause = std::io::Error::other("disk full");
        let error = Error::new(ErrorKind::Handler, "cannot save").caused_by(cause);
        assert_eq!(
            format!("{error:?}"),
            "handler: cannot save [Handler]\n  caused by: disk full"
        );
        let repeated = Error::other(std::io::Error::other("disk full"));
        assert_eq!(format!("{repeated:?}"), "handler: disk full [Handler]");
    }

    #[test]
    fn the_platform_is_told_a_readable_type() {
        let diagnostic =
            lambda_runtime::Diagnostic::from(Error::new(ErrorKind::TooManyConnections, "no room"));
        assert_eq!(diagnostic.error_type, "TooManyConnections");
        assert_eq!(diagnostic.error_message, "handler: no room");
    }
}
