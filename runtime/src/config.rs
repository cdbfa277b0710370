//! Settings of a handler as constant data, with all defaults and ranges, and most bounds.
//!
//! [`Config`] holds the attribute's arguments; [`Settings`] holds the result with the resource's defaults
//! filled in.

pub(crate) mod budget;
mod limits;
mod settings;

pub use limits::*;
pub use settings::{Defaults, Settings};

use crate::credentials::Source;

/// When connections are closed: the attribute's `close = ".."`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Close {
    /// After every invocation. The server has no connection of this environment between two invocations.
    Always,
    /// After an invocation that ended with an error, a panic or at the deadline. Otherwise they are reused.
    OnError,
    /// When the server is fuller than `budget`'s share. Otherwise they are reused.
    Pressure,
    /// When a connection is too old, has idled for too long or is dead. Otherwise they are reused.
    Never,
}

/// The proxy in front of the server: the attribute's `proxy = ".."`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proxy {
    /// Amazon RDS Proxy.
    Rds,
    /// PgBouncer with transaction pooling.
    PgBouncer,
}

/// When the first connection is opened: the attribute's `connect = ".."`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Connect {
    /// On first use in a handler.
    Lazy,
    /// Before the first event: the init phase connects and authenticates.
    Eager,
}

/// What happens to a handler's background tasks when it returns: the attribute's `background = ".."`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackgroundPolicy {
    /// Waits for them until the moment at which the handler itself would be cancelled.
    Wait,
    /// Cancels them.
    Abort,
}

/// The attribute's arguments. An argument that is not set has the resource's default.
#[derive(Debug, Clone, Copy, Default)]
#[must_use]
pub struct Config {
    pub(crate) env: Option<&'static str>,
    pub(crate) max: Option<u32>,
    pub(crate) min: Option<u32>,
    pub(crate) idle_ms: Option<u64>,
    pub(crate) acquire_ms: Option<u64>,
    pub(crate) lifetime_ms: Option<u64>,
    pub(crate) trust_ms: Option<u64>,
    pub(crate) ping_ms: Option<u64>,
    pub(crate) reserve_ms: Option<u64>,
    pub(crate) close: Option<Close>,
    pub(crate) connect: Option<Connect>,
    pub(crate) credentials: Option<Source>,
    pub(crate) instances: Option<u32>,
    pub(crate) share: Option<f64>,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) background: Option<BackgroundPolicy>,
}

impl Config {
    /// Creates an empty configuration: a bare `#[db_handler]`.
    pub const fn new() -> Self {
        Self {
            env: None,
            max: None,
            min: None,
            idle_ms: None,
            acquire_ms: None,
            lifetime_ms: None,
            trust_ms: None,
            ping_ms: None,
            reserve_ms: None,
            close: None,
            connect: None,
            credentials: None,
            instances: None,
            share: None,
            proxy: None,
            background: None,
        }
    }

    /// Sets the environment variable that holds the URL.
    ///
    /// # Panics
    /// If the name is empty. In a constant, as the attribute uses it, that is a compile error.
    pub const fn env(mut self, name: &'static str) -> Self {
        assert!(!name.is_empty(), "`env` names no variable");
        self.env = Some(name);
        self
    }

    /// Sets the maximum number of connections per environment: 1 to [`MAX_POOL_SIZE`].
    ///
    /// # Panics
    /// If out of range.
    pub const fn max(mut self, max: u32) -> Self {
        assert!(
            max >= 1 && max <= MAX_POOL_SIZE,
            "`max` must be between 1 and 65535"
        );
        self.max = Some(max);
        self
    }

    /// Sets the number of connections that are opened at once and reused.
    pub const fn min(mut self, min: u32) -> Self {
        self.min = Some(min);
        self
    }

    /// Sets how long a connection may idle before it is closed, in milliseconds: up to [`MAX_AGE_MS`].
    ///
    /// # Panics
    /// If out of range.
    pub const fn idle_ms(mut self, idle_ms: u64) -> Self {
        assert!(
            idle_ms <= MAX_AGE_MS,
            "`idle_ms` must be at most 86400000 (one day)"
        );
        self.idle_ms = Some(idle_ms);
        self
    }

    /// Sets how long acquiring may take, in milliseconds: 1 to [`MAX_ACQUIRE_MS`].
    ///
    /// # Panics
    /// If out of range.
    pub const fn acquire_ms(mut self, acquire_ms: u64) -> Self {
        assert!(
            acquire_ms >= 1 && acquire_ms <= MAX_ACQUIRE_MS,
            "`acquire_ms` must be between 1 and 900000 (15 minutes)"
        );
        self.acquire_ms = Some(acquire_ms);
        self
    }

    /// Sets the maximum lifetime of a connection, in milliseconds: 1 to [`MAX_AGE_MS`].
    ///
    /// # Panics
    /// If out of range.
    pub const fn lifetime_ms(mut self, lifetime_ms: u64) -> Self {
        assert!(
            lifetime_ms >= 1 && lifetime_ms <= MAX_AGE_MS,
            "`lifetime_ms` must be between 1 and 86400000 (one day)"
        );
        self.lifetime_ms = Some(lifetime_ms);
        self
    }

    /// Sets up to which idle time a connection is reused without a check, in milliseconds: up to
    /// [`MAX_AGE_MS`].
    ///
    /// # Panics
    /// If out of range.
    pub const fn trust_ms(mut self, trust_ms: u64) -> Self {
        assert!(
            trust_ms <= MAX_AGE_MS,
            "`trust_ms` must be at most 86400000 (one day)"
        );
        self.trust_ms = Some(trust_ms);
        self
    }

    /// Sets the timeout of the ping of a reused connection, in milliseconds: 1 to [`MAX_CHECK_MS`].
    ///
    /// # Panics
    /// If out of range.
    pub const fn ping_ms(mut self, ping_ms: u64) -> Self {
        assert!(
            ping_ms >= 1 && ping_ms <= MAX_CHECK_MS,
            "`ping_ms` must be between 1 and 60000 (one minute)"
        );
        self.ping_ms = Some(ping_ms);
        self
    }

    /// Sets how long before the deadline the handler is cancelled, in milliseconds: 1 to [`MAX_CHECK_MS`].
    ///
    /// # Panics
    /// If out of range.
    pub const fn reserve_ms(mut self, reserve_ms: u64) -> Self {
        assert!(
            reserve_ms >= 1 && reserve_ms <= MAX_CHECK_MS,
            "`reserve_ms` must be between 1 and 60000 (one minute)"
        );
        self.reserve_ms = Some(reserve_ms);
        self
    }

    /// Sets when connections are closed.
    pub const fn close(mut self, close: Close) -> Self {
        self.close = Some(close);
        self
    }

    /// Sets how many environments may run at once. `max` times this number is compared with the server's
    /// connection limit, once.
    pub const fn instances(mut self, instances: u32) -> Self {
        self.instances = Some(instances);
        self
    }

    /// Sets the share of the server's connections above which `close = "pressure"` closes connections: above 0,
    /// at most 1.
    ///
    /// # Panics
    /// If out of range.
    pub const fn share(mut self, share: f64) -> Self {
        assert!(
            share > 0.0 && share <= 1.0,
            "`budget(share)` must be above 0 and at most 1"
        );
        self.share = Some(share);
        self
    }

    /// Sets the provider of user and password.
    pub const fn credentials(mut self, source: Source) -> Self {
        self.credentials = Some(source);
        self
    }

    /// Sets the proxy in front of the server.
    pub const fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// Sets when the first connection is opened.
    pub const fn connect(mut self, connect: Connect) -> Self {
        self.connect = Some(connect);
        self
    }

    /// Sets what happens to background tasks when the handler returns.
    pub const fn background(mut self, tasks: BackgroundPolicy) -> Self {
        self.background = Some(tasks);
        self
    }
}
