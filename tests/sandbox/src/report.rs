//! What a run amounts to: everything that happened, and the sums.

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
    /// What was run, and how.
    pub setting: Setting,
    /// How long it took.
    pub duration_ms: f64,
    /// Each environment's part.
    pub environments: Vec<EnvironmentReport>,
    /// What the server saw.
    pub samples: Vec<Sample>,
    /// The sums.
    pub totals: Totals,
    /// Whether anything was lost or left behind.
    pub verdict: Verdict,
}

/// What was run, and how.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Environments side by side.
    pub environments: usize,
    /// Invocations asked for, in all.
    pub invocations: usize,
    /// Invocations at once in one process.
    pub concurrency: usize,
    /// The time limit of an invocation.
    pub timeout_ms: f64,
    /// The memory that the function was told it has.
    pub memory_mb: u32,
    /// How long each freeze was.
    pub freeze_ms: f64,
    /// How far the wall clock jumped in each freeze.
    pub jump_ms: f64,
    /// The round-trip time to the database.
    pub rtt_ms: f64,
    /// Every n-th freeze the network forgot the open connections.
    pub dark_every: Option<usize>,
    /// What else was planned.
    pub faults: Vec<String>,
    /// Whether the function reached its databases through a proxy.
    pub proxied: bool,
}

/// One environment's part.
#[derive(Clone, Debug, Serialize)]
pub struct EnvironmentReport {
    /// Its number, from 0.
    pub number: usize,
    /// How many processes it had.
    pub starts: u32,
    /// What its inits cost.
    pub billed_init_ms: f64,
    /// Its inits, freezes and shutdown.
    pub phases: Vec<Phase>,
    /// Its invocations.
    pub invocations: Vec<Invocation>,
    /// Its freezes, and what it held open in them.
    pub freezes: Vec<FreezeNote>,
    /// Its connections to every database.
    pub connections: Vec<ConnectionRecord>,
    /// What it should not have sent.
    pub violations: Vec<Violation>,
    /// How its last process ended.
    pub ended: Option<Ended>,
}

/// A freeze, and the living connections that stood through it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FreezeNote {
    /// When it began.
    pub at: f64,
    /// Its number in the environment, from 1.
    pub number: usize,
    /// Connections that were open when it began, without those that the function had closed by then.
    pub held: usize,
}

/// What was on the server when the last process had ended.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Residue {
    /// Connections.
    pub connections: usize,
    /// Of these, with a query still running.
    pub running: usize,
    /// Connections that only the dark network keeps open: no function can help it.
    pub hidden: usize,
    /// Why it could not be found out.
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
    /// Taken when the network has settled: only then are the connections' ends known.
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

    /// One self-contained page with the pictures.
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
