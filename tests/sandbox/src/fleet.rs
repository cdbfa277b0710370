//! Concurrent environments that follow a plan.

use std::{
    collections::HashSet,
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::task::JoinSet;

use crate::{
    environment::Environment,
    life::Ended,
    observe::Observer,
    plan::{Moment, Plan},
    proxy::Proxy,
    record::{InitFailure, Invocation, Outcome},
    report::{EnvironmentReport, FreezeNote, Report, Residue, Setting},
    sandbox::Sandbox,
};

/// Why a run could not take place.
#[derive(Debug)]
#[non_exhaustive]
pub enum RunError {
    /// No process of the function ever became ready.
    NeverReady(InitFailure),
    /// The machine could not provide a port, a process or a file.
    Io(io::Error),
    /// The database cannot be observed.
    Observer(String),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverReady(failure) => write!(f, "the function never became ready: {failure}"),
            Self::Io(error) => error.fmt(f),
            Self::Observer(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for RunError {}

impl From<io::Error> for RunError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A simulator and a plan.
pub struct Fleet {
    sandbox: Sandbox,
    plan: Plan,
    observe: Option<String>,
}

/// Omits the URL of the server, which contains a password.
impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet")
            .field("sandbox", &self.sandbox)
            .field("plan", &self.plan)
            .field("is_observed", &self.observe.is_some())
            .finish()
    }
}

/// The results of one environment.
struct Return {
    environment: Arc<Environment>,
    invocations: Vec<Invocation>,
    freezes: Vec<FreezeNote>,
    ended: Option<Ended>,
}

/// Shared state of the environments' tasks.
struct Common {
    plan: Plan,
    concurrency: usize,
    freezes: bool,
    /// Whether any process ever became ready: if none does, the run is aborted.
    up: AtomicBool,
    hopeless: AtomicBool,
}

impl Fleet {
    /// A fleet of environments of this simulator.
    #[must_use]
    pub fn new(sandbox: Sandbox, plan: Plan) -> Self {
        Self {
            sandbox,
            plan,
            observe: None,
        }
    }

    /// Observes the server during the run (PostgreSQL and MySQL/MariaDB).
    #[must_use]
    pub fn observe(mut self, url: impl Into<String>) -> Self {
        self.observe = Some(url.into());
        self
    }

    /// Runs the plan; `progress` is called with every invocation as it ends.
    ///
    /// # Errors
    /// If the run cannot take place at all. Failures during the run are in the report.
    pub async fn run(
        self,
        progress: impl Fn(&Invocation) + Send + Sync + 'static,
    ) -> Result<Report, RunError> {
        if !self.plan.jump.is_zero() && !self.sandbox.wall_clock_jumps {
            let message = "a plan with a jump needs `Sandbox::wall_clock_jumps(true)`";
            return Err(io::Error::new(io::ErrorKind::Unsupported, message).into());
        }
        let began = Instant::now();
        let mut environments = Vec::new();
        for number in 0..self.plan.environments {
            environments.push(Arc::new(self.sandbox.numbered(number).await?));
        }
        let observer = self.observer(&environments).await?;
        let setting = Setting::new(&self.sandbox, &self.plan);
        let common = Arc::new(Common {
            concurrency: self.sandbox.concurrency,
            freezes: self.sandbox.freeze_between || !self.plan.freeze.is_zero(),
            plan: self.plan,
            up: AtomicBool::new(false),
            hopeless: AtomicBool::new(false),
        });
        let progress = Arc::new(progress);
        let mut tasks = JoinSet::new();
        for environment in &environments {
            let (environment, common) = (Arc::clone(environment), Arc::clone(&common));
            let progress = Arc::clone(&progress);
            tasks.spawn(async move { drive(environment, &common, &*progress).await });
        }
        let mut returns = Vec::new();
        while let Some(joined) = tasks.join_next().await {
            // A panic in a task is a bug: it is returned here, and `Drop` ends the children.
            returns.push(joined.map_err(io::Error::other)?);
        }
        returns.sort_by_key(|home| home.environment.number());
        if !common.up.load(Ordering::SeqCst) {
            let failure = returns.iter().flat_map(|home| &home.invocations);
            let mut failure = failure.filter_map(|invocation| match &invocation.outcome {
                Outcome::InitFailed(failure) => Some(failure.clone()),
                _ => None,
            });
            if let Some(failure) = failure.next() {
                return Err(RunError::NeverReady(failure));
            }
        }
        settled(&returns, self.sandbox.limits.drain).await;
        let residue = residue(observer.as_ref(), &returns).await;
        let samples = observer
            .map(|observer| observer.samples())
            .unwrap_or_default();
        let mut reports = Vec::new();
        for Return {
            environment,
            invocations,
            freezes,
            ended,
        } in returns
        {
            reports.push(EnvironmentReport::new(&environment, invocations, freezes, ended).await);
        }
        Ok(Report::new(
            setting,
            began.elapsed(),
            reports,
            samples,
            residue,
        ))
    }

    async fn observer(&self, fleet: &[Arc<Environment>]) -> Result<Option<Observer>, RunError> {
        let Some(url) = &self.observe else {
            return Ok(None);
        };
        // Weak: the observer must not keep the proxies alive.
        let fleet: Vec<_> = fleet.iter().map(Arc::downgrade).collect();
        let ports = move || -> HashSet<u16> {
            let fleet = fleet.iter().filter_map(std::sync::Weak::upgrade);
            fleet
                .flat_map(|environment| all_ports(&environment))
                .collect()
        };
        let (limits, epoch) = (self.sandbox.limits, self.sandbox.epoch);
        let observer = Observer::start(url, Arc::new(ports), limits, epoch).await;
        observer.map(Some).map_err(RunError::Observer)
    }
}

fn all_ports(environment: &Environment) -> HashSet<u16> {
    let networks = environment.networks().iter();
    networks
        .flat_map(|proxy| proxy.ports(true).into_iter().chain(proxy.ports(false)))
        .collect()
}

/// Waits until the proxies have seen the ends of the processes.
async fn settled(returns: &[Return], limit: Duration) {
    let until = Instant::now() + limit;
    let open = |proxy: &Proxy| proxy.stats().open > proxy.stats().dark;
    while returns
        .iter()
        .any(|home| home.environment.networks().iter().any(open))
    {
        if Instant::now() >= until {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What is left on the server after the last process, without connections that the dark network hides.
async fn residue(observer: Option<&Observer>, returns: &[Return]) -> Option<Residue> {
    let observer = observer?;
    let ports = |dark: bool| -> HashSet<u16> {
        let networks = returns.iter().flat_map(|home| home.environment.networks());
        networks.flat_map(|proxy| proxy.ports(dark)).collect()
    };
    let left = observer.left_behind(&ports(false)).await;
    let hidden = observer.left_behind_now(&ports(true)).await;
    match (left, hidden) {
        (Ok(left), Ok(hidden)) => Some(Residue {
            connections: left.len(),
            running: left.iter().filter(|session| session.is_running()).count(),
            hidden: hidden.len(),
            problem: None,
        }),
        (Err(problem), _) | (_, Err(problem)) => Some(Residue {
            problem: Some(problem),
            ..Residue::default()
        }),
    }
}

/// One environment's part of the plan, to its shutdown.
async fn drive(
    environment: Arc<Environment>,
    common: &Common,
    progress: &(impl Fn(&Invocation) + Send + Sync),
) -> Return {
    let share = common.plan.share(environment.number());
    let next = AtomicUsize::new(0);
    let mut lanes: FuturesUnordered<_> = (0..common.concurrency.min(share))
        .map(|_| lane(&environment, common, &next, share, progress))
        .collect();
    let (mut invocations, mut freezes) = (Vec::new(), Vec::new());
    while let Some((done, frozen)) = lanes.next().await {
        invocations.extend(done);
        freezes.extend(frozen);
    }
    drop(lanes);
    invocations.sort_by_key(|invocation: &Invocation| invocation.number);
    let ended = environment.shutdown().await;
    Return {
        environment,
        invocations,
        freezes,
        ended,
    }
}

/// One caller, with sequential invocations.
async fn lane(
    environment: &Environment,
    common: &Common,
    next: &AtomicUsize,
    share: usize,
    progress: &(impl Fn(&Invocation) + Send + Sync),
) -> (Vec<Invocation>, Vec<FreezeNote>) {
    let plan = &common.plan;
    let (mut invocations, mut freezes) = (Vec::new(), Vec::new());
    loop {
        let turn = next.fetch_add(1, Ordering::SeqCst);
        if turn >= share || common.hopeless.load(Ordering::SeqCst) {
            return (invocations, freezes);
        }
        let event = plan.event(turn * plan.environments + environment.number());
        let happening = happen(environment, plan, Moment::Invocation(turn + 1));
        let (invocation, ()) = tokio::join!(environment.invoke(event), happening);
        progress(&invocation);
        let ready = !matches!(invocation.outcome, Outcome::InitFailed(_));
        if ready {
            common.up.store(true, Ordering::SeqCst);
        } else if !common.up.load(Ordering::SeqCst) {
            common.hopeless.store(true, Ordering::SeqCst);
        }
        invocations.push(invocation);
        if turn + 1 < share && common.freezes {
            freezes.extend(stand_still(environment, plan, turn + 1).await);
        }
    }
}

/// The freeze after the n-th invocation, with its incidents.
async fn stand_still(environment: &Environment, plan: &Plan, n: usize) -> Option<FreezeNote> {
    let frozen = environment.freeze().await;
    let until = Instant::now() + plan.freeze;
    let at = environment.now_ms();
    let alive: Vec<_> = environment.networks().iter().map(Proxy::alive).collect();
    happen(environment, plan, Moment::Freeze(n)).await;
    if !plan.jump.is_zero() {
        // The simulator was built with a clock that can jump.
        let _ = environment.jump(plan.jump);
    }
    tokio::time::sleep_until(until.into()).await;
    // A frozen process closes nothing: connections that end now were closed before.
    let held = environment
        .networks()
        .iter()
        .zip(&alive)
        .map(|(proxy, alive)| proxy.not_let_go(alive))
        .sum();
    happen(environment, plan, Moment::Thaw(n)).await;
    frozen.then_some(FreezeNote {
        at,
        number: n,
        held,
    })
}

async fn happen(environment: &Environment, plan: &Plan, moment: Moment) {
    let began = Instant::now();
    let mut incidents = plan.incidents(environment.number(), moment);
    incidents.sort_by_key(|(delay, _)| *delay);
    for (delay, fault) in incidents {
        if delay > Duration::ZERO {
            tokio::time::sleep_until((began + delay).into()).await;
        }
        environment.apply(fault);
    }
}
