//! What is not wrong, and yet worth a line in the log: once for each handler, when it first connects.

use crate::{
    config::{Close, Settings},
    drivers::sql::{driver::Pressured, without_logging::without_logging},
    resource::{Acquire, Fitness},
    util::lock::lock,
};
use std::{sync::Mutex, time::Duration};
use tokio::time::timeout;

/// A setting that will cost more than whoever wrote it may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::drivers::sql) enum Advice {
    /// Every invocation logs in with a token.
    TokenForEachInvocation,
    /// Whoever is between us and the server may read along, or be the server.
    UnverifiedServer,
    /// Parameters of the URL say nothing to sqlx.
    UnknownParameters,
    /// All instances together may want more connections than there are.
    OverTheLimit,
}

static GIVEN: Mutex<Vec<(&str, Advice)>> = Mutex::new(Vec::new());

/// Looks at what `acquire` is about to open.
pub(in crate::drivers::sql) fn give(acquire: &Acquire, is_token: bool, is_unverified: bool) {
    let always = acquire.settings().close == Close::Always;
    let advice = [
        (is_token && always, Advice::TokenForEachInvocation),
        (is_unverified, Advice::UnverifiedServer),
    ];
    for (_, advice) in advice.into_iter().filter(|(applies, _)| *applies) {
        if is_news(acquire.handler(), advice) {
            tracing::warn!(handler = acquire.handler(), "{}", advice.text());
        }
    }
}

/// Says which parameters of the URL in `variable` are ignored, by their names: a value may be a password.
pub(in crate::drivers::sql) fn ignoring_parameters(
    acquire: &Acquire,
    variable: &str,
    parameters: &str,
) {
    let (handler, advice) = (acquire.handler(), Advice::UnknownParameters);
    if is_news(handler, advice) {
        tracing::warn!(handler, variable, parameters, "{}", advice.text());
    }
}

/// Looks, once for each handler, whether the server has room for all instances that the budget knows of:
/// what the budget says about the server may be out of date. Called after the answer; a `connection` that
/// takes longer than `longest` is half-way through an answer, and unfit.
pub(in crate::drivers::sql) async fn compare_with_limit<DB: Pressured>(
    handler: &'static str,
    settings: &Settings,
    connection: &mut DB::Connection,
    longest: Duration,
) -> Fitness {
    let Some(instances) = settings.instances else {
        return Fitness::Fit;
    };
    // A proxy has limits of its own.
    if settings.proxy.is_some() || !is_news(handler, Advice::OverTheLimit) {
        return Fitness::Fit;
    }
    let room = match timeout(longest, without_logging(DB::load(connection))).await {
        Ok(Ok(Some(load))) => load.room,
        Ok(_) => return Fitness::Fit,
        Err(_) => return Fitness::Unfit,
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
            Advice::OverTheLimit.text()
        );
    }
    Fitness::Fit
}

fn is_news(handler: &'static str, advice: Advice) -> bool {
    let mut given = lock(&GIVEN);
    let is_news = !given.contains(&(handler, advice));
    if is_news {
        given.push((handler, advice));
    }
    is_news
}

impl Advice {
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
        assert!(is_news("tests::one", Advice::UnverifiedServer));
        assert!(!is_news("tests::one", Advice::UnverifiedServer));
        assert!(is_news("tests::one", Advice::TokenForEachInvocation));
        assert!(is_news("tests::two", Advice::UnverifiedServer));
    }
}
