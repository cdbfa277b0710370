//! What the driver's errors mean.

use super::options;
use crate::{
    error::{Error, ErrorKind, Stage},
    lifecycle,
    resource::{Acquire, Symptom},
};
use ::mongodb::{
    error::{Error as DriverError, ErrorKind as Cause},
    options::{ClientOptions, ServerAddress, Tls},
};
use std::io;

/// The symptom in `error`, if it is one whose cause the driver hides in a long text.
pub(crate) fn symptom(error: &DriverError) -> Option<Symptom> {
    match &*error.kind {
        Cause::ServerSelection { .. } => Some(Symptom::TimedOut),
        _ => None,
    }
}

/// An error of an operation in a handler.
impl From<DriverError> for Error {
    fn from(error: DriverError) -> Self {
        if let Some(cause) = symptom(&error).and_then(lifecycle::explain) {
            return cause.caused_by(error);
        }
        let kind = kind(&error);
        let (stage, advice) = match kind {
            ErrorKind::Authentication => (
                Stage::Acquire,
                "; check user, password and `authSource` in the URL, and what the user may do",
            ),
            ErrorKind::Tls => (
                Stage::Acquire,
                "; check `tls` and `tlsCAFile` in the URL, and the server's certificate",
            ),
            ErrorKind::Refused
            | ErrorKind::Unreachable
            | ErrorKind::ConnectTimeout
            | ErrorKind::Unavailable => (Stage::Acquire, ""),
            _ => (Stage::Handler, ""),
        };
        Self::new(kind, format!("{}{advice}", error.kind))
            .at(stage)
            .caused_by(error)
    }
}

/// What kind of failure `error` is, when it comes up in a handler.
pub(crate) fn kind(error: &DriverError) -> ErrorKind {
    match &*error.kind {
        Cause::Authentication { .. } => ErrorKind::Authentication,
        Cause::Io(error) => io_kind(error),
        Cause::DnsResolve { .. } | Cause::ServerSelection { .. } => ErrorKind::Unreachable,
        Cause::InvalidTlsConfig { .. } => ErrorKind::Tls,
        Cause::ConnectionPoolCleared { .. } | Cause::Shutdown => ErrorKind::ConnectionLost,
        Cause::Command(command) => code_kind(command.code),
        Cause::Custom(_) => ErrorKind::Handler,
        _ => ErrorKind::Query,
    }
}

/// The codes are those of `src/mongo/base/error_codes.yml` in MongoDB's repository.
fn code_kind(code: i32) -> ErrorKind {
    match code {
        // Unauthorized, AuthenticationFailed
        13 | 18 => ErrorKind::Authentication,
        // ShutdownInProgress, PrimarySteppedDown, NotWritablePrimary, InterruptedAtShutdown,
        // InterruptedDueToReplStateChange, NotPrimaryNoSecondaryOk, NotPrimaryOrSecondary
        91 | 189 | 10_107 | 11_600 | 11_602 | 13_435 | 13_436 => ErrorKind::Unavailable,
        _ => ErrorKind::Query,
    }
}

fn io_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => ErrorKind::Refused,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => ErrorKind::ConnectionLost,
        io::ErrorKind::TimedOut => ErrorKind::ConnectTimeout,
        // What rustls reports of a handshake.
        io::ErrorKind::InvalidData => ErrorKind::Tls,
        _ => ErrorKind::Unreachable,
    }
}

/// The error of a client that could not connect ahead.
pub(super) fn connecting(acquire: &Acquire, options: &ClientOptions, error: DriverError) -> Error {
    connection(acquire, options, &options::target(options), error)
}

/// The error of a server that the driver could not get hold of.
pub(super) fn unreachable(
    acquire: &Acquire,
    options: &ClientOptions,
    address: &ServerAddress,
    error: DriverError,
) -> Error {
    connection(acquire, options, &address.to_string(), error)
}

fn connection(
    acquire: &Acquire,
    options: &ClientOptions,
    target: &str,
    error: DriverError,
) -> Error {
    let kind = match kind(&error) {
        // A handshake that fails is no statement of the handler's.
        ErrorKind::Query => ErrorKind::Unavailable,
        kind => kind,
    };
    if kind == ErrorKind::ConnectTimeout {
        return silent(acquire, options, target).caused_by(error);
    }
    let variable = options::variable(acquire);
    let (what, advice) = match kind {
        ErrorKind::Refused => (
            "refused the connection",
            "is the server running and listening there?".to_owned(),
        ),
        ErrorKind::Unreachable => (
            "cannot be reached",
            format!("is the host in {variable} right, and reachable from here?"),
        ),
        ErrorKind::Authentication => (
            "did not let us in",
            format!("check user, password and `authSource` in {variable}"),
        ),
        ErrorKind::Tls => (
            "offered no encrypted session that holds",
            format!(
                "check `tlsCAFile` in {variable}, and the server's certificate, or add `tls=false` if this network is trusted"
            ),
        ),
        ErrorKind::ConnectionLost => (
            "ended the connection",
            format!(
                "has it room for another one, and does it want TLS (`tls=true` in {variable}, and the default with a password and to another machine), or none (`tls=false`)?"
            ),
        ),
        _ => (
            "did not open a connection",
            "the server is not ready to serve".to_owned(),
        ),
    };
    let message = format!("MongoDB at {target} {what}: {}; {advice}", error.kind);
    acquire.failed(kind, message).caused_by(error)
}

/// The error of servers that answer, but none of which is what the driver looks for. `set` is the replica set of the
/// one that answered last.
pub(super) fn unsuitable(acquire: &Acquire, options: &ClientOptions, set: Option<&str>) -> Error {
    let target = options::target(options);
    let variable = options::variable(acquire);
    let wanted = options.repl_set_name.as_deref();
    let message = match (wanted, set) {
        (Some(wanted), None) => format!(
            "MongoDB at {target} is in no replica set, but {variable} asks for `{wanted}`: remove `replicaSet` from it"
        ),
        (Some(wanted), Some(set)) if wanted != set => format!(
            "MongoDB at {target} is in the replica set `{set}`, but {variable} asks for `{wanted}`: correct `replicaSet` in it"
        ),
        _ => format!(
            "no server of MongoDB at {target} could be selected within {} ms, although at least one answers: is there a primary, and does one have what the read preference asks for?",
            acquire.within().as_millis()
        ),
    };
    acquire.failed(ErrorKind::Unreachable, message)
}

/// The error of servers that took the connection and have not said a word.
pub(super) fn unanswered(acquire: &Acquire, options: &ClientOptions) -> Error {
    silent(acquire, options, &options::target(options))
}

fn silent(acquire: &Acquire, options: &ClientOptions, target: &str) -> Error {
    let error = acquire.timed_out(&format!("connecting to MongoDB at {target}"));
    // A server that speaks no TLS may wait for more instead of declining it.
    let error = match options.tls {
        Some(Tls::Enabled(_)) => error.adding(
            " Does it speak TLS (if not, and if this network is trusted, add `tls=false` to the URL)?",
        ),
        _ => error,
    };
    error.at(Stage::Acquire).in_handler(acquire.handler())
}

/// The error of an operation that finds every connection in use.
pub(super) fn all_in_use(acquire: &Acquire) -> Error {
    let max = acquire.settings().max;
    acquire.failed(
        ErrorKind::AllInUse,
        format!(
            "no free connection to MongoDB: {max} of {max} in use; raise `max`, or shorten what holds them"
        ),
    )
}
