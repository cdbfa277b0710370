//! The tables, as markdown.

mod traces;

pub(super) use traces::Spent;

use std::fmt::Write;

use super::{Results, chart::short, goals};
use crate::{
    contender::{self, By, CONTENDERS, FLOOR, FRESH_FLOOR, GUIDE, Kind},
    record::{Builds, Burst, Cold, Dark, DarkRun, Instructions, Latency, Race},
    stats::{median, percentile},
};

/// Lines of markdown.
struct Page(String);

impl Page {
    fn line(&mut self, line: impl AsRef<str>) {
        self.0.push_str(line.as_ref());
        self.0.push('\n');
    }

    fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.0.push('|');
        for cell in cells {
            // Writing to a string does not fail.
            let _ = write!(self.0, " {} |", cell.as_ref().replace('|', "\\|"));
        }
        self.0.push('\n');
    }

    fn head<S: AsRef<str>>(&mut self, cells: &[S]) {
        self.row(cells);
        self.row(cells.iter().map(|_| "---"));
    }
}

pub(super) fn all(results: &Results) -> String {
    let mut page = Page(String::new());
    page.line("# Results");
    page.line("");
    page.line("Written by `tests/benchmarks/run`; its README says how to read this. Times are milliseconds.");
    let quick = results.latencies.iter().any(|latency| latency.quick);
    if quick {
        page.line("");
        page.line("**A quick run**: few samples. Ratios within a table mean something, its p99 hardly anything.");
    }
    goals_of(&mut page, results);
    for latency in &results.latencies {
        latencies(&mut page, latency);
    }
    if let Some(burst) = &results.burst {
        burst_of(&mut page, burst);
    }
    if let Some(dark) = &results.dark {
        dark_of(&mut page, dark);
    }
    if let Some(cold) = &results.cold {
        cold_of(&mut page, cold);
    }
    if let Some(builds) = &results.builds {
        builds_of(&mut page, builds);
    }
    if let Some(instructions) = &results.instructions {
        instructions_of(&mut page, instructions);
    }
    if let Some(traces) = &results.traces {
        traces::of(&mut page, traces);
    }
    page.0
}

fn goals_of(page: &mut Page, results: &Results) {
    let verdicts = goals::verdicts(results);
    if verdicts.is_empty() {
        return;
    }
    page.line("\n## Goals\n");
    page.line("Ratios of medians, 1 ms round trip.\n");
    page.head(&["goal", "at most", "measured", ""]);
    for verdict in verdicts {
        let met = if verdict.is_met() {
            "met"
        } else {
            "**missed**"
        };
        page.row([
            verdict.what.clone(),
            format!("{:.2} x", verdict.at_most),
            format!("{:.2} x", verdict.measured),
            met.into(),
        ]);
    }
}

fn latencies(page: &mut Page, latency: &Latency) {
    let mut done = Vec::new();
    for first in &latency.races {
        if done.contains(&(first.link, first.kind)) {
            continue;
        }
        done.push((first.link, first.kind));
        let races: Vec<&Race> = latency
            .races
            .iter()
            .filter(|race| race.link == first.link && race.kind == first.kind)
            .collect();
        let kept = first.kind == Kind::Kept;
        let kind = if kept {
            "connection kept"
        } else {
            "connection opened in every invocation"
        };
        let _ = writeln!(page.0, "\n## {}, {}, {kind}\n", latency.product, first.link);
        race_table(
            page,
            &races,
            if kept {
                &[(FLOOR, "floor")]
            } else {
                &[(FRESH_FLOOR, "raw, no delay"), (GUIDE, "Sequelize")]
            },
        );
    }
}

fn race_table(page: &mut Page, races: &[&Race], references: &[(&str, &str)]) {
    let mut head = vec!["p50 / p95 / p99 (x: ratio of the p50s to ...)".to_owned()];
    for race in races {
        head.push(format!("K = {}", race.queries));
        head.extend(references.iter().map(|(_, name)| format!("x {name}")));
    }
    head.extend([
        "after the answer".to_owned(),
        "samples".to_owned(),
        "failed".to_owned(),
    ]);
    page.head(&head);
    for contender in CONTENDERS {
        if !races
            .iter()
            .any(|race| race.samples.contains_key(contender.name))
        {
            continue;
        }
        let mut cells = vec![if contender.by == By::Ours {
            format!("**{}**", contender.label)
        } else {
            contender.label.to_owned()
        }];
        let (mut count, mut failed, mut after) = (0, 0, Vec::new());
        for race in races {
            let samples = race.samples.get(contender.name);
            let times = samples.map_or(&[][..], |samples| &samples.caller_ms);
            if let Some(samples) = samples {
                count += times.len();
                failed += samples.failures.len();
                after.extend(samples.after_ms.iter().copied());
            }
            let at = |share| percentile(times, share).map_or_else(|| "-".into(), short);
            cells.push(format!("{} / {} / {}", at(0.5), at(0.95), at(0.99)));
            for (reference, _) in references {
                let than = race
                    .samples
                    .get(*reference)
                    .and_then(|samples| median(&samples.caller_ms));
                let ratio = median(times).zip(than).map(|(ours, theirs)| ours / theirs);
                cells.push(ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}")));
            }
        }
        cells.push(median(&after).map_or_else(|| "-".into(), short));
        cells.extend([count.to_string(), failed.to_string()]);
        page.row(&cells);
    }
}

fn label(name: &str) -> &str {
    contender::named(name).map_or(name, |contender| contender.label)
}

fn burst_of(page: &mut Page, burst: &Burst) {
    let _ = writeln!(
        page.0,
        "\n## Burst\n\nAll environments called at once, {} times, against {} connections; the server holds the first query of each for {} ms. *Kept*: the most connections that were open between two rounds.\n",
        burst.rounds, burst.connections, burst.hold_ms
    );
    page.head(&[
        "",
        "server",
        "environments",
        "queries",
        "answered",
        "failed",
        "p50",
        "p99",
        "max",
        "kept",
        "why",
    ]);
    for run in &burst.runs {
        let all: Vec<f64> = run
            .caller_ms
            .iter()
            .chain(&run.failed_ms)
            .copied()
            .collect();
        let at = |share| percentile(&all, share).map_or_else(|| "-".into(), short);
        let why: Vec<String> = run
            .failures
            .iter()
            .map(|(words, count)| format!("{count} x {words}"))
            .collect();
        page.row([
            label(&run.contender).to_owned(),
            run.product.to_string(),
            run.environments.to_string(),
            run.queries.to_string(),
            run.caller_ms.len().to_string(),
            run.failed_ms.len().to_string(),
            at(0.5),
            at(0.99),
            at(1.0),
            run.kept
                .iter()
                .max()
                .map_or_else(|| "-".into(), usize::to_string),
            why.join("; "),
        ]);
    }
}

fn dark_of(page: &mut Page, dark: &Dark) {
    let _ = writeln!(
        page.0,
        "\n## Dark connection\n\nThe network forgets the connection during the freeze. Function timeout {} ms.\n",
        dark.timeout_ms
    );
    page.head(&[
        "",
        "server",
        "frozen for",
        "answered",
        "p50",
        "max",
        "what the others said",
        "the next one answered",
        "never again, so restarted",
    ]);
    for run in &dark.runs {
        let waits: Vec<f64> = run.dead.iter().map(|outcome| outcome.caller_ms).collect();
        let at = |share| percentile(&waits, share).map_or_else(|| "-".into(), short);
        page.row([
            label(&run.contender).to_owned(),
            run.product.to_string(),
            short(run.frozen_ms),
            answered(&run.dead),
            at(0.5),
            at(1.0),
            complaint(run),
            answered(&run.next),
            run.restarts.to_string(),
        ]);
    }
}

fn answered(outcomes: &[crate::record::Outcome]) -> String {
    let answered = outcomes.iter().filter(|outcome| outcome.answered).count();
    format!("{answered} of {}", outcomes.len())
}

fn complaint(run: &DarkRun) -> String {
    let failed = run.dead.iter().find(|outcome| !outcome.answered);
    failed.map_or_else(String::new, |outcome| outcome.words.clone())
}

fn cold_of(page: &mut Page, cold: &Cold) {
    page.line("\n## Cold start\n");
    page.head(&[
        "",
        "binary, KB",
        "to the first poll, p50 / p95",
        "first answer after that, p50 / p95",
        "both, x hand-written",
    ]);
    let both = |name: &str| {
        let starts = cold.programs.get(name)?;
        Some(median(&starts.ready_ms)? + median(&starts.first_ms)?)
    };
    for (name, starts) in &cold.programs {
        let pair = |samples: &[f64]| {
            let at = |share| percentile(samples, share).map_or_else(|| "-".into(), short);
            format!("{} / {}", at(0.5), at(0.95))
        };
        let ratio = both(name)
            .zip(both("cold-handwritten"))
            .map(|(ours, theirs)| ours / theirs);
        page.row([
            label(name).to_owned(),
            starts
                .bytes
                .map_or_else(|| "-".into(), |bytes| (bytes / 1024).to_string()),
            pair(&starts.ready_ms),
            pair(&starts.first_ms),
            ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}")),
        ]);
    }
}

fn builds_of(page: &mut Page, builds: &Builds) {
    page.line("\n## Clean release build\n");
    page.head(&["", "wall clock, s", "CPU, s", "crates"]);
    for build in &builds.builds {
        page.row([
            build.program.clone(),
            format!("{:.1}", build.wall_s),
            format!("{:.1}", build.cpu_s),
            build.crates.to_string(),
        ]);
    }
}

fn instructions_of(page: &mut Page, instructions: &Instructions) {
    page.line("\n## Instructions\n");
    page.line("Counted by callgrind, for one invocation (or one opening of a connection).\n");
    page.head(&["", "instructions", "limit", "where most of them are"]);
    for (name, count) in &instructions.counts {
        let hottest: Vec<String> = count
            .hottest
            .iter()
            .map(|(function, share)| format!("{:.0} % {function}", share * 100.0))
            .collect();
        page.row([
            format!("`{name}`"),
            format!("{:.0}", count.instructions),
            if count.limit > 0.0 {
                format!("{:.0}", count.limit)
            } else {
                "-".into()
            },
            hottest.join("; "),
        ]);
    }
}
