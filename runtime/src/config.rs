//! What a handler may ask for, as plain constant data: the only home of defaults, ranges and bounds.
//!
//! [`Config`] is what the attribute wrote down; [`Settings`] is what holds once the defaults of the
//! resource have been filled in.

use crate::credentials::Source;
use std::time::Duration;

/// Connections of one instance, unless `pool(max = ..)` says otherwise (the Sequelize guide's figure).
pub const DEFAULT_MAX: u32 = 2;
/// How long an acquire waits, unless `pool(acquire_ms = ..)` says otherwise (the Sequelize guide's figure).
pub const DEFAULT_ACQUIRE: Duration = Duration::from_millis(3_000);
/// How long a *kept* connection may have idled before it is dropped unasked. NAT gateways and load
/// balancers on AWS forget an idle flow after 350 s: this stays below.
pub const DEFAULT_KEPT_IDLE: Duration = Duration::from_secs(300);
/// The share of the server's connections that `budget(..)` may use (the Sequelize guide's figure).
pub const DEFAULT_BUDGET_SHARE: f64 = 0.8;

/// A kept connection idle for no longer than this is used as it is, unless `check(trust_ms = ..)` says
/// otherwise.
pub const TRUST: Duration = Duration::from_millis(1_000);
/// How long a kept connection may take to answer the ping that it gets after more than [`TRUST`],
/// unless `check(ping_ms = ..)` says otherwise.
pub const PING: Duration = Duration::from_millis(250);
/// The handler is stopped this long before the platform's deadline, and the *finally* takes no longer,
/// unless `deadline(reserve_ms = ..)` says otherwise.
pub const RESERVE: Duration = Duration::from_millis(250);
/// Kept free of the reserve for posting the answer itself, but never more than half of the reserve.
pub const ANSWER_MARGIN: Duration = Duration::from_millis(50);
/// How long background tasks are waited for where no deadline is known, and `background = "wait"`.
pub const BACKGROUND: Duration = Duration::from_secs(60);
/// How long [`shutdown`](crate::shutdown) may take. AWS Lambda leaves 300 ms between SIGTERM and SIGKILL
/// where there is an external extension, 500 ms otherwise.
pub const SHUTDOWN: Duration = Duration::from_millis(250);
/// How long a pool may be busy with opening its connection before the runtime asks the server itself
/// why. sqlx retries a refused or turned-away connection silently until `acquire_ms` is over.
pub const ASK_WHY_AFTER: Duration = Duration::from_millis(250);
/// The first wait of someone whom a full server turned away is drawn between nothing and this; the bound
/// doubles with every further time.
pub const RETRY_FIRST: Duration = Duration::from_millis(20);
/// The largest bound of such a wait.
pub const RETRY_LONGEST: Duration = Duration::from_millis(400);
/// How long a secret that the server has just turned down is given to change: server and provider are
/// not rotated in the same moment.
pub const ROTATION: Duration = Duration::from_millis(500);
/// How long an IAM token of RDS lives: the figure of AWS's documentation.
#[cfg(feature = "rds-iam")]
pub const IAM_TOKEN_LIFE: Duration = Duration::from_mins(15);
/// How long an IAM token is used, so that one that is just being sent does not expire on its way.
#[cfg(feature = "rds-iam")]
pub const IAM_TOKEN_FRESH: Duration = Duration::from_mins(10);
/// How long a secret of AWS Secrets Manager is used (the figure of AWS's own caching clients).
#[cfg(feature = "secrets-manager")]
pub const SECRET_FRESH: Duration = Duration::from_hours(1);
/// How often `close = "pressure"` asks a server how full it is, at most, give or take a half of it.
pub const PRESSURE_INTERVAL: Duration = Duration::from_secs(1);
/// How long the server may take to say so.
pub const PRESSURE_ASK: Duration = Duration::from_millis(250);
/// How long a kept connection may take to answer before another one is opened beside it: longer than
/// a round trip within a region, so that a healthy connection costs the server no second one.
pub const HEDGE_AFTER: Duration = Duration::from_millis(20);
/// The most that is added to [`HEDGE_AFTER`], by chance: instances that thaw together do not all open at
/// the same moment.
pub const HEDGE_SPREAD: Duration = Duration::from_millis(40);
/// How long what a handler left behind may take to come to an end by itself (a rollback takes a round
/// trip) before it is stopped on the server.
pub const QUIET: Duration = Duration::from_millis(50);
/// How long a query that was given up behind a PgBouncer is left before it is stopped once more: its
/// transaction may have been between two statements.
#[cfg(feature = "postgres")]
pub const STOP_AGAIN: Duration = Duration::from_millis(10);
/// How many instructions of SQLite's virtual machine run before it looks whether it was interrupted:
/// well below a millisecond, and no measurable cost.
pub const STEPS_BETWEEN_LOOKS: i32 = 1_000;
/// How long the init phase may spend on reporting its own failure to the platform.
pub const INIT_REPORT: Duration = Duration::from_millis(1_000);

/// How long a connection of MongoDB's driver may take to come back to its pool once its operation has
/// been dropped: a task of the driver's has to see it.
pub const MONGODB_RETURN: Duration = Duration::from_millis(10);
/// What Tencent SCF's time limit may have lost before the event is here: it is counted from when the
/// event is handed out, and is told as a duration.
pub const SCF_DISPATCH: Duration = Duration::from_millis(20);
/// How often in a row asking Tencent SCF for the next event may fail before the process gives up.
pub const SCF_POLLS: u32 = 3;
/// How long to wait before asking again.
pub const SCF_POLL_PAUSE: Duration = Duration::from_millis(100);
/// How long Tencent SCF may take for everything but the next event.
pub const SCF_CALL: Duration = Duration::from_millis(3_000);

/// The longest wait that can be configured: 15 minutes, the longest that a Lambda function may run.
pub const LONGEST_ACQUIRE_MS: u64 = 900_000;
/// The longest idle time and lifetime that can be configured: one day.
pub const LONGEST_AGE_MS: u64 = 86_400_000;
/// The longest ping and the longest reserve that can be configured: one minute.
pub const LONGEST_CHECK_MS: u64 = 60_000;
/// The most connections that one instance may be given.
pub const LARGEST_MAX: u32 = 65_535;

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

    /// How long before the deadline the handler is stopped, and how long the *finally* may take.
    pub(crate) const fn reserve(&self) -> Duration {
        milliseconds(self.reserve_ms, RESERVE)
    }
}

/// What a kind of resource does when the attribute says nothing.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Defaults {
    /// The environment variable that holds the URL; `None` for a resource that needs no URL.
    pub env: Option<&'static str>,
    /// When the connections go.
    pub close: Close,
    /// How long it may idle when it is kept.
    pub idle: Duration,
}

impl Defaults {
    /// The defaults of the SQL databases: `DATABASE_URL`, closed after every invocation.
    pub const SQL: Self = Self {
        env: Some("DATABASE_URL"),
        close: Close::Always,
        idle: DEFAULT_KEPT_IDLE,
    };

    /// For a resource that needs no URL and is kept until it fails: a client of one's own, a cache.
    pub const KEPT: Self = Self {
        env: None,
        close: Close::Never,
        idle: Duration::MAX,
    };

    /// The same with another environment variable for the URL, or none.
    #[must_use]
    pub const fn with_env(mut self, env: Option<&'static str>) -> Self {
        self.env = env;
        self
    }

    /// The same, closed at another time.
    #[must_use]
    pub const fn with_close(mut self, close: Close) -> Self {
        self.close = close;
        self
    }

    /// The same, kept for another time.
    #[must_use]
    pub const fn with_idle(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }
}

/// What holds for one resource of one handler: the written [`Config`] over the [`Defaults`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Settings {
    /// The environment variable that holds the URL, if the resource has one.
    pub env: Option<&'static str>,
    /// The most connections of one instance.
    pub max: u32,
    /// The connections that are opened at once and kept.
    pub min: u32,
    /// How long what is kept, or was opened ahead of the first event, may idle before it is dropped
    /// unasked.
    pub idle: Duration,
    /// How long an acquire may wait.
    pub acquire: Duration,
    /// How old a connection may become.
    pub lifetime: Option<Duration>,
    /// When the connections go.
    pub close: Close,
    /// When the first connection is made.
    pub connect: Connect,
    /// Where user and password come from, if not from the URL.
    pub credentials: Option<Source>,
    /// The share of the server's connections beyond which `close = "pressure"` keeps none.
    pub share: f64,
    /// What the connections go through, if not straight to the server.
    pub proxy: Option<Proxy>,
    /// A kept connection idle for no longer than this is used as it is.
    pub trust: Duration,
    /// How long a kept connection may take to answer a ping.
    pub ping: Duration,
    /// The handler is stopped this long before the deadline, and the *finally* takes no longer.
    pub reserve: Duration,
    /// What becomes of background tasks when the handler returns.
    pub background: Tasks,
}

impl Settings {
    /// Whether anything may be open between two invocations, or before the first one.
    pub(crate) const fn keeps(&self) -> bool {
        !matches!(self.close, Close::Always) || matches!(self.connect, Connect::Eager)
    }
}

const fn milliseconds(written: Option<u64>, default: Duration) -> Duration {
    match written {
        Some(ms) => Duration::from_millis(ms),
        None => default,
    }
}

impl Settings {
    /// Fills the gaps of `config` with `defaults`.
    ///
    /// ```
    /// use db_handler::config::{Close, Config, Defaults, Settings};
    ///
    /// let settings = Settings::new(&Config::new().max(5), &Defaults::SQL);
    /// assert_eq!(settings.max, 5);
    /// assert_eq!(settings.close, Close::Always);
    /// assert_eq!(settings.env, Some("DATABASE_URL"));
    /// ```
    #[must_use]
    pub const fn new(config: &Config, defaults: &Defaults) -> Self {
        let close = match config.close {
            Some(close) => close,
            None => defaults.close,
        };
        let idle = match config.idle_ms {
            // 0 is the guide's word for "not kept": it says nothing about what is.
            None | Some(0) => defaults.idle,
            Some(idle_ms) => Duration::from_millis(idle_ms),
        };
        Self {
            env: match config.env {
                Some(name) => Some(name),
                None => defaults.env,
            },
            max: match config.max {
                Some(max) => max,
                None => DEFAULT_MAX,
            },
            min: match config.min {
                Some(min) => min,
                None => 0,
            },
            idle,
            acquire: milliseconds(config.acquire_ms, DEFAULT_ACQUIRE),
            lifetime: match config.lifetime_ms {
                Some(lifetime_ms) => Some(Duration::from_millis(lifetime_ms)),
                None => None,
            },
            close,
            connect: match config.connect {
                Some(connect) => connect,
                None => Connect::Lazy,
            },
            credentials: config.credentials,
            share: match config.share {
                Some(share) => share,
                None => DEFAULT_BUDGET_SHARE,
            },
            proxy: config.proxy,
            trust: milliseconds(config.trust_ms, TRUST),
            ping: milliseconds(config.ping_ms, PING),
            reserve: config.reserve(),
            background: match config.background {
                Some(tasks) => tasks,
                None => Tasks::Wait,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_attribute_has_the_guides_settings() {
        let settings = Settings::new(&Config::new(), &Defaults::SQL);
        assert_eq!(settings.env, Some("DATABASE_URL"));
        assert_eq!((settings.max, settings.min), (2, 0));
        assert_eq!(settings.acquire, Duration::from_millis(3_000));
        assert_eq!(settings.lifetime, None);
        assert_eq!(settings.close, Close::Always);
        assert_eq!(settings.connect, Connect::Lazy);
        assert_eq!(settings.trust, Duration::from_millis(1_000));
        assert_eq!(settings.ping, Duration::from_millis(250));
        assert_eq!(settings.reserve, Duration::from_millis(250));
        assert_eq!(settings.background, Tasks::Wait);
    }

    #[test]
    fn what_is_written_holds() {
        let written = Config::new()
            .trust_ms(0)
            .ping_ms(1)
            .reserve_ms(60_000)
            .background(Tasks::Abort);
        let settings = Settings::new(&written, &Defaults::SQL);
        assert_eq!(settings.trust, Duration::ZERO);
        assert_eq!(settings.ping, Duration::from_millis(1));
        assert_eq!(settings.reserve, Duration::from_secs(60));
        assert_eq!(settings.background, Tasks::Abort);
    }

    #[test]
    fn what_is_kept_may_idle_for_five_minutes_unless_told_otherwise() {
        let kept = |config: Config| Settings::new(&config.close(Close::Never), &Defaults::SQL).idle;
        assert_eq!(kept(Config::new()), Duration::from_secs(300));
        assert_eq!(kept(Config::new().idle_ms(70)), Duration::from_millis(70));
        assert_eq!(kept(Config::new().idle_ms(0)), Duration::from_secs(300));
    }

    #[test]
    fn a_client_of_ones_own_is_kept_for_as_long_as_it_is_fit() {
        let settings = Settings::new(&Config::new(), &Defaults::KEPT);
        assert_eq!(settings.close, Close::Never);
        assert_eq!(settings.idle, Duration::MAX);
    }
}
