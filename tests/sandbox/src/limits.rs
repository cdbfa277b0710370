//! The limits of all waits of the simulator: no wait is unbounded.

use std::time::Duration;

/// The time limit of each step. The defaults are AWS Lambda's, if it has one.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the start of the process to its first poll (Lambda: 10 s).
    pub init: Duration,
    /// From the restore of a snapshot to the first poll (Lambda: 10 s).
    pub restore: Duration,
    /// SIGTERM to SIGKILL of the function, when only internal extensions are registered.
    pub grace_internal: Duration,
    /// SIGTERM to SIGKILL of the function, when an external extension is registered.
    pub grace_external: Duration,
    /// SIGTERM to the end of everything, external extensions included.
    pub shutdown_external: Duration,
    /// From SIGKILL until the kernel reports the end of the process.
    pub reap: Duration,
    /// After a failed init, until the function's last lines have been read.
    pub last_words: Duration,
    /// From SIGSTOP until every process of the group is stopped.
    pub stop: Duration,
    /// Opening the connection to the real database behind a [`Proxy`](crate::Proxy).
    pub proxy_connect: Duration,
    /// Reopening the port of a [`Proxy`](crate::Proxy) that refused connections.
    pub proxy_rebind: Duration,
    /// Opening the observer's own connection to the database.
    pub observer_connect: Duration,
    /// One query of the observer.
    pub observer_query: Duration,
    /// The interval between two queries of the observer.
    pub observer_interval: Duration,
    /// After the last environment, until remaining connections count as left on the server.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            init: Duration::from_secs(10),
            restore: Duration::from_secs(10),
            grace_internal: Duration::from_millis(500),
            grace_external: Duration::from_millis(300),
            shutdown_external: Duration::from_secs(2),
            reap: Duration::from_secs(5),
            last_words: Duration::from_millis(20),
            stop: Duration::from_secs(2),
            proxy_connect: Duration::from_secs(5),
            proxy_rebind: Duration::from_secs(2),
            observer_connect: Duration::from_secs(5),
            observer_query: Duration::from_secs(2),
            observer_interval: Duration::from_millis(20),
            drain: Duration::from_secs(1),
        }
    }
}

/// The largest buffered response that Lambda accepts: 6 MiB and a little for the envelope.
pub(crate) const MAX_ANSWER: usize = 6 * 1024 * 1024 + 100;

/// The largest streamed response.
pub(crate) const MAX_STREAMED_ANSWER: usize = 200 * 1024 * 1024;

/// Lambda accepts ten extensions per function.
pub(crate) const MAX_EXTENSIONS: usize = 10;

/// Lines of the function's output kept for error messages.
pub(crate) const LOG_TAIL: usize = 20;

/// How much one direction of a proxied connection may buffer to simulate the round-trip time.
pub(crate) const MAX_IN_FLIGHT: usize = 64 * 1024 * 1024;
