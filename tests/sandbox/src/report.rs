//! The report of a run: all events and the totals.

mod html;
mod svg;
mod table;
mod totals;

use std::time::Duration;

use serde::Serialize;

pub use self::totals::{Connections, Percentiles, Totals, Verdict};
use crate::{
    clock::millis,
    environment::Environment,
    life::Ended,
    observe::Sample,
    plan::Plan,
    proxy::ConnectionRecord,
    record::{Invocation, Phase, Violation},
    sandbox::Sandbox,
};

/// The record of a run. All times are in milliseconds, counted from its start.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The configuration of the run.
    pub setting: Setting,
    /// The duration of the run.
    pub duration_ms: f64,
    /// The records of each environment.
    pub environments: Vec<EnvironmentReport>,
    /// Observations on the server.
    pub samples: Vec<Sample>,
    /// The totals.
    pub totals: Totals,
    /// Whether anything was lost or left on the server.
    pub verdict: Verdict,
}

/// The configuration of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Number of concurrent environments.
    pub environments: usize,
    /// Total number of requested invocations.
    pub invocations: usize,
    /// Concurrent invocations in one process.
    pub concurrency: usize,
    /// The time limit of an invocation.
    pub timeout_ms: f64,
    /// The memory size that was reported to the function.
    pub memory_mb: u32,
    /// The length of each freeze.
    pub freeze_ms: f64,
    /// The jump of the wall clock in each freeze.
    pub jump_ms: f64,
    /// The round-trip time to the database.
    pub rtt_ms: f64,
    /// The open connections went dark in every n-th freeze.
    pub dark_every: Option<usize>,
    /// Other planned incidents.
    pub faults: Vec<String>,
    /// Whether the function reached its databases through a proxy.
    pub proxied: bool,
}

/// The records of one environment.
#[derive(Clone, Debug, Serialize)]
pub struct EnvironmentReport {
    /// Its number, from 0.
    pub number: usize,
    /// The number of its processes.
    pub starts: u32,
    /// The billed time of its inits.
    pub billed_init_ms: f64,
    /// Its inits, freezes and shutdown.
    pub phases: Vec<Phase>,
    /// Its invocations.
    pub invocations: Vec<Invocation>,
    /// Its freezes, and the connections held open in them.
    pub freezes: Vec<FreezeNote>,
    /// Its connections to every database.
    pub connections: Vec<ConnectionRecord>,
    /// Its violations of the protocol.
    pub violations: Vec<Violation>,
    /// How its last process ended.
    pub ended: Option<Ended>,
}

/// A freeze, and the open connections during it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FreezeNote {
    /// When it began.
    pub at: f64,
    /// Its number in the environment, from 1.
    pub number: usize,
    /// Connections that were open when it began, without those that the function had closed by then.
    pub held: usize,
}

/// What was left on the server after the last process.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Residue {
    /// Connections.
    pub connections: usize,
    /// Of these, with a query still running.
    pub running: usize,
    /// Connections that only the dark network keeps open, which no function can close.
    pub hidden: usize,
    /// Why it could not be determined.
    pub problem: Option<String>,
}

impl Setting {
    pub(crate) fn new(sandbox: &Sandbox, plan: &Plan) -> Self {
        let function = &sandbox.function;
        let program = function.program.display().to_string();
        let args = function
            .args
            .iter()
            .map(|arg| arg.to_string_lossy().into_owned());
        Self {
            command: std::iter::once(program).chain(args).collect(),
            environments: plan.environments,
            invocations: plan.invocations,
            concurrency: sandbox.concurrency,
            timeout_ms: millis(sandbox.timeout),
            memory_mb: sandbox.memory,
            freeze_ms: millis(plan.freeze),
            jump_ms: millis(plan.jump),
            rtt_ms: millis(sandbox.rtt),
            dark_every: plan.dark_every,
            faults: plan.faults.iter().map(ToString::to_string).collect(),
            proxied: sandbox.is_proxied(),
        }
    }
}

impl EnvironmentReport {
    /// Called when the network is quiet: only then are the ends of all connections known.
    pub(crate) async fn new(
        environment: &Environment,
        invocations: Vec<Invocation>,
        freezes: Vec<FreezeNote>,
        ended: Option<Ended>,
    ) -> Self {
        let networks = environment.networks().iter();
        Self {
            number: environment.number(),
            starts: environment.starts(),
            billed_init_ms: millis(environment.billed_init()),
            phases: environment.phases(),
            invocations,
            freezes,
            connections: networks
                .flat_map(super::proxy::Proxy::connections)
                .collect(),
            violations: environment.violations().await,
            ended,
        }
    }
}

impl Report {
    pub(crate) fn new(
        setting: Setting,
        duration: Duration,
        environments: Vec<EnvironmentReport>,
        samples: Vec<Sample>,
        residue: Option<Residue>,
    ) -> Self {
        let totals = Totals::new(&setting, &environments, &samples, residue);
        let verdict = Verdict::new(&totals);
        let duration_ms = millis(duration);
        Self {
            setting,
            duration_ms,
            environments,
            samples,
            totals,
            verdict,
        }
    }

    /// The summary for a terminal.
    #[must_use]
    pub fn table(&self) -> String {
        table::render(self)
    }

    /// One self-contained page with charts.
    #[must_use]
    pub fn html(&self) -> String {
        html::render(self)
    }

    /// Every invocation of every environment.
    pub fn invocations(&self) -> impl Iterator<Item = &Invocation> {
        self.environments
            .iter()
            .flat_map(|environment| &environment.invocations)
    }
}
