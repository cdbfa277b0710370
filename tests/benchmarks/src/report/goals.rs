//! The goals of the project, against what was measured.

use super::Results;
use crate::{
    bed::Product,
    contender::{FLOOR, FRESH_FLOOR, GUIDE, named},
    record::{BurstRun, ColdStarts, Latency, Race},
    stats::{median, percentile},
};

/// At most so many times as long as another one.
struct Goal {
    product: Product,
    tls: bool,
    queries: u32,
    who: &'static str,
    than: &'static str,
    at_most: f64,
}

/// A goal and what came of it.
pub(super) struct Verdict {
    pub(super) what: String,
    pub(super) at_most: f64,
    pub(super) measured: f64,
}

impl Verdict {
    pub(super) fn is_met(&self) -> bool {
        self.measured <= self.at_most
    }
}

const RTT_MS: f64 = 1.0;
/// What `close = "pressure"` leaves alone, as long as `budget` says nothing else.
const SHARE: f64 = 0.8;

fn goals() -> Vec<Goal> {
    let mut goals = Vec::new();
    for product in [Product::Postgres, Product::MariaDb] {
        for tls in [false, true] {
            for queries in [1, 4] {
                let mut add = |who, than, at_most| {
                    goals.push(Goal {
                        product,
                        tls,
                        queries,
                        who,
                        than,
                        at_most,
                    });
                };
                add("connection_never", FLOOR, 1.05);
                add("db_never", FLOOR, 1.05);
                add("pool_never", FLOOR, 1.15);
                add("db_pressure", "db_never", 1.05);
                if tls {
                    add("connection_always", FRESH_FLOOR, 1.05);
                    add("db_always", FRESH_FLOOR, 1.05);
                    add("pool_always", FRESH_FLOOR, 1.05);
                    add("connection_always", GUIDE, 0.6);
                    add("db_always", GUIDE, 0.6);
                    add("pool_always", GUIDE, 0.6);
                }
            }
        }
    }
    goals
}

/// Those that this run can say something about.
pub(super) fn verdicts(results: &Results) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = goals()
        .iter()
        .filter_map(|goal| {
            let latency = results
                .latencies
                .iter()
                .find(|latency| latency.product == goal.product)?;
            let race = race_of(latency, goal)?;
            let of = |name| median(&race.samples.get(name)?.caller_ms);
            let link = if goal.tls { "TLS" } else { "plain" };
            Some(Verdict {
                what: format!(
                    "{}, {link}, K = {}: `{}` over `{}`",
                    goal.product, goal.queries, goal.who, goal.than
                ),
                at_most: goal.at_most,
                measured: of(goal.who)? / of(goal.than)?,
            })
        })
        .collect();
    verdicts.extend(bursts(results));
    verdicts.extend(cold(results));
    verdicts
}

/// Kept while there is room: no slower in a burst than the peer that ends others' idle connections, and
/// within the share in a crowd.
fn bursts(results: &Results) -> Vec<Verdict> {
    let Some(burst) = &results.burst else {
        return Vec::new();
    };
    let mut verdicts = Vec::new();
    let ours = burst
        .runs
        .iter()
        .filter(|run| run.contender == "db_pressure");
    for run in ours {
        let place = format!(
            "{}, {} environments, {} queries, `db_pressure`",
            run.product, run.environments, run.queries
        );
        let peer = burst.runs.iter().find(|peer| {
            peer.contender.starts_with("serverless_")
                && (peer.product, peer.environments, peer.queries)
                    == (run.product, run.environments, run.queries)
        });
        let p99 = |run: &BurstRun| percentile(&run.caller_ms, 0.99);
        if let Some((peer, ours, theirs)) =
            peer.and_then(|peer| Some((peer, p99(run)?, p99(peer)?)))
        {
            verdicts.push(Verdict {
                what: format!("{place}: p99 over `{}`", peer.contender),
                at_most: 1.0,
                measured: ours / theirs,
            });
        }
        verdicts.push(Verdict {
            what: format!("{place}: unanswered"),
            at_most: 0.0,
            measured: count(run.failed_ms.len()),
        });
        if let Some(&kept) = run.kept.iter().max() {
            verdicts.push(Verdict {
                what: format!("{place}: kept, of the room that there is"),
                at_most: SHARE + 0.05,
                measured: count(kept) / f64::from(burst.connections),
            });
        }
    }
    verdicts
}

#[allow(clippy::cast_precision_loss, reason = "hundreds")]
fn count(number: usize) -> f64 {
    number as f64
}

fn race_of<'a>(latency: &'a Latency, goal: &Goal) -> Option<&'a Race> {
    let kind = named(goal.who)?.kind;
    latency.races.iter().find(|race| {
        race.kind == kind
            && race.queries == goal.queries
            && race.link.tls == goal.tls
            && (race.link.rtt_ms - RTT_MS).abs() < f64::EPSILON
    })
}

fn cold(results: &Results) -> Vec<Verdict> {
    let Some(cold) = &results.cold else {
        return Vec::new();
    };
    let ready = |start: &ColdStarts| median(&start.ready_ms);
    let answered = |start: &ColdStarts| Some(ready(start)? + median(&start.first_ms)?);
    let Some(by_hand) = cold.programs.get("cold-handwritten") else {
        return Vec::new();
    };
    let ours = cold.programs.iter();
    ours.filter(|(name, _)| name.starts_with("cold-ours"))
        .flat_map(|(name, ours)| {
            let verdict = |what, ratio: Option<f64>| {
                ratio.map(|measured| Verdict {
                    what: format!("cold start to {what}: `{name}` over `cold-handwritten`"),
                    at_most: 1.1,
                    measured,
                })
            };
            let over =
                |time: &dyn Fn(&ColdStarts) -> Option<f64>| Some(time(ours)? / time(by_hand)?);
            [
                verdict("the first poll", over(&ready)),
                verdict("the first answer", over(&answered)),
            ]
        })
        .flatten()
        .collect()
}
