//! Which plots there are.

use std::collections::BTreeMap;

use super::{
    Results,
    chart::{BLUE, Bar, Chart, GREEN, GREY, ORANGE, PALE, Panel, Part, RED, short},
};
use crate::{
    bed::{Link, Product},
    contender::{self, By, CONTENDERS, Contender, Kind},
    record::{Burst, BurstRun, Dark, DarkRun, Latency, Race, Trace, Traces},
    stats::{median, percentile},
};

/// What the attribute calls `trust_ms`, in seconds: a connection that rested for less is not asked.
const TRUST_S: f64 = 1.0;
/// The links that plots show; the tables have all.
const SHOWN_RTT_MS: f64 = 1.0;

const WHO: [(&str, &str); 3] = [
    (BLUE, "db-handler"),
    (GREY, "sqlx by hand"),
    (ORANGE, "Node"),
];

/// Every plot, with the name of its file.
pub(super) fn all(results: &Results) -> Vec<(String, String)> {
    let mut plots = Vec::new();
    for latency in &results.latencies {
        for kind in [Kind::Kept, Kind::Fresh] {
            if let Some(chart) = latencies(latency, kind) {
                let kind = if kind == Kind::Kept { "kept" } else { "fresh" };
                plots.push((format!("{}-{kind}", latency.product.name()), chart.draw()));
            }
        }
    }
    for product in [Product::Postgres, Product::MariaDb] {
        let name = product.name();
        if let Some(chart) = results
            .burst
            .as_ref()
            .and_then(|burst| burst_of(burst, product))
        {
            plots.push((format!("burst-{name}"), chart.draw()));
        }
        if let Some(chart) = results
            .dark
            .as_ref()
            .and_then(|dark| dark_of(dark, product))
        {
            plots.push((format!("dark-{name}"), chart.draw()));
        }
        if let Some(chart) = results
            .traces
            .as_ref()
            .and_then(|traces| anatomy(traces, product))
        {
            plots.push((format!("anatomy-{name}"), chart.draw()));
        }
    }
    plots
}

fn colour(contender: &Contender) -> &'static str {
    match contender.by {
        By::Ours => BLUE,
        By::Hand => GREY,
        By::Peer => ORANGE,
    }
}

fn row(contender: &Contender) -> (String, bool) {
    (contender.label.to_owned(), contender.by == By::Ours)
}

fn latencies(latency: &Latency, kind: Kind) -> Option<Chart> {
    let shown = |race: &&Race| {
        race.kind == kind
            && (race.link.rtt_ms - SHOWN_RTT_MS).abs() < f64::EPSILON
            && [1, 4].contains(&race.queries)
    };
    let mut races: Vec<&Race> = latency.races.iter().filter(shown).collect();
    races.sort_by_key(|race| (race.link.tls, race.queries));
    let who: Vec<&Contender> = CONTENDERS
        .iter()
        .filter(|one| races.iter().any(|race| race.samples.contains_key(one.name)))
        .collect();
    if who.is_empty() {
        return None;
    }
    let panels = races.iter().map(|race| {
        let bars = who
            .iter()
            .map(|one| {
                let samples = &race.samples.get(one.name)?.caller_ms;
                let p50 = median(samples)?;
                Some(Bar {
                    parts: vec![Part {
                        value: p50,
                        colour: colour(one),
                    }],
                    whisker: percentile(samples, 0.95),
                    words: short(p50),
                })
            })
            .collect();
        let Link { tls, .. } = race.link;
        let queries = if race.queries == 1 {
            "1 query".into()
        } else {
            format!("{} queries", race.queries)
        };
        panel(
            format!("{queries}, {}", if tls { "TLS" } else { "plain" }),
            bars,
            "ms",
        )
    });
    let kept = if kind == Kind::Kept {
        "connection kept"
    } else {
        "connection opened in every invocation"
    };
    Some(Chart {
        title: format!("{}: {kept}", latency.product),
        subtitle: "What the caller waits for a warm invocation, 1 ms round trip to the database; contenders take turns and are frozen in between".into(),
        rows: who.iter().map(|one| row(one)).collect(),
        panels: panels.collect(),
        legend: WHO.into(),
        note: note("bar: p50, line: to p95, shorter is better", latency.product.name()),
    })
}

fn note(what: &str, section: &str) -> String {
    format!("{what} · tests/benchmarks/run --only {section}")
}

/// A panel as long as its longest bar.
fn panel(title: String, bars: Vec<Option<Bar>>, unit: &'static str) -> Panel {
    let lengths = bars.iter().flatten().map(|bar| -> f64 {
        let parts = bar.parts.iter().map(|part| part.value);
        parts.sum()
    });
    let longest = lengths.fold(f64::MIN_POSITIVE, f64::max) * 1.08;
    Panel {
        title,
        bars,
        longest,
        unit,
    }
}

fn burst_of(burst: &Burst, product: Product) -> Option<Chart> {
    let of_product = burst.runs.iter().filter(|run| run.product == product);
    // The crowd, in which few take part, is in the table.
    let environments = of_product.clone().map(|run| run.environments).min()?;
    let runs: Vec<&BurstRun> = of_product
        .filter(|run| run.environments == environments)
        .collect();
    let who: Vec<&Contender> = CONTENDERS
        .iter()
        .filter(|one| runs.iter().any(|run| run.contender == one.name))
        .collect();
    let mut amounts: Vec<u32> = runs.iter().map(|run| run.queries).collect();
    amounts.sort_unstable();
    amounts.dedup();
    if who.is_empty() {
        return None;
    }
    let longest = runs
        .iter()
        .filter_map(|run| percentile(&waits(run), 0.99))
        .fold(0.0, f64::max)
        * 1.02;
    let mut panels = Vec::new();
    for queries in amounts {
        let of = |draw: fn(&BurstRun, &Contender) -> Option<Bar>| {
            let bar = |one: &&Contender| {
                let mut runs = runs.iter();
                let run = runs.find(|run| run.queries == queries && run.contender == one.name)?;
                draw(run, one)
            };
            who.iter().map(bar).collect::<Vec<_>>()
        };
        let title = if queries == 1 {
            "one query".into()
        } else {
            format!("{queries} queries, one after the other")
        };
        #[allow(clippy::cast_precision_loss, reason = "hundreds")]
        let asked = (environments * burst.rounds) as f64;
        panels.push(Panel {
            title: format!("invocations, {title}"),
            bars: of(outcomes),
            longest: asked,
            unit: "",
        });
        panels.push(Panel {
            title: "what the caller waits".into(),
            bars: of(waiting),
            longest,
            unit: "ms",
        });
    }
    Some(Chart {
        title: format!(
            "{product}: {environments} functions called at once, {} connections",
            burst.connections
        ),
        subtitle: format!(
            "{} rounds, frozen in between; the server holds the first query for {} ms",
            burst.rounds, burst.hold_ms
        ),
        rows: who.iter().map(|one| row(one)).collect(),
        panels,
        legend: vec![(GREEN, "answered"), (RED, "failed"), WHO[0], WHO[1], WHO[2]],
        note: note("right: bar p50, line to p99", "burst"),
    })
}

fn waits(run: &BurstRun) -> Vec<f64> {
    run.caller_ms
        .iter()
        .chain(&run.failed_ms)
        .copied()
        .collect()
}

#[allow(
    clippy::cast_precision_loss,
    clippy::unnecessary_wraps,
    reason = "hundreds; and beside `waiting`"
)]
fn outcomes(run: &BurstRun, _: &Contender) -> Option<Bar> {
    let (answered, failed) = (run.caller_ms.len() as f64, run.failed_ms.len() as f64);
    Some(Bar {
        parts: vec![
            Part {
                value: answered,
                colour: GREEN,
            },
            Part {
                value: failed,
                colour: RED,
            },
        ],
        whisker: None,
        words: if failed > 0.0 {
            format!("{failed:.0} failed")
        } else {
            "none failed".into()
        },
    })
}

fn waiting(run: &BurstRun, contender: &Contender) -> Option<Bar> {
    let all = waits(run);
    let (p50, p99) = (median(&all)?, percentile(&all, 0.99)?);
    Some(Bar {
        parts: vec![Part {
            value: p50,
            colour: colour(contender),
        }],
        whisker: Some(p99),
        words: format!("{} (p99 {})", short(p50), short(p99)),
    })
}

fn dark_of(dark: &Dark, product: Product) -> Option<Chart> {
    let mut by_freeze: BTreeMap<u64, Vec<&DarkRun>> = BTreeMap::new();
    for run in dark.runs.iter().filter(|run| run.product == product) {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a key"
        )]
        by_freeze.entry(run.frozen_ms as u64).or_default().push(run);
    }
    let who: Vec<&Contender> = CONTENDERS
        .iter()
        .filter(|one| one.kind == Kind::Kept)
        .filter(|one| {
            by_freeze
                .values()
                .flatten()
                .any(|run| run.contender == one.name)
        })
        .collect();
    if who.is_empty() {
        return None;
    }
    let panels = by_freeze.iter().rev().map(|(frozen, runs)| {
        let bars = who.iter().map(|one| {
            let run = runs.iter().find(|run| run.contender == one.name)?;
            let waits: Vec<f64> = run.dead.iter().map(|outcome| outcome.caller_ms).collect();
            let answered = run.dead.iter().filter(|outcome| outcome.answered).count();
            let p50 = median(&waits)?;
            let words = match run.dead.iter().find(|outcome| !outcome.answered) {
                None => format!("{} ms, answered", short(p50)),
                Some(failed)
                    if failed.words.contains("timed out") && p50 >= dark.timeout_ms * 0.99 =>
                {
                    "timed out".into()
                }
                Some(_) if answered > 0 => format!("{answered} of {} answered", waits.len()),
                Some(_) => format!("error after {:.1} s", p50 / 1000.0),
            };
            let colour = if answered == waits.len() { GREEN } else { RED };
            Some(Bar {
                parts: vec![Part { value: p50, colour }],
                whisker: None,
                words,
            })
        });
        #[allow(clippy::cast_precision_loss, reason = "milliseconds")]
        let frozen = *frozen as f64 / 1000.0;
        Panel {
            title: if frozen > TRUST_S {
                format!("after {frozen} s")
            } else {
                format!("after {frozen} s, within trust_ms")
            },
            bars: bars.collect(),
            longest: dark.timeout_ms * 1.02,
            unit: "ms",
        }
    });
    Some(Chart {
        title: format!("{product}: the connection died silently during the freeze"),
        subtitle: format!(
            "What the caller of the next invocation sees; the function's timeout is {} s",
            dark.timeout_ms / 1000.0
        ),
        rows: who.iter().map(|one| row(one)).collect(),
        panels: panels.collect(),
        legend: vec![(GREEN, "answered"), (RED, "error or timeout")],
        note: note("median of the rounds", "dark"),
    })
}

/// Where the time of one opening invocation goes.
fn anatomy(traces: &Traces, product: Product) -> Option<Chart> {
    let fresh = |trace: &&Trace| {
        let contender = contender::named(&trace.contender);
        trace.product == product
            && !trace.cold
            && contender.is_some_and(|contender| contender.kind == Kind::Fresh)
    };
    let shown: Vec<&Trace> = traces.traces.iter().filter(fresh).collect();
    if shown.is_empty() {
        return None;
    }
    let who: Vec<&Contender> = CONTENDERS
        .iter()
        .filter(|one| shown.iter().any(|trace| trace.contender == one.name))
        .collect();
    let panels = [false, true].map(|tls| {
        let bars = who
            .iter()
            .map(|one| {
                let trace = shown
                    .iter()
                    .find(|trace| trace.tls == tls && trace.contender == one.name)?;
                let spent = super::tables::Spent::of(trace, traces.rtt_ms);
                Some(Bar {
                    parts: vec![
                        Part {
                            value: spent.network_ms,
                            colour: PALE,
                        },
                        Part {
                            value: spent.held_ms,
                            colour: RED,
                        },
                        Part {
                            value: spent.server_ms,
                            colour: GREEN,
                        },
                        Part {
                            value: spent.function_ms,
                            colour: ORANGE,
                        },
                    ],
                    whisker: None,
                    words: format!("{} ms, {} trips", short(trace.caller_ms), trace.round_trips),
                })
            })
            .collect();
        panel(if tls { "TLS".into() } else { "plain".into() }, bars, "ms")
    });
    Some(Chart {
        title: format!("{product}: where an invocation that opens a connection spends its time"),
        subtitle:
            "One query, 1 ms round trip; of each contender the invocation at the first quartile"
                .into(),
        rows: who.iter().map(|one| row(one)).collect(),
        panels: panels.into(),
        legend: vec![
            (PALE, "round trips"),
            (GREEN, "the server"),
            (ORANGE, "the function"),
            (
                RED,
                "between two writes: without TCP_NODELAY, waiting for an ACK",
            ),
        ],
        note: note("counted right before the server", "trace"),
    })
}
