//! What an invocation takes: contenders of one kind taking turns, frozen in between.

use sandbox::Environment;
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use super::{TIMEOUT, caller_ms, words};
use crate::{
    bed::{Bed, Failure, Link, Server},
    contender::{self, Contender, FLOOR, Kind},
    record::{Latency, Race, Samples, write},
};

/// Before anything counts: caches of statements, branch predictors, the server's own caches.
const WARM_UPS: usize = 3;
/// Sweeps over the kept ones for each round: they are quicker than one over the fresh ones.
const KEPT_SWEEPS: usize = 3;
/// However slow the machine is, and however little time was given.
const LEAST_ROUNDS: usize = 8;

/// Links, amounts of work, and the time for each link.
struct Extent {
    links: &'static [Link],
    queries: &'static [u32],
    each: Duration,
}

const QUICK_LINKS: &[Link] = &[Link::plain(1.0), Link::tls(1.0)];
const LINKS: &[Link] = &[
    Link::plain(1.0),
    Link::tls(1.0),
    Link::plain(0.0),
    Link::tls(0.0),
];

impl Extent {
    fn new(quick: bool) -> Self {
        if quick {
            Self {
                links: QUICK_LINKS,
                queries: &[1, 4],
                each: Duration::from_secs(10),
            }
        } else {
            Self {
                links: LINKS,
                queries: &[1, 4, 16],
                each: Duration::from_secs(70),
            }
        }
    }
}

pub(crate) async fn run(
    server: &Server,
    bed: &Bed,
    folder: &Path,
    quick: bool,
) -> Result<(), Failure> {
    let product = server.product();
    let extent = Extent::new(quick);
    let mut races = Vec::new();
    for &link in extent.links {
        races.extend(over(link, &extent, server, bed).await?);
    }
    let latency = Latency {
        product,
        quick,
        races,
    };
    write(folder, product.name(), &latency)
}

type Home = (&'static Contender, Environment);

/// Everything over one link. The two kinds take turns as well, so that a noisy minute hits both.
async fn over(
    link: Link,
    extent: &Extent,
    server: &Server,
    bed: &Bed,
) -> Result<Vec<Race>, Failure> {
    let product = server.product();
    let mut homes: Vec<Home> = Vec::new();
    for contender in contender::with(product) {
        let url = server.url(link.tls);
        let environment = bed
            .start(contender, product, &url, link.rtt(), TIMEOUT)
            .await?;
        for _ in 0..WARM_UPS {
            let invocation = environment.invoke(json!({"queries": 4})).await;
            if !invocation.is_answered() {
                return Err(format!("{}: {}", contender.name, invocation.outcome).into());
            }
        }
        homes.push((contender, environment));
    }

    let mut races: Vec<Race> = [Kind::Kept, Kind::Fresh]
        .into_iter()
        .flat_map(|kind| extent.queries.iter().map(move |&queries| (kind, queries)))
        .map(|(kind, queries)| Race {
            link,
            kind,
            queries,
            samples: BTreeMap::new(),
        })
        .collect();
    let until = Instant::now() + extent.each;
    let mut rounds = 0;
    while rounds < LEAST_ROUNDS || Instant::now() < until {
        for race in &mut races {
            let mut members: Vec<&Home> = homes
                .iter()
                .filter(|home| is_in(race.kind, home.0))
                .collect();
            let sweeps = if race.kind == Kind::Kept {
                KEPT_SWEEPS
            } else {
                1
            };
            if race.kind == Kind::Kept {
                // The others took their time meanwhile. What is compared here are busy functions, whose connections
                // are trusted; what a longer rest costs is another question.
                sweep(&members, 1, &mut BTreeMap::new()).await;
            }
            for turn in 0..sweeps {
                // Nobody always comes after the same neighbour's noise.
                let shift = (rounds + turn) % members.len();
                members.rotate_left(shift);
                sweep(&members, race.queries, &mut race.samples).await;
            }
        }
        rounds += 1;
    }
    println!(
        "{product}, {link}: {rounds} rounds with {} contenders",
        homes.len()
    );
    for (_, environment) in homes {
        environment.shutdown().await;
    }
    server.wait_until_empty().await;
    Ok(races)
}

/// The floor takes part in both: it is what everything can be compared with.
fn is_in(kind: Kind, contender: &Contender) -> bool {
    contender.kind == kind || contender.name == FLOOR
}

/// One invocation each.
async fn sweep(members: &[&Home], queries: u32, samples: &mut BTreeMap<String, Samples>) {
    for (contender, environment) in members {
        let frozen = environment.frozen_for().await.unwrap_or_default();
        let invocation = environment.invoke(json!({"queries": queries})).await;
        let samples = samples.entry(contender.name.to_owned()).or_default();
        if invocation.is_answered() {
            let after = invocation.spent(sandbox::PhaseKind::After);
            samples.caller_ms.push(caller_ms(&invocation));
            samples.after_ms.push(after.as_secs_f64() * 1000.0);
            samples.frozen_ms.push(frozen.as_secs_f64() * 1000.0);
        } else {
            samples.failures.push(words(&invocation.outcome));
        }
    }
}
