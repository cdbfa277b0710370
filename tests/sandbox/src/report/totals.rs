//! The sums of a run, and the verdict.

use serde::Serialize;

use super::{EnvironmentReport, Residue, Setting};
use crate::{
    clock::millis,
    observe::Sample,
    record::{Invocation, Outcome},
};

/// The sums of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Totals {
    /// Invocations that were sent.
    pub invocations: usize,
    /// With a response that is not an error.
    pub answered: usize,
    /// With an error of the function.
    pub failed: usize,
    /// Without a response before the deadline.
    pub timed_out: usize,
    /// Whose process ended during the invocation.
    pub crashed: usize,
    /// Whose process never became ready.
    pub init_failed: usize,
    /// Never sent, because the function never came up.
    pub not_sent: usize,
    /// That had to start a process.
    pub cold: usize,
    /// Waiting times of all callers: for responses, errors and timeouts.
    pub waited: Percentiles,
    /// Waiting times for responses of warm processes.
    pub waited_warm: Percentiles,
    /// Billed for invocations, each rounded up to a millisecond.
    pub billed_ms: f64,
    /// Billed for inits.
    pub billed_init_ms: f64,
    /// The bill, in gigabyte-seconds.
    pub gigabyte_seconds: f64,
    /// Calls of the function that the platform rejected.
    pub violations: usize,
    /// The connections; `None` without a database behind a proxy.
    pub connections: Option<Connections>,
}

/// The connections of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Connections {
    /// Opened in all.
    pub opened: usize,
    /// Maximum number of open connections, as seen by the proxies.
    pub peak: usize,
    /// Maximum number of open connections, as seen by the server.
    pub peak_on_server: Option<usize>,
    /// Maximum number that one environment held open while frozen.
    pub held_over_freeze: usize,
    /// Freezes with connections held, of all freezes.
    pub freezes_holding: usize,
    /// Freezes.
    pub freezes: usize,
    /// Bytes from the function to the database.
    pub sent: u64,
    /// Bytes from the database to the function.
    pub received: u64,
    /// What was left on the server; `None` if it was not observed.
    pub residue: Option<Residue>,
}

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

/// Whether the run is good enough to deploy.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// No invocation was lost, and nothing was left on the server.
    pub ok: bool,
    /// Descriptions of the problems.
    pub problems: Vec<String>,
}

impl Totals {
    pub(super) fn new(
        setting: &Setting,
        environments: &[EnvironmentReport],
        samples: &[Sample],
        residue: Option<Residue>,
    ) -> Self {
        let all: Vec<_> = environments.iter().flat_map(|e| &e.invocations).collect();
        let count = |which: fn(&Outcome) -> bool| all.iter().filter(|i| which(&i.outcome)).count();
        let waited = |which: fn(&Invocation) -> bool| {
            Percentiles::of(
                all.iter()
                    .filter(|i| which(i))
                    .map(|i| millis(i.waited))
                    .collect(),
            )
        };
        let billed_ms = all.iter().map(|i| millis(i.billed).ceil()).sum();
        let billed_init_ms = environments.iter().map(|e| e.billed_init_ms.ceil()).sum();
        let gigabytes = f64::from(setting.memory_mb) / 1024.0;
        Self {
            invocations: all.len(),
            answered: count(|o| matches!(o, Outcome::Answered { .. })),
            failed: count(|o| matches!(o, Outcome::Failed { .. })),
            timed_out: count(|o| matches!(o, Outcome::TimedOut)),
            crashed: count(|o| matches!(o, Outcome::Crashed { .. })),
            init_failed: count(|o| matches!(o, Outcome::InitFailed(_))),
            not_sent: setting.invocations.saturating_sub(all.len()),
            cold: all.iter().filter(|i| i.cold).count(),
            waited: waited(|_| true),
            waited_warm: waited(|i| i.is_answered() && !i.cold),
            billed_ms,
            billed_init_ms,
            gigabyte_seconds: (billed_ms + billed_init_ms) / 1000.0 * gigabytes,
            violations: environments.iter().map(|e| e.violations.len()).sum(),
            connections: setting
                .proxied
                .then(|| Connections::new(environments, samples, residue)),
        }
    }
}

impl Connections {
    fn new(
        environments: &[EnvironmentReport],
        samples: &[Sample],
        residue: Option<Residue>,
    ) -> Self {
        let records = || environments.iter().flat_map(|e| &e.connections);
        let freezes = || environments.iter().flat_map(|e| &e.freezes);
        Self {
            opened: records().count(),
            peak: open_over_time(environments)
                .into_iter()
                .map(|(_, open)| open)
                .max()
                .unwrap_or(0),
            peak_on_server: samples.iter().map(|sample| sample.connections).max(),
            held_over_freeze: freezes().map(|freeze| freeze.held).max().unwrap_or(0),
            freezes_holding: freezes().filter(|freeze| freeze.held > 0).count(),
            freezes: freezes().count(),
            sent: records().map(|record| record.sent).sum(),
            received: records().map(|record| record.received).sum(),
            residue,
        }
    }
}

/// The number of open connections over time, exactly as the proxies recorded it.
pub(super) fn open_over_time(environments: &[EnvironmentReport]) -> Vec<(f64, usize)> {
    let records = environments.iter().flat_map(|e| &e.connections);
    let mut steps: Vec<(f64, bool)> = records
        .flat_map(|record| {
            let closed = record.closed.map(|at| (at, false));
            std::iter::once((record.opened, true)).chain(closed)
        })
        .collect();
    steps.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut open = 0_usize;
    let mut line = Vec::with_capacity(steps.len());
    for (at, opened) in steps {
        open = if opened {
            open + 1
        } else {
            open.saturating_sub(1)
        };
        line.push((at, open));
    }
    line
}

impl Percentiles {
    /// Nearest rank, so that the result is a measured value.
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let rank = |percent: usize| {
            let rank = (values.len() * percent).div_ceil(100).saturating_sub(1);
            values.get(rank).copied().unwrap_or_default()
        };
        Self {
            p50: rank(50),
            p99: rank(99),
            max: rank(100),
        }
    }
}

impl Verdict {
    pub(super) fn new(totals: &Totals) -> Self {
        let mut problems = Vec::new();
        let mut note = |count: usize, what: &str| {
            if count > 0 {
                problems.push(format!("{count} {what}"));
            }
        };
        note(totals.failed, "failed");
        note(totals.timed_out, "timed out");
        note(totals.crashed, "crashed");
        note(totals.init_failed, "never became ready");
        note(totals.not_sent, "not sent");
        note(totals.violations, "calls that the Runtime API refused");
        if let Some(residue) = totals.connections.as_ref().and_then(|c| c.residue.as_ref()) {
            note(residue.connections, "connections left behind on the server");
            note(residue.running, "queries still running on the server");
            if let Some(problem) = &residue.problem {
                problems.push(format!("what is left behind could not be seen: {problem}"));
            }
        }
        Self {
            ok: problems.is_empty(),
            problems,
        }
    }
}
