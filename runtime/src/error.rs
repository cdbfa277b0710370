//! One error type that says which stage failed, why, and what to do about it.

use std::{error::Error as StdError, fmt, sync::Arc};

type BoxError = Box<dyn StdError + Send + Sync>;

/// The part of an invocation's life in which an error came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Before the first event: settings and eager connections.
    Init,
    /// Getting what the handler asked for: opening, checking, waiting for a free connection.
    Acquire,
    /// The handler itself.
    Handler,
    /// Between the handler's `Ok` and its answer: making its work last.
    Commit,
    /// After the handler: settling, keeping or closing.
    Finally,
    /// The platform's side: fetching events, posting answers.
    Platform,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Init => "init",
            Self::Acquire => "acquire",
            Self::Handler => "handler",
            Self::Commit => "commit",
            Self::Finally => "finally",
            Self::Platform => "platform",
        })
    }
}

/// Why it failed. The variants that concern a connection are told apart at once, where a pool alone
/// would report all of them as one timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The environment variable that holds the URL is missing or empty.
    MissingUrl,
    /// User and password could not be had from where `credentials` says.
    Credentials,
    /// The URL cannot be read.
    InvalidUrl,
    /// The URL's scheme belongs to no database that is known here.
    UnknownScheme,
    /// The URL's scheme belongs to another database than the parameter's type.
    WrongScheme,
    /// The URL's scheme belongs to a database whose feature is switched off.
    FeatureOff,
    /// Every connection that the handler may have is in use.
    AllInUse,
    /// The server took too long to let us in.
    ConnectTimeout,
    /// The server's port is closed.
    Refused,
    /// The server's name or network cannot be reached.
    Unreachable,
    /// The server is starting up or shutting down.
    Unavailable,
    /// The server has no connection to spare.
    TooManyConnections,
    /// Wrong password, unknown user, or a user who is not let in.
    Authentication,
    /// The server knows no database (or, for SQLite, cannot open a file) of that name.
    NoSuchDatabase,
    /// The encrypted session could not be set up.
    Tls,
    /// A connection broke while it was in use.
    ConnectionLost,
    /// The server takes no writes: after a failover it may have become a reader. Its connections are
    /// replaced before the next invocation.
    ReadOnly,
    /// A clone of a resource was used when the invocation that it was lent to was over.
    Escaped,
    /// The handler was stopped shortly before the platform's deadline.
    DeadlineExceeded,
    /// The database rejected a statement, or its result could not be read.
    Query,
    /// The handler returned `Ok`, but the database did not commit its transaction: nothing of it has
    /// happened.
    CommitFailed,
    /// The handler returned `Ok`, and the connection was lost while its transaction was being committed: it
    /// may have happened or not.
    CommitUnknown,
    /// A resource's own code panicked.
    Panicked,
    /// A background task panicked, was stopped, or came too late.
    Background,
    /// The event is not what the handler expects.
    Event,
    /// Everything else that a handler may report.
    Handler,
    /// The platform's interface did not behave as documented.
    Platform,
}

impl ErrorKind {
    /// The name that the platform is told as the error's type.
    #[must_use]
    pub const fn error_type(self) -> &'static str {
        match self {
            Self::MissingUrl => "MissingDatabaseUrl",
            Self::Credentials => "CredentialsUnavailable",
            Self::InvalidUrl => "InvalidDatabaseUrl",
            Self::UnknownScheme => "UnknownDatabaseScheme",
            Self::WrongScheme => "WrongDatabaseScheme",
            Self::FeatureOff => "DatabaseFeatureOff",
            Self::AllInUse => "AllConnectionsInUse",
            Self::ConnectTimeout => "ConnectTimeout",
            Self::Refused => "ConnectionRefused",
            Self::Unreachable => "DatabaseUnreachable",
            Self::Unavailable => "DatabaseUnavailable",
            Self::TooManyConnections => "TooManyConnections",
            Self::Authentication => "AuthenticationFailed",
            Self::NoSuchDatabase => "NoSuchDatabase",
            Self::Tls => "TlsFailed",
            Self::ConnectionLost => "ConnectionLost",
            Self::ReadOnly => "ReadOnly",
            Self::Escaped => "EscapedFromInvocation",
            Self::DeadlineExceeded => "DeadlineExceeded",
            Self::Query => "QueryFailed",
            Self::CommitFailed => "CommitFailed",
            Self::CommitUnknown => "CommitUnknown",
            Self::Panicked => "ResourcePanicked",
            Self::Background => "BackgroundTaskFailed",
            Self::Event => "InvalidEvent",
            Self::Handler => "HandlerFailed",
            Self::Platform => "PlatformFailed",
        }
    }
}

/// What went wrong in an annotated handler, and in which stage.
///
/// A handler may return it (`sqlx::Error` and its like turn into it through `?`), or any error type
/// of its own that implements `From<db_handler::Error>`: `lambda_runtime::Error`, `anyhow::Error`,
/// an enum.
///
/// It carries no password: URLs appear as host, port and database name only.
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
    /// An error of the given kind in a resource of one's own; the stage is filled in by the lifecycle.
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

    /// Any other failure of a handler, for `map_err(Error::other)?`.
    #[must_use]
    pub fn other(error: impl Into<BoxError>) -> Self {
        let error: BoxError = error.into();
        // What was ours before it was boxed keeps its kind and stage.
        match error.downcast::<Self>() {
            Ok(ours) => *ours,
            Err(error) => Self::new(ErrorKind::Handler, error.to_string()).caused_by(error),
        }
    }

    /// Adds the cause, as `std::error::Error::source` reports it.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// Why it failed.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The stage that failed.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.0.stage
    }

    /// The handler in which it failed, as `module::function`, if it is known.
    #[must_use]
    pub fn handler(&self) -> Option<&str> {
        self.0.handler.as_deref()
    }

    /// The name that the platform is told as the error's type: see [`ErrorKind::error_type`].
    #[must_use]
    pub fn error_type(&self) -> &'static str {
        self.0.kind.error_type()
    }

    /// What `Display` says after handler and stage.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// With more at the end of the message.
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

/// The same as `Display`, with the chain of causes: this is what `fn main() -> Result<(), Error>`
/// prints.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} [{}]", self.error_type())?;
        let mut said = self.to_string();
        let mut source = self.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Many errors repeat their cause in their own text.
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
        let error = Error::new(ErrorKind::AllInUse, "no free connection within 3000 ms")
            .at(Stage::Acquire)
            .in_handler("orders::create_order");
        assert_eq!(
            error.to_string(),
            "orders::create_order: acquire: no free connection within 3000 ms"
        );
        assert_eq!(error.error_type(), "AllConnectionsInUse");
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
        let boxed: BoxError = Error::new(ErrorKind::Refused, "refused").into();
        assert_eq!(Error::from(boxed).kind(), ErrorKind::Refused);
    }

    #[test]
    fn debug_names_causes_once() {
        let cause = std::io::Error::other("disk full");
        let error = Error::new(ErrorKind::Handler, "cannot save").caused_by(cause);
        assert_eq!(
            format!("{error:?}"),
            "handler: cannot save [HandlerFailed]\n  caused by: disk full"
        );
        let repeated = Error::other(std::io::Error::other("disk full"));
        assert_eq!(
            format!("{repeated:?}"),
            "handler: disk full [HandlerFailed]"
        );
    }

    #[test]
    fn the_platform_is_told_a_readable_type() {
        let diagnostic =
            lambda_runtime::Diagnostic::from(Error::new(ErrorKind::TooManyConnections, "no room"));
        assert_eq!(diagnostic.error_type, "TooManyConnections");
        assert_eq!(diagnostic.error_message, "handler: no room");
    }
}
