//! Every wait of the sandbox, in one place: nothing here waits without a bound.

use std::time::Duration;

/// How long each step may take. The defaults are AWS Lambda's where it has one.
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
    /// SIGKILL until the kernel reports the end of the process.
    pub reap: Duration,
    /// After a failed init, until the function's last lines have come through the pipe.
    pub last_words: Duration,
    /// SIGSTOP until every process of the group is seen stopped.
    pub stop: Duration,
    /// Opening the connection to the real database behind a [`Proxy`](crate::Proxy).
    pub proxy_connect: Duration,
    /// Taking back the port of a [`Proxy`](crate::Proxy) that had been refusing.
    pub proxy_rebind: Duration,
    /// Opening the observer's own connection to the database.
    pub observer_connect: Duration,
    /// One look of the observer at the server.
    pub observer_query: Duration,
    /// Between two looks of the observer.
    pub observer_interval: Duration,
    /// After the last environment ended, until what is still on the server counts as left behind.
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

/// The largest answer that Lambda takes in one piece: 6 MiB and a little for the envelope.
pub(crate) const MAX_ANSWER: usize = 6 * 1024 * 1024 + 100;

/// The largest streamed answer.
pub(crate) const MAX_STREAMED_ANSWER: usize = 200 * 1024 * 1024;

/// Lambda takes ten extensions per function.
pub(crate) const MAX_EXTENSIONS: usize = 10;

/// Lines of the function's output kept for error messages.
pub(crate) const LOG_TAIL: usize = 20;

/// What one direction of a proxied connection may hold back to play the round-trip time.
pub(crate) const MAX_IN_FLIGHT: usize = 64 * 1024 * 1024;
