//! Maps the driver's errors to [`Error`].

use super::options;
use crate::{
    error::{Error, ErrorKind, Stage},
    resource::running,
    resource::{AcquireContext, Symptom},
};
use ::mongodb::{
    error::{Error as DriverError, ErrorKind as Cause},
    options::{ClientOptions, ServerAddress, Tls},
};
use std::io;

/// The symptom in `error`, if the driver hides its cause in a long text or does not say where it occurred.
pub(crate) fn symptom(error: &DriverError) -> Option<Symptom> {
    match &*error.kind {
        Cause::ServerSelection { .. } => Some(Symptom::TimedOut),
        Cause::ConnectionPoolCleared { .. } => Some(Symptom::Disconnected),
        Cause::Authentication { .. } if says_nothing_more(error) => Some(Symptom::Denied),
        _ => None,
    }
}

/// Whether `error` says only that authentication failed.
fn says_nothing_more(error: &DriverError) -> bool {
    match &*error.kind {
        Cause::Authentication { message, .. } => {
            let message = message.trim_end_matches('.').to_ascii_lowercase();
            message.ends_with("failure: authentication failed")
        }
        _ => false,
    }
}

/// Converts an error of an operation in a handler.
impl From<DriverError> for Error {
    fn from(error: DriverError) -> Self {
        if let Some(cause) = symptom(&error).and_then(running::explain) {
            return cause.caused_by(error);
        }
        let kind = kind(&error);
        if let Cause::Authentication { .. } = &*error.kind
            && let Some(denied) = running::explain(Symptom::Denied)
        {
            return denied.adding(&reason(&error)).caused_by(error);
        }
        if is_forbidden(&error) {
            // The server's message repeats the command with all its values.
            return Self::new(kind, FORBIDDEN)
                .at(Stage::Handler)
                .caused_by(error);
        }
        let (stage, advice) = match kind {
            ErrorKind::Authentication => (
                Stage::Acquire,
                "; check user, password and `authSource` in the URL",
            ),
            ErrorKind::Tls => (
                Stage::Acquire,
                "; check `tls` and `tlsCAFile` in the URL, and the server's certificate",
            ),
            ErrorKind::ConnectionRefused
            | ErrorKind::ServerUnreachable
            | ErrorKind::ConnectTimeout
            | ErrorKind::ServerUnavailable => (Stage::Acquire, ""),
            _ => (Stage::Handler, ""),
        };
        Self::new(kind, format!("{}{advice}", error.kind))
            .at(stage)
            .caused_by(error)
    }
}

/// The message for [`is_forbidden`].
const FORBIDDEN: &str = "MongoDB does not allow the user of the URL to do this (code 13, Unauthorized): grant the user a role that may on this \
     database, or check user and `authSource` in the URL: without a user nobody is logged in";

/// Whether the user, or a client without a user, lacks the privilege for the command.
fn is_forbidden(error: &DriverError) -> bool {
    matches!(&*error.kind, Cause::Command(command) if command.code == UNAUTHORIZED)
}

/// The code of a missing privilege.
const UNAUTHORIZED: i32 = 13;

/// The kind of `error` in a handler.
pub(crate) fn kind(error: &DriverError) -> ErrorKind {
    match &*error.kind {
        Cause::Authentication { .. } => ErrorKind::Authentication,
        Cause::Io(error) => io_kind(error),
        Cause::DnsResolve { .. } | Cause::ServerSelection { .. } => ErrorKind::ServerUnreachable,
        Cause::InvalidTlsConfig { .. } => ErrorKind::Tls,
        Cause::ConnectionPoolCleared { .. } | Cause::Shutdown => ErrorKind::ConnectionLost,
        Cause::Command(command) => code_kind(command.code),
        Cause::Custom(_) => ErrorKind::Handler,
        _ => ErrorKind::Query,
    }
}

/// The codes are those in `src/mongo/base/error_codes.yml` of MongoDB's repository.
fn code_kind(code: i32) -> ErrorKind {
    match code {
        // AuthenticationFailed
        UNAUTHORIZED | 18 => ErrorKind::Authentication,
        // ShutdownInProgress, PrimarySteppedDown, NotWritablePrimary, InterruptedAtShutdown,
        // InterruptedDueToReplStateChange, NotPrimaryNoSecondaryOk, NotPrimaryOrSecondary
        91 | 189 | 10_107 | 11_600 | 11_602 | 13_435 | 13_436 => ErrorKind::ServerUnavailable,
        _ => ErrorKind::Query,
    }
}

fn io_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => ErrorKind::ConnectionRefused,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => ErrorKind::ConnectionLost,
        io::ErrorKind::TimedOut => ErrorKind::ConnectTimeout,
        // rustls reports failed handshakes with this kind.
        io::ErrorKind::InvalidData => ErrorKind::Tls,
        _ => ErrorKind::ServerUnreachable,
    }
}

/// The error of a client that could not connect ahead.
pub(super) fn connecting(
    acquire: &AcquireContext,
    options: &ClientOptions,
    error: DriverError,
) -> Error {
    connection(acquire, options, &options::target(options), error)
}

/// The error for a server that the driver could not reach.
pub(super) fn unreachable(
    acquire: &AcquireContext,
    options: &ClientOptions,
    address: &ServerAddress,
    error: DriverError,
) -> Error {
    connection(acquire, options, &options::shown(options, address), error)
}

/// The error for hosts of which none resolves, and each of which may be a user name.
pub(super) fn no_such_host(acquire: &AcquireContext, options: &ClientOptions) -> Error {
    let target = options::target(options);
    let variable = options::variable(acquire);
    let advice = unknown_host(options, variable);
    acquire.failed(
        ErrorKind::ServerUnreachable,
        format!("MongoDB at {target} cannot be reached: its name cannot be looked up; {advice}"),
    )
}

fn unknown_host(options: &ClientOptions, variable: &str) -> String {
    let mut advice = format!("is the host in {variable} right, and reachable from here?");
    if options::hides_a_port(options) {
        advice.push_str(
            " What follows its colon is not shown: without an `@` it may be a password (`mongodb://user:password@host`).",
        );
    }
    advice
}

/// The error for a server that refused the login.
pub(super) fn denied(acquire: &AcquireContext, options: &ClientOptions) -> Error {
    acquire.failed(ErrorKind::Authentication, denial(acquire, options))
}

/// The driver's message, if it says more than that authentication failed.
fn reason(error: &DriverError) -> String {
    if says_nothing_more(error) {
        String::new()
    } else {
        format!(" ({})", error.kind)
    }
}

fn denial(acquire: &AcquireContext, options: &ClientOptions) -> String {
    let target = options::target(options);
    let variable = options::variable(acquire);
    let credential = options.credential.as_ref();
    let user = credential.and_then(|credential| credential.username.as_deref());
    let who = user.map_or_else(
        || "this client".to_owned(),
        |user| format!("the user `{user}`"),
    );
    let source = credential.and_then(|credential| credential.source.as_deref());
    let source = source.map_or_else(String::new, |source| format!(" (now `{source}`)"));
    format!(
        "MongoDB at {target} rejected the credentials of {who}; check user, password and `authSource`{source}, the database that the user is defined in, in {variable}"
    )
}

fn connection(
    acquire: &AcquireContext,
    options: &ClientOptions,
    target: &str,
    error: DriverError,
) -> Error {
    let kind = match kind(&error) {
        // A failed handshake is not a failed query of the handler.
        ErrorKind::Query => ErrorKind::ServerUnavailable,
        kind => kind,
    };
    if kind == ErrorKind::ConnectTimeout {
        return silent(acquire, options, target).caused_by(error);
    }
    if kind == ErrorKind::Authentication {
        return denied(acquire, options)
            .adding(&reason(&error))
            .caused_by(error);
    }
    let variable = options::variable(acquire);
    let (what, advice) = match kind {
        ErrorKind::ConnectionRefused => (
            "refused the connection",
            "is the server running and listening there?".to_owned(),
        ),
        ErrorKind::ServerUnreachable => ("cannot be reached", unknown_host(options, variable)),
        ErrorKind::Tls => (
            "failed the TLS handshake",
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
        // An unknown cause has no advice.
        _ => ("did not open a connection", String::new()),
    };
    let advice = match advice.as_str() {
        "" => advice,
        _ => format!("; {advice}"),
    };
    let message = format!("MongoDB at {target} {what}: {}{advice}", error.kind);
    acquire.failed(kind, message).caused_by(error)
}

/// The error for servers that reply, but none of which matches the driver's selection. `set` is the replica set of the
/// one that replied last.
pub(super) fn unsuitable(
    acquire: &AcquireContext,
    options: &ClientOptions,
    set: Option<&str>,
) -> Error {
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
            acquire.timeout().as_millis()
        ),
    };
    acquire.failed(ErrorKind::ServerUnreachable, message)
}

/// The error for servers that accepted the connection and have sent nothing.
pub(super) fn unanswered(acquire: &AcquireContext, options: &ClientOptions) -> Error {
    silent(acquire, options, &options::target(options))
}

fn silent(acquire: &AcquireContext, options: &ClientOptions, target: &str) -> Error {
    let error = acquire.timeout_error(&format!("connecting to MongoDB at {target}"));
    // A server without TLS may wait for more input instead of refusing the handshake.
    let error = match options.tls {
        Some(Tls::Enabled(_)) => error.adding(
            " Does it speak TLS (if not, and if this network is trusted, add `tls=false` to the URL)?",
        ),
        _ => error,
    };
    error.at(Stage::Acquire).in_handler(acquire.handler())
}

/// The error of an operation that found every connection in use.
pub(super) fn all_in_use(acquire: &AcquireContext) -> Error {
    let max = acquire.settings().max;
    acquire.failed(
        ErrorKind::PoolExhausted,
        format!(
            "no free connection to MongoDB: {max} of {max} in use; raise `max`, or shorten what holds them"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Defaults, Settings};
    use ::mongodb::error::CommandError;
    use serde_json::json;

    fn command_error(code: i32, name: &str) -> DriverError {
        let reply =
            json!({ "code": code, "codeName": name, "errmsg": "command { filter: 'hunter2' }" });
        let command: CommandError = serde_json::from_value(reply).expect("an error of a command");
        DriverError::from(Cause::Command(command))
    }

    #[test]
    fn what_a_user_may_not_do_is_said_without_the_command() {
        let error = Error::from(command_error(13, "Unauthorized"));
        assert_eq!(error.kind(), ErrorKind::Authentication);
        let text = error.to_string();
        assert!(
            text.contains("role") && text.contains("`authSource`"),
            "{text}"
        );
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[tokio::test]
    async fn refused_user_is_named_and_never_the_password() {
        let settings = Settings::new(&Config::new(), &Defaults::KEPT);
        let acquire = AcquireContext::new("tests::fault", settings, None);
        let options = ClientOptions::parse("mongodb://app:hunter2@host/shop");
        let options = options.await.expect("a URL");
        let error = connecting(
            &acquire,
            &options,
            command_error(18, "AuthenticationFailed"),
        );
        assert_eq!(error.kind(), ErrorKind::Authentication);
        let text = error.to_string();
        for word in ["MongoDB at host:27017 ", "the user `app`", "(now `shop`)"] {
            assert!(text.contains(word), "no {word:?} in {text}");
        }
    }
}
