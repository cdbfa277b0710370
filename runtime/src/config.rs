//! What a handler may ask for, as plain constant data: the only home of defaults, ranges and bounds.
//!
//! [`Config`] is what the attribute wrote down; [`Settings`] is what holds once the defaults of the
//! resource have been filled in.

pub(crate) mod budget;
mod limits;
mod settings;

pub use limits::*;
pub use settings::{Defaults, Settings};

use crate::credentials::Source;

/// When the connections go: the attribute's `close = ".."`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Close {
    /// After every invocation. Between invocations the server has no connection of ours.
    Always,
    /// After an invocation that ended with an error, a panic or at the deadline; kept otherwise.
    OnError,
    /// Kept while the server has room, and given back when it is fuller than `budget`'s share.
    Pressure,
    /// Kept, until a connection is too old, idled too long, or is found dead.
    Never,
}

/// What the connections go through: the attribute's `proxy = ".."`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proxy {
    /// Amazon RDS Proxy.
    Rds,
    /// A PgBouncer that pools transactions.
    PgBouncer,
}

/// When the first connection is made: the attribute's `connect = ".."`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Connect {
    /// When the handler first needs it.
    Lazy,
    /// Before the first event: connected and authenticated in the init phase.
    Eager,
}

/// What becomes of a handler's background tasks when it returns: the attribute's `background = ".."`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tasks {
    /// They are waited for, until the handler itself would be stopped.
    Wait,
    /// They are stopped.
    Abort,
}

/// The attribute's arguments, as far as they were written; everything else is the resource's default.
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
    pub(crate) background: Option<Tasks>,
}

impl Config {
    /// Nothing written: a bare `#[db_handler]`.
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

    /// The environment variable that holds the URL.
    ///
    /// # Panics
    /// If the name is empty. In a constant, as the attribute uses it, that is a compile error.
    pub const fn env(mut self, name: &'static str) -> Self {
        assert!(!name.is_empty(), "`env` names no variable");
        self.env = Some(name);
        self
    }

    /// The most connections of one instance: 1 to [`LARGEST_MAX`].
    ///
    /// # Panics
    /// If out of range.
    pub const fn max(mut self, max: u32) -> Self {
        assert!(
            max >= 1 && max <= LARGEST_MAX,
            "`max` must be between 1 and 65535"
        );
        self.max = Some(max);
        self
    }

    /// The connections that are opened at once and kept.
    pub const fn min(mut self, min: u32) -> Self {
        self.min = Some(min);
        self
    }

    /// How long a kept connection may idle, in milliseconds: up to [`LONGEST_AGE_MS`].
    ///
    /// # Panics
    /// If out of range.
    pub const fn idle_ms(mut self, idle_ms: u64) -> Self {
        assert!(
            idle_ms <= LONGEST_AGE_MS,
            "`idle_ms` must be at most 86400000 (one day)"
        );
        self.idle_ms = Some(idle_ms);
        self
    }

    /// How long an acquire may wait, in milliseconds: 1 to [`LONGEST_ACQUIRE_MS`].
    ///
    /// # Panics
    /// If out of range.
    pub const fn acquire_ms(mut self, acquire_ms: u64) -> Self {
        assert!(
            acquire_ms >= 1 && acquire_ms <= LONGEST_ACQUIRE_MS,
            "`acquire_ms` must be between 1 and 900000 (15 minutes)"
        );
        self.acquire_ms = Some(acquire_ms);
        self
    }

    /// How old a connection may become, in milliseconds: 1 to [`LONGEST_AGE_MS`].
    ///
    /// # Panics
    /// If out of range.
    pub const fn lifetime_ms(mut self, lifetime_ms: u64) -> Self {
        assert!(
            lifetime_ms >= 1 && lifetime_ms <= LONGEST_AGE_MS,
            "`lifetime_ms` must be between 1 and 86400000 (one day)"
        );
        self.lifetime_ms = Some(lifetime_ms);
        self
    }

    /// How long a kept connection may have idled to be used as it is, in milliseconds: up to
    /// [`LONGEST_AGE_MS`].
    ///
    /// # Panics
    /// If out of range.
    pub const fn trust_ms(mut self, trust_ms: u64) -> Self {
        assert!(
            trust_ms <= LONGEST_AGE_MS,
            "`trust_ms` must be at most 86400000 (one day)"
        );
        self.trust_ms = Some(trust_ms);
        self
    }

    /// How long a kept connection may take to answer a ping, in milliseconds: 1 to
    /// [`LONGEST_CHECK_MS`].
    ///
    /// # Panics
    /// If out of range.
    pub const fn ping_ms(mut self, ping_ms: u64) -> Self {
        assert!(
            ping_ms >= 1 && ping_ms <= LONGEST_CHECK_MS,
            "`ping_ms` must be between 1 and 60000 (one minute)"
        );
        self.ping_ms = Some(ping_ms);
        self
    }

    /// How long before the deadline the handler is stopped, in milliseconds: 1 to
    /// [`LONGEST_CHECK_MS`].
    ///
    /// # Panics
    /// If out of range.
    pub const fn reserve_ms(mut self, reserve_ms: u64) -> Self {
        assert!(
            reserve_ms >= 1 && reserve_ms <= LONGEST_CHECK_MS,
            "`reserve_ms` must be between 1 and 60000 (one minute)"
        );
        self.reserve_ms = Some(reserve_ms);
        self
    }

    /// When the connections go.
    pub const fn close(mut self, close: Close) -> Self {
        self.close = Some(close);
        self
    }

    /// How many instances there may be at once: `max` times as many connections are compared with the
    /// server's limit, once.
    pub const fn instances(mut self, instances: u32) -> Self {
        self.instances = Some(instances);
        self
    }

    /// The share of the server's connections beyond which `close = "pressure"` keeps none: above 0, at
    /// most 1.
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

    /// Where user and password come from.
    pub const fn credentials(mut self, source: Source) -> Self {
        self.credentials = Some(source);
        self
    }

    /// What the connections go through.
    pub const fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// When the first connection is made.
    pub const fn connect(mut self, connect: Connect) -> Self {
        self.connect = Some(connect);
        self
    }

    /// What becomes of background tasks when the handler returns.
    pub const fn background(mut self, tasks: Tasks) -> Self {
        self.background = Some(tasks);
        self
    }
}
