//! The configuration of environments.

use std::{
    fmt, io,
    sync::{Arc, Mutex},
    time::Duration,
};

use url::Url;

use crate::{
    api::Identity,
    clock::{Epoch, WallClock, lock},
    environment::Environment,
    function::Function,
    life::{Blueprint, Journal},
    limits::Limits,
    platform::Platform,
    process::Watchdog,
    proxy::Proxy,
    record::InitFailure,
};

/// A function and the platform that it runs on. Cheap to clone; every
/// [`environment`](Self::environment) is independent of the others.
#[derive(Clone, Debug)]
pub struct Sandbox {
    pub(crate) function: Function,
    pub(crate) platform: Platform,
    extensions: Vec<Function>,
    name: String,
    pub(crate) timeout: Duration,
    pub(crate) memory: u32,
    pub(crate) concurrency: usize,
    pub(crate) freeze_between: bool,
    snap_start: Option<Duration>,
    pub(crate) wall_clock_jumps: bool,
    databases: Vec<Database>,
    pub(crate) rtt: Duration,
    logs: bool,
    pub(crate) limits: Limits,
    pub(crate) epoch: Epoch,
    /// Started with the first environment, and shared by all.
    watchdog: Arc<Mutex<Option<Arc<Watchdog>>>>,
}

/// A database that the function reaches through its own proxy.
#[derive(Clone)]
pub(crate) struct Database {
    variable: String,
    url: Url,
}

/// Omits the URL, which contains a password.
impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("variable", &self.variable)
            .field("target", &target(&self.url).unwrap_or_default())
            .finish()
    }
}

impl Sandbox {
    /// A function with Lambda's own defaults: 3 s, 128 MB, one invocation at a time.
    #[must_use]
    pub fn new(function: Function) -> Self {
        Self {
            name: function.name(),
            function,
            platform: Platform::default(),
            extensions: Vec::new(),
            timeout: Duration::from_secs(3),
            memory: 128,
            concurrency: 1,
            freeze_between: true,
            snap_start: None,
            wall_clock_jumps: false,
            databases: Vec::new(),
            rtt: Duration::ZERO,
            logs: false,
            limits: Limits::default(),
            epoch: Epoch::now(),
            watchdog: Arc::default(),
        }
    }

    /// The simulated platform. The default is AWS Lambda. SCF has no extensions, no SnapStart, and one event at a
    /// time for such functions.
    #[must_use]
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = platform;
        self
    }

    /// The time limit of an invocation.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The memory size that is reported to the function, in MB. It is not enforced.
    #[must_use]
    pub fn memory(mut self, megabytes: u32) -> Self {
        self.memory = megabytes;
        self
    }

    /// The function's name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The number of concurrent invocations in one process, as on Lambda Managed Instances. With more than one,
    /// the environment is not frozen between invocations by default, and a deadline ends the invocation, not the
    /// process.
    #[must_use]
    pub fn concurrency(mut self, invocations: usize) -> Self {
        self.concurrency = invocations.max(1);
        self.freeze_between = self.concurrency == 1;
        self
    }

    /// Whether the process group is stopped after each invocation. The default is `true`.
    #[must_use]
    pub fn freeze_between(mut self, freeze: bool) -> Self {
        self.freeze_between = freeze;
        self
    }

    /// Adds an external extension, started before the function. It is named after its file.
    #[must_use]
    pub fn extension(mut self, extension: Function) -> Self {
        self.extensions.push(extension);
        self
    }

    /// SnapStart: the environment is stopped when it requests the restore, and restored later.
    #[must_use]
    pub fn snap_start(mut self, restored_after: Duration) -> Self {
        self.snap_start = Some(restored_after);
        self
    }

    /// Runs the function with libfaketime, which [`Environment::jump`] requires.
    #[must_use]
    pub fn wall_clock_jumps(mut self, jumps: bool) -> Self {
        self.wall_clock_jumps = jumps;
        self
    }

    /// Puts a proxy between the function and a database: the variable holds the URL, with the
    /// proxy's address in it. Each environment has its own proxy.
    ///
    /// # Errors
    /// If the URL has no single host or no known port.
    pub fn database(mut self, variable: impl Into<String>, url: &str) -> Result<Self, String> {
        let url: Url = url
            .parse()
            .map_err(|error| format!("the database's URL: {error}"))?;
        target(&url)?;
        self.databases.push(Database {
            variable: variable.into(),
            url,
        });
        Ok(self)
    }

    /// The round-trip time to every database.
    #[must_use]
    pub fn rtt(mut self, rtt: Duration) -> Self {
        self.rtt = rtt;
        self
    }

    /// Shows the function's output on standard error.
    #[must_use]
    pub fn logs(mut self, show: bool) -> Self {
        self.logs = show;
        self
    }

    /// Overrides the platform's limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// An environment without a process: its first invocation is a cold start.
    ///
    /// # Errors
    /// If a port, a process or libfaketime is not available.
    pub async fn environment(&self) -> io::Result<Environment> {
        self.numbered(0).await
    }

    /// An environment whose process is ready for its first event.
    ///
    /// # Errors
    /// If the function does not become ready.
    pub async fn start(&self) -> Result<Environment, InitFailure> {
        let environment = self.environment().await.map_err(|error| InitFailure {
            error_type: "Sandbox.Error".into(),
            message: error.to_string(),
            output: Vec::new(),
        })?;
        environment.start().await?;
        Ok(environment)
    }

    pub(crate) async fn numbered(&self, number: usize) -> io::Result<Environment> {
        self.check_platform()?;
        let wall = Arc::new(if self.wall_clock_jumps {
            WallClock::faked()?
        } else {
            WallClock::real()
        });
        let journal = Arc::new(Journal::new(self.epoch));
        let mut env = Vec::new();
        let mut proxies = Vec::new();
        for database in &self.databases {
            let target = target(&database.url).map_err(io::Error::other)?;
            let proxy = Proxy::start_with(target, self.rtt, self.limits, self.epoch).await?;
            env.push((database.variable.clone(), proxied(&database.url, &proxy)));
            proxies.push(proxy);
        }
        let blueprint = Blueprint {
            function: self.function.clone(),
            extensions: self.extensions.clone(),
            identity: Identity {
                platform: self.platform,
                memory: self.memory,
                name: self.name.clone(),
                arn: format!(
                    "arn:aws:lambda:eu-central-1:{}:function:{}",
                    crate::api::ACCOUNT,
                    self.name
                ),
                handler: "bootstrap".into(),
                timeout: self.timeout,
                concurrency: self.concurrency,
                snap_start: self.snap_start.is_some(),
                external: self.extensions.iter().map(Function::name).collect(),
            },
            env,
            snap_start: self.snap_start,
            limits: self.limits,
            log_prefix: self.logs.then(|| format!("env {number}")),
            watchdog: self.watchdog()?,
            wall,
            journal,
        };
        Ok(Environment::new(
            number,
            blueprint,
            proxies,
            self.freeze_between,
        ))
    }

    fn check_platform(&self) -> io::Result<()> {
        let only_lambdas =
            !self.extensions.is_empty() || self.snap_start.is_some() || self.concurrency > 1;
        if self.platform == Platform::Scf && only_lambdas {
            return Err(io::Error::other(
                "SCF has no extensions, no SnapStart, and one event at a time",
            ));
        }
        Ok(())
    }

    pub(crate) fn is_proxied(&self) -> bool {
        !self.databases.is_empty()
    }

    fn watchdog(&self) -> io::Result<Arc<Watchdog>> {
        let mut shared = lock(&self.watchdog);
        if let Some(watchdog) = &*shared {
            return Ok(Arc::clone(watchdog));
        }
        let watchdog = Arc::new(Watchdog::start()?);
        *shared = Some(Arc::clone(&watchdog));
        Ok(watchdog)
    }
}

/// `host:port` of a database's URL.
pub(crate) fn target(url: &Url) -> Result<String, String> {
    let port = url.port().or(match url.scheme() {
        "postgres" | "postgresql" => Some(5432),
        "mysql" | "mariadb" => Some(3306),
        "mongodb" => Some(27017),
        "redis" => Some(6379),
        _ => None,
    });
    match (url.host_str(), port) {
        (Some(host), Some(port)) if !host.is_empty() => Ok(format!("{host}:{port}")),
        _ => Err("the database's URL needs a host and a port: scheme://user@host:port/name".into()),
    }
}

/// The URL with the proxy's address. `localhost` is kept for certificates that name it.
fn proxied(url: &Url, proxy: &Proxy) -> String {
    let mut url = url.clone();
    if url.host_str() != Some("localhost") {
        // Both fail only for URLs without a host, which `target` has rejected.
        let _ = url.set_host(Some("127.0.0.1"));
    }
    let _ = url.set_port(Some(proxy.addr().port()));
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fleet::Fleet, plan::Plan};

    #[test]
    fn debug_output_shows_no_password() {
        let url = "postgres://app:hunter2@db.internal:5432/shop";
        let function = Function::new("orders").env("DB_PASSWORD", "hunter2");
        let sandbox = Sandbox::new(function)
            .database("DATABASE_URL", url)
            .expect("a URL");
        let shown = format!("{sandbox:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        for told in ["DATABASE_URL", "db.internal:5432", "DB_PASSWORD"] {
            assert!(shown.contains(told), "{shown}");
        }
        let fleet = Fleet::new(sandbox, Plan::new(1, 1)).observe(url);
        let shown = format!("{fleet:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
