//! The settings of one resource of one handler.

use super::{
    BackgroundPolicy, Close, Config, Connect, Proxy,
    limits::{
        DEFAULT_ACQUIRE, DEFAULT_BUDGET_SHARE, DEFAULT_KEPT_IDLE, DEFAULT_MAX, PING, RESERVE, TRUST,
    },
};
use crate::credentials::Source;
use std::time::Duration;

/// The defaults of a resource type, used where the attribute sets nothing.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Defaults {
    /// The environment variable that holds the URL; `None` for a resource that needs no URL.
    pub env: Option<&'static str>,
    /// When connections are closed.
    pub close: Close,
    /// How long it may idle before it is closed.
    pub idle: Duration,
}

impl Defaults {
    /// Defaults of the SQL databases: `DATABASE_URL`, closed after every invocation.
    pub const SQL: Self = Self {
        env: Some("DATABASE_URL"),
        close: Close::Always,
        idle: DEFAULT_KEPT_IDLE,
    };

    /// Defaults for a resource without a URL that is reused until it fails: a client of your own, a cache.
    pub const KEPT: Self = Self {
        env: None,
        close: Close::Never,
        idle: Duration::MAX,
    };

    /// Returns these defaults with another environment variable for the URL, or none.
    #[must_use]
    pub const fn with_env(mut self, env: Option<&'static str>) -> Self {
        self.env = env;
        self
    }

    /// Returns these defaults with another `close`.
    #[must_use]
    pub const fn with_close(mut self, close: Close) -> Self {
        self.close = close;
        self
    }

    /// Returns these defaults with another `idle`.
    #[must_use]
    pub const fn with_idle(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }
}

/// The effective settings of one resource of one handler: its [`Config`], with [`Defaults`] for what is not
/// set.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Settings {
    /// The environment variable that holds the URL, if the resource has one.
    pub env: Option<&'static str>,
    /// Maximum number of connections per environment.
    pub max: u32,
    /// Number of connections that are opened at once and reused.
    pub min: u32,
    /// How long a reused or preopened connection may idle before it is discarded without a check.
    pub idle: Duration,
    /// How long acquiring may take.
    pub acquire: Duration,
    /// Maximum lifetime of a connection.
    pub lifetime: Option<Duration>,
    /// When connections are closed.
    pub close: Close,
    /// When the first connection is opened.
    pub connect: Connect,
    /// The provider of user and password, if they are not in the URL.
    pub credentials: Option<Source>,
    /// How many environments may run at once, if `budget` sets it.
    pub instances: Option<u32>,
    /// The share of the server's connections above which `close = "pressure"` closes connections.
    pub share: f64,
    /// The proxy in front of the server, if there is one.
    pub proxy: Option<Proxy>,
    /// A connection that idled for at most this long is reused without a check.
    pub trust: Duration,
    /// Timeout of the ping of a reused connection.
    pub ping: Duration,
    /// The handler is cancelled this long before the deadline, and the cleanup takes at most this long.
    pub reserve: Duration,
    /// What happens to background tasks when the handler returns.
    pub background: BackgroundPolicy,
}

impl Settings {
    /// Returns whether anything may be open between two invocations, or before the first one.
    pub(crate) const fn keeps(&self) -> bool {
        !matches!(self.close, Close::Always) || matches!(self.connect, Connect::Eager)
    }
}

impl Config {
    /// Returns how long before the deadline the handler is cancelled, and how long the cleanup may take.
    pub(crate) const fn reserve(&self) -> Duration {
        milliseconds(self.reserve_ms, RESERVE)
    }
}

const fn milliseconds(written: Option<u64>, default: Duration) -> Duration {
    match written {
        Some(ms) => Duration::from_millis(ms),
        None => default,
    }
}

impl Settings {
    /// Creates settings from `config`, with `defaults` for what is not set.
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
            // In the Sequelize guide, 0 means that connections are not reused. It sets no idle time for those
            // that are.
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
            instances: config.instances,
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
                None => BackgroundPolicy::Wait,
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
        assert_eq!(settings.background, BackgroundPolicy::Wait);
    }

    #[test]
    fn what_is_written_holds() {
        let written = Config::new()
            .trust_ms(0)
            .ping_ms(1)
            .reserve_ms(60_000)
            .background(BackgroundPolicy::Abort);
        let settings = Settings::new(&written, &Defaults::SQL);
        assert_eq!(settings.trust, Duration::ZERO);
        assert_eq!(settings.ping, Duration::from_millis(1));
        assert_eq!(settings.reserve, Duration::from_secs(60));
        assert_eq!(settings.background, BackgroundPolicy::Abort);
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
