//! What holds for one resource of one handler.

use super::{
    Close, Config, Connect, Proxy, Tasks,
    limits::{
        DEFAULT_ACQUIRE, DEFAULT_BUDGET_SHARE, DEFAULT_KEPT_IDLE, DEFAULT_MAX, PING, RESERVE, TRUST,
    },
};
use crate::credentials::Source;
use std::time::Duration;

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
    /// How many instances there may be at once, if the budget says so.
    pub instances: Option<u32>,
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

impl Config {
    /// How long before the deadline the handler is stopped, and how long the *finally* may take.
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
