//! The settings of one resource: those of the parameter's `#[db(...)]`, then those of the attribute.

use proc_macro2::TokenStream;
use syn::{ExprPath, LitStr};

use crate::args::{Args, Value};
use crate::choice::{BACKGROUND, CLOSE, CONNECT, PROXY, choice, variable};
use crate::diag::Diagnostics;
use crate::number::{Limits, integer};
use crate::provider::provider;
use crate::value::KeyValue;

/// The settings as written. The runtime has the defaults.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    pub(crate) env: Option<LitStr>,
    pub(crate) max: Option<KeyValue<u64>>,
    pub(crate) min: Option<KeyValue<u64>>,
    pub(crate) idle_ms: Option<KeyValue<u64>>,
    pub(crate) acquire_ms: Option<KeyValue<u64>>,
    pub(crate) lifetime_ms: Option<KeyValue<u64>>,
    /// The path of a provider.
    pub(crate) credentials: Option<ExprPath>,
    pub(crate) trust_ms: Option<KeyValue<u64>>,
    pub(crate) ping_ms: Option<KeyValue<u64>>,
    pub(crate) reserve_ms: Option<KeyValue<u64>>,
    /// The variant's name.
    pub(crate) close: Option<KeyValue<&'static str>>,
    /// The variant's name.
    pub(crate) connect: Option<KeyValue<&'static str>>,
    /// The budget's `instances`.
    pub(crate) instances: Option<TokenStream>,
    /// The budget's `share`, if `close = "pressure"` needs it.
    pub(crate) share: Option<TokenStream>,
    /// The variant's name.
    pub(crate) proxy: Option<KeyValue<&'static str>>,
    /// The variant's name.
    pub(crate) background: Option<KeyValue<&'static str>>,
}

/// A check that the runtime's `check_min` makes at compile time, because a constant expression or the default of the
/// parameter's type is involved.
pub(crate) struct MinCheck {
    pub(crate) min: TokenStream,
    /// `None` for the runtime's default.
    pub(crate) max: Option<TokenStream>,
    /// `None` for the default of the parameter's type.
    pub(crate) close: Option<&'static str>,
}

/// The rules that a parameter's type must follow behind a proxy.
#[derive(Clone, Copy)]
pub(crate) enum ProxyCheck {
    /// A session belongs to one client until it is closed.
    RdsProxySafe,
    /// A session belongs to one client until its transaction ends.
    TransactionPoolingSafe,
}

/// The runtime's default. `min` and `budget` are checked against it if `max` is not written.
pub(crate) const DEFAULT_MAX: u64 = 2;
const MAX_POOL_SIZE: u64 = 65_535;

const MAX: Limits = Limits {
    least: 1,
    most: MAX_POOL_SIZE,
    note: "",
    ty: "u32",
};
const MIN: Limits = Limits { least: 0, ..MAX };
const ACQUIRE_MS: Limits = Limits {
    least: 1,
    most: 900_000,
    note: " (15 minutes, the longest that a function may run)",
    ty: "u64",
};
const LIFETIME_MS: Limits = Limits {
    least: 1,
    most: 86_400_000,
    note: " (one day)",
    ty: "u64",
};
const IDLE_MS: Limits = Limits {
    least: 0,
    ..LIFETIME_MS
};
const TRUST_MS: Limits = IDLE_MS;
const PING_MS: Limits = Limits {
    least: 1,
    most: 60_000,
    note: " (one minute)",
    ty: "u64",
};
const RESERVE_MS: Limits = PING_MS;

impl Settings {
    pub(crate) fn read(args: &Args, diag: &mut Diagnostics) -> Self {
        let none = Args::default();
        let list = |name| match args.get(name).map(|entry| &entry.value) {
            Some(Value::List(list)) => list,
            _ => &none,
        };
        let (pool, check, deadline) = (list("pool"), list("check"), list("deadline"));
        Self {
            env: variable(args, diag),
            max: integer(pool, "max", MAX, diag),
            min: integer(pool, "min", MIN, diag),
            idle_ms: integer(pool, "idle_ms", IDLE_MS, diag),
            acquire_ms: integer(pool, "acquire_ms", ACQUIRE_MS, diag),
            lifetime_ms: integer(pool, "lifetime_ms", LIFETIME_MS, diag),
            credentials: provider(args, diag),
            trust_ms: integer(check, "trust_ms", TRUST_MS, diag),
            ping_ms: integer(check, "ping_ms", PING_MS, diag),
            reserve_ms: integer(deadline, "reserve_ms", RESERVE_MS, diag),
            close: choice(args, "close", CLOSE, diag),
            connect: choice(args, "connect", CONNECT, diag),
            instances: None,
            share: None,
            proxy: choice(args, "proxy", PROXY, diag),
            background: choice(args, "background", BACKGROUND, diag),
        }
    }

    /// Fills the gaps with the attribute's settings.
    pub(crate) fn or(self, attribute: &Self) -> Self {
        let attribute = attribute.clone();
        Self {
            env: self.env.or(attribute.env),
            max: self.max.or(attribute.max),
            min: self.min.or(attribute.min),
            idle_ms: self.idle_ms.or(attribute.idle_ms),
            acquire_ms: self.acquire_ms.or(attribute.acquire_ms),
            lifetime_ms: self.lifetime_ms.or(attribute.lifetime_ms),
            credentials: self.credentials.or(attribute.credentials),
            trust_ms: self.trust_ms.or(attribute.trust_ms),
            ping_ms: self.ping_ms.or(attribute.ping_ms),
            reserve_ms: self.reserve_ms.or(attribute.reserve_ms),
            close: self.close.or(attribute.close),
            connect: self.connect.or(attribute.connect),
            instances: self.instances.or(attribute.instances),
            share: self.share.or(attribute.share),
            proxy: self.proxy.or(attribute.proxy),
            background: self.background.or(attribute.background),
        }
    }

    /// Adds the parts of the budget that the function needs at run time.
    pub(crate) fn within(
        mut self,
        instances: Option<TokenStream>,
        share: Option<TokenStream>,
    ) -> Self {
        let pressure = self.close.as_ref().and_then(KeyValue::known) == Some("Pressure");
        self.instances = instances;
        self.share = share.filter(|_| pressure);
        self
    }

    /// Checks `proxy` against `close`, and returns the rules for the parameter's type.
    pub(crate) fn check_proxy(&self, diag: &mut Diagnostics) -> Option<ProxyCheck> {
        let proxy = self.proxy.as_ref()?.known()?;
        let close = match &self.close {
            Some(close) => Some(close.known()?),
            None => None,
        };
        if let (Some("Pressure"), Some(close)) = (close, &self.close) {
            diag.error(
                close.tokens()?,
                "`close = \"pressure\"` asks how full the server is, but behind a proxy its connections are the proxy's: \
                 write `close = \"never\"` or `close = \"always\"`",
            );
            return None;
        }
        let is_closed = matches!(close, None | Some("Always"));
        Some(if proxy == "Rds" && is_closed {
            ProxyCheck::RdsProxySafe
        } else {
            ProxyCheck::TransactionPoolingSafe
        })
    }

    /// Checks `min` against `max` and `close`.
    pub(crate) fn check_min(&self, diag: &mut Diagnostics) -> Option<MinCheck> {
        let min = self.min.as_ref()?;
        let written = min.tokens()?;
        let max = match &self.max {
            Some(max) => max.known(),
            None => Some(DEFAULT_MAX),
        };
        let close = match &self.close {
            Some(close) => Some(close.known()?),
            None => None,
        };
        if let (Some(min), Some(max)) = (min.known(), max)
            && min > max
        {
            let default = match self.max {
                Some(_) => "",
                None => ", the default",
            };
            diag.error(
                written,
                format_args!(
                    "`min` {min} is greater than `max` {max}{default}: lower `min`, or raise `max` to {min}"
                ),
            );
        }
        if min.known().is_some_and(|min| min > 0) && close == Some("Always") {
            diag.error(
                written,
                "`min` keeps connections open, but `close = \"always\"` keeps none between invocations: \
                 drop `min`, or write `close = \"never\"` or `close = \"on_error\"`",
            );
        }
        let all_is_known = min.known().is_some() && max.is_some() && close.is_some();
        if min.known() == Some(0) || all_is_known {
            return None;
        }
        Some(MinCheck {
            min: written.clone(),
            max: match &self.max {
                Some(max) => Some(max.tokens()?.clone()),
                None => None,
            },
            close,
        })
    }
}
