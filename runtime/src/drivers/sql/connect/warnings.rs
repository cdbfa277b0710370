//! Configuration warnings, logged once per handler when it first connects.

use crate::{
    config::{Close, Settings},
    drivers::sql::{driver::Capacity, without_logging::without_logging},
    resource::{AcquireContext, Health},
    util::lock::lock,
};
use std::{sync::Mutex, time::Duration};
use tokio::time::timeout;

/// A setting with a hidden cost or risk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::drivers::sql) enum Warning {
    /// Every invocation logs in with a token.
    TokenForEachInvocation,
    /// An attacker between the function and the server could read the traffic, or impersonate the server.
    UnverifiedServer,
    /// sqlx does not know some of the URL's parameters.
    UnknownParameters,
    /// All environments together may need more connections than the server has.
    OverTheLimit,
}

static EMITTED: Mutex<Vec<(&str, Warning)>> = Mutex::new(Vec::new());

/// Warns about the connection that `acquire` is about to open.
pub(in crate::drivers::sql) fn emit(acquire: &AcquireContext, is_token: bool, is_unverified: bool) {
    let always = acquire.settings().close == Close::Always;
    let advice = [
        (is_token && always, Warning::TokenForEachInvocation),
        (is_unverified, Warning::UnverifiedServer),
    ];
    for (_, advice) in advice.into_iter().filter(|(applies, _)| *applies) {
        if first_time(acquire.handler(), advice) {
            tracing::warn!(handler = acquire.handler(), "{}", advice.text());
        }
    }
}

/// Warns about ignored parameters in the URL of `variable`, by name only: a value may be a password.
pub(in crate::drivers::sql) fn ignoring_parameters(
    acquire: &AcquireContext,
    variable: &str,
    parameters: &str,
) {
    let (handler, advice) = (acquire.handler(), Warning::UnknownParameters);
    if first_time(handler, advice) {
        tracing::warn!(handler, variable, parameters, "{}", advice.text());
    }
}

/// Checks, once per handler, whether the server has room for all environments of the budget: its `connections` may be
/// outdated. Called after the response. A `connection` that takes longer than `longest` has an unread reply, and is
/// broken.
pub(in crate::drivers::sql) async fn compare_with_limit<DB: Capacity>(
    handler: &'static str,
    settings: &Settings,
    connection: &mut DB::Connection,
    longest: Duration,
) -> Health {
    let Some(instances) = settings.instances else {
        return Health::Healthy;
    };
    // A proxy has its own limits.
    if settings.proxy.is_some() || !first_time(handler, Warning::OverTheLimit) {
        return Health::Healthy;
    }
    let room = match timeout(longest, without_logging(DB::load(connection))).await {
        Ok(Ok(Some(load))) => load.room,
        Ok(_) => return Health::Healthy,
        Err(_) => return Health::Broken,
    };
    let wanted = instances.saturating_mul(settings.max);
    if wanted > room {
        let max = settings.max;
        tracing::warn!(
            handler,
            instances,
            max,
            wanted,
            room,
            "{}",
            Warning::OverTheLimit.text()
        );
    }
    Health::Healthy
}

fn first_time(handler: &'static str, advice: Warning) -> bool {
    let mut given = lock(&EMITTED);
    let first_time = !given.contains(&(handler, advice));
    if first_time {
        given.push((handler, advice));
    }
    first_time
}

impl Warning {
    fn text(self) -> &'static str {
        match self {
            Self::TokenForEachInvocation => {
                "`close = \"always\"` logs in with an IAM token for every invocation, and AWS advises against more than 200 \
                 such logins in a second: `close = \"pressure\"` or `\"never\"` keeps the connection"
            }
            Self::UnverifiedServer => {
                "the server's certificate is not verified on the way to a remote host: write `sslmode=verify-full` \
                 (MySQL: `ssl-mode=VERIFY_IDENTITY`) and the certificate's authority into the URL"
            }
            Self::UnknownParameters => "parameters of the URL that are not known here are ignored",
            Self::OverTheLimit => {
                "`max` times the budget's instances is more than the server has room for: lower `max` or the function's \
                 concurrency, or write the server's own limit into `budget(connections = ..)`"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_handler_is_told_once() {
        assert!(first_time("tests::one", Warning::UnverifiedServer));
        assert!(!first_time("tests::one", Warning::UnverifiedServer));
        assert!(first_time("tests::one", Warning::TokenForEachInvocation));
        assert!(first_time("tests::two", Warning::UnverifiedServer));
    }
}
