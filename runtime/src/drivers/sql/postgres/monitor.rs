//! Makes the server notice that the process behind a session is gone: a killed process cancels nothing, and a virtual
//! machine that vanishes does not even close its sockets.

use crate::config::{CLIENT_CHECK, KEEPALIVE_COUNT, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL};
use sqlx::{error::DatabaseError, postgres::PgConnectOptions};
use std::time::Duration;

/// The first version that checks the client's socket while a query runs.
const FIRST_VERSION: u32 = 140_000;

const CHECK: &str = "client_connection_check_interval";

/// The settings of a session, in the units of PostgreSQL's documentation: milliseconds for the first one, seconds for
/// those of TCP. Only numbers.
///
/// `tcp_user_timeout` is not one of them: it would also end a session whose client only reads its rows slowly.
fn settings(silence: Duration) -> [(&'static str, u128); 4] {
    let idle = KEEPALIVE_IDLE + silence;
    [
        (CHECK, CLIENT_CHECK.as_millis()),
        ("tcp_keepalives_idle", idle.as_secs().into()),
        (
            "tcp_keepalives_interval",
            KEEPALIVE_INTERVAL.as_secs().into(),
        ),
        ("tcp_keepalives_count", KEEPALIVE_COUNT.into()),
    ]
}

/// The settings that neither the URL nor `PGOPTIONS` contains.
fn missing(options: &PgConnectOptions, silence: Duration) -> Vec<(&'static str, u128)> {
    let written = options.get_options().unwrap_or_default();
    // PostgreSQL accepts both characters, and any case.
    let written = written.replace('-', "_").to_ascii_lowercase();
    settings(silence)
        .into_iter()
        .filter(|(name, _)| !written.contains(name))
        .collect()
}

/// See [`Driver::monitored`](crate::drivers::sql::Driver::monitored).
pub(super) fn in_options(
    options: &PgConnectOptions,
    silence: Duration,
) -> Option<PgConnectOptions> {
    let missing = missing(options, silence);
    if missing.is_empty() {
        return None;
    }
    Some(options.clone().options(missing))
}

/// The settings as SQL, for a server of this `version`; `None` if there is nothing to set.
pub(super) fn in_sql(
    options: &PgConnectOptions,
    silence: Duration,
    version: Option<u32>,
) -> Option<String> {
    if version.is_none_or(|version| version < FIRST_VERSION) {
        return None;
    }
    let settings: Vec<String> = missing(options, silence)
        .into_iter()
        .map(|(name, value)| format!("SET {name} = {value}"))
        .collect();
    (!settings.is_empty()).then(|| settings.join("; "))
}

/// Whether `error` is about the settings that [`in_options`] adds. Servers name the setting in every language, poolers
/// the setting or the startup parameter.
pub(super) fn is_refused(error: &dyn DatabaseError) -> bool {
    let names = settings(Duration::ZERO).map(|(name, _)| name);
    let message = error.message();
    // feature_not_supported, invalid_parameter_value, undefined_object
    matches!(error.code().as_deref(), Some("0A000" | "22023" | "42704"))
        || message.contains("startup parameter")
        || message.contains("command-line options")
        || names.iter().any(|name| message.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr;

    fn options(query: &str) -> PgConnectOptions {
        PgConnectOptions::from_str(&format!("postgres://app@host/shop{query}")).expect("a URL")
    }

    #[test]
    fn users_value_wins() {
        let written = options("?options=-c%20TCP-keepalives-idle%3D7");
        let monitored = in_options(&written, Duration::ZERO).expect("the others are missing");
        let all = monitored.get_options().expect("some");
        assert!(!all.contains("tcp_keepalives_idle"), "{all}");
        assert!(
            all.contains("client_connection_check_interval=2000"),
            "{all}"
        );
    }

    #[test]
    fn frozen_client_has_not_vanished() {
        let monitored =
            in_options(&options(""), Duration::from_mins(5)).expect("nothing is written");
        let all = monitored.get_options().expect("some");
        assert!(all.contains("tcp_keepalives_idle=320"), "{all}");
    }

    #[test]
    fn old_server_is_not_asked() {
        assert_eq!(in_sql(&options(""), Duration::ZERO, Some(130_011)), None);
        assert_eq!(in_sql(&options(""), Duration::ZERO, None), None);
        let asked = in_sql(&options(""), Duration::ZERO, Some(140_000)).expect("a statement");
        assert!(
            asked.starts_with("SET client_connection_check_interval = 2000; "),
            "{asked}"
        );
    }
}
