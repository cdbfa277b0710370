//! The summary table for a terminal.

use std::fmt::Write;

use super::{Report, Residue};

pub(super) fn render(report: &Report) -> String {
    let mut table = String::new();
    for (name, value) in rows(report) {
        // Writing to a string cannot fail.
        let _ = writeln!(table, "{name:>20}  {value}");
    }
    table
}

/// The rows, for the page as well.
pub(super) fn rows(report: &Report) -> Vec<(&'static str, String)> {
    let totals = &report.totals;
    let mut rows = vec![
        (
            "invocations",
            format!(
                "{} in {}",
                totals.invocations,
                counted(report.environments.len(), "environment")
            ),
        ),
        ("answered", totals.answered.to_string()),
        ("failed", totals.failed.to_string()),
        ("timed out", totals.timed_out.to_string()),
    ];
    let mut when = |name, count: usize| {
        if count > 0 {
            rows.push((name, count.to_string()));
        }
    };
    when("crashed", totals.crashed);
    when("never became ready", totals.init_failed);
    when("not sent", totals.not_sent);
    when("refused API calls", totals.violations);
    rows.push(("cold starts", totals.cold.to_string()));
    let (all, warm) = (&totals.waited, &totals.waited_warm);
    rows.push((
        "the caller waited",
        format!(
            "p50 {}   p99 {}   max {}",
            ms(all.p50),
            ms(all.p99),
            ms(all.max)
        ),
    ));
    if totals.waited_warm.max > 0.0 {
        rows.push((
            "warm, answered",
            format!(
                "p50 {}   p99 {}   max {}",
                ms(warm.p50),
                ms(warm.p99),
                ms(warm.max)
            ),
        ));
    }
    rows.push((
        "billed",
        format!(
            "{:.0} ms + {:.0} ms init = {:.3} GB-s",
            totals.billed_ms, totals.billed_init_ms, totals.gigabyte_seconds
        ),
    ));
    if let Some(connections) = &totals.connections {
        rows.push(("connections opened", connections.opened.to_string()));
        let server = connections.peak_on_server;
        let server =
            server.map_or_else(String::new, |peak| format!(" ({peak} seen on the server)"));
        rows.push(("peak", format!("{}{server}", connections.peak)));
        rows.push((
            "held over a freeze",
            format!(
                "up to {} per environment, in {} of {} freezes",
                connections.held_over_freeze, connections.freezes_holding, connections.freezes
            ),
        ));
        let left = connections
            .residue
            .as_ref()
            .map_or_else(|| "not observed".into(), left_behind);
        rows.push(("left behind", left));
    }
    rows
}

fn left_behind(residue: &Residue) -> String {
    if let Some(problem) = &residue.problem {
        return format!("unknown: {problem}");
    }
    let mut text = residue.connections.to_string();
    if residue.running > 0 {
        let _ = write!(text, ", {} with a running query", residue.running);
    }
    if residue.hidden > 0 {
        let _ = write!(
            text,
            " (and {} that only the dark network keeps open)",
            residue.hidden
        );
    }
    text
}

/// `1 environment`, `2 environments`.
pub(super) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A time that is easy to read: `3.42 ms`, `12.3 s`.
pub(super) fn ms(value: f64) -> String {
    match value {
        v if v >= 10_000.0 => format!("{:.1} s", v / 1000.0),
        v if v >= 1000.0 => format!("{:.2} s", v / 1000.0),
        v if v >= 100.0 => format!("{v:.0} ms"),
        v if v >= 10.0 => format!("{v:.1} ms"),
        v => format!("{v:.2} ms"),
    }
}
