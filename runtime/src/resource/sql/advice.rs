//! What is not wrong, and yet worth a line in the log: once for each handler, when it first connects.

use crate::{config::Close, lock::lock, resource::Acquire};
use std::sync::Mutex;

/// A setting that will cost more than whoever wrote it may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Advice {
    /// Every invocation logs in with a token.
    TokenForEachInvocation,
    /// Whoever is between us and the server may read along, or be the server.
    UnverifiedServer,
}

static GIVEN: Mutex<Vec<(&str, Advice)>> = Mutex::new(Vec::new());

/// Looks at what `acquire` is about to open.
pub(super) fn give(acquire: &Acquire, is_token: bool, is_unverified: bool) {
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
        }
    }
}

/// Whether `host` is this machine, which nobody else can be taken for.
#[cfg(any(feature = "postgres", feature = "mysql", test))]
pub(super) fn is_here(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.starts_with('/')
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
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

    #[test]
    fn this_machine_needs_no_certificate() {
        for host in ["localhost", "127.0.0.1", "[::1]", "/run/postgresql"] {
            assert!(is_here(host), "{host}");
        }
        for host in ["10.0.0.1", "db.internal", "localhost.example"] {
            assert!(!is_here(host), "{host}");
        }
    }
}
