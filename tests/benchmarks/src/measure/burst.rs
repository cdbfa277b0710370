//! More environments than the server has connections, all called at once, again and again.

use futures_util::{StreamExt, future::join_all, stream};
use sandbox::Environment;
use serde_json::json;
use std::{collections::BTreeMap, path::Path, time::Duration};

use super::{TIMEOUT, caller_ms, words};
use crate::{
    bed::{Bed, Failure, Link, MAX_CONNECTIONS, Server},
    contender::{self, Contender},
    record::{Burst, BurstRun, write},
};

const ENVIRONMENTS: usize = 130;
/// Three times as many as there is room for: who gives connections back when the server is full?
const CROWD: usize = 300;
const IN_CROWD: [&str; 3] = ["db_pressure", "pool_pressure", "db_always"];
const ROUNDS: usize = 5;
/// Queries of an invocation, in a quick run and in a full one: the first one is held, and a second one shows who then asks
/// for another connection.
const QUICK_QUERIES: &[u32] = &[1];
const QUERIES: &[u32] = &[1, 2];
/// The server holds the first query so long that all of them want a connection at once.
const HOLD_MS: f64 = 200.0;
/// Processes that start at the same time.
const STARTING: usize = 8;
/// All functions are frozen between two rounds.
const PAUSE: Duration = Duration::from_millis(300);
const LINK: Link = Link::plain(1.0);

pub(crate) async fn run(
    servers: &[Server],
    bed: &Bed,
    folder: &Path,
    quick: bool,
) -> Result<(), Failure> {
    let mut runs = Vec::new();
    for server in servers {
        for contender in contender::with(server.product()) {
            if quick && !contender.is_in_short_burst() {
                continue;
            }
            for &queries in if quick { QUICK_QUERIES } else { QUERIES } {
                runs.push(storm(contender, ENVIRONMENTS, queries, server, bed).await?);
            }
            let crowd = if quick { &IN_CROWD[..1] } else { &IN_CROWD };
            if crowd.contains(&contender.name) {
                runs.push(storm(contender, CROWD, 1, server, bed).await?);
            }
        }
    }
    let burst = Burst {
        rounds: ROUNDS,
        connections: MAX_CONNECTIONS,
        hold_ms: HOLD_MS,
        runs,
    };
    write(folder, "burst", &burst)
}

async fn storm(
    contender: &Contender,
    environments: usize,
    queries: u32,
    server: &Server,
    bed: &Bed,
) -> Result<BurstRun, Failure> {
    let product = server.product();
    let url = server.url(LINK.tls);
    let sandbox = bed.sandbox(contender, product, &url, LINK.rtt(), TIMEOUT)?;
    let starting: Vec<_> = stream::iter(0..environments)
        .map(|_| sandbox.start())
        .buffer_unordered(STARTING)
        .collect()
        .await;
    let environments: Vec<Environment> = starting
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(|failure| format!("{}: {failure}", contender.name))?;
    let mut run = BurstRun {
        product,
        contender: contender.name.to_owned(),
        environments: environments.len(),
        queries,
        kept: Vec::new(),
        caller_ms: Vec::new(),
        failed_ms: Vec::new(),
        failures: BTreeMap::new(),
    };
    for _ in 0..ROUNDS {
        let event = json!({"queries": queries - 1, "hold_ms": HOLD_MS});
        let all = environments
            .iter()
            .map(|environment| environment.invoke(event.clone()));
        for invocation in join_all(all).await {
            if invocation.is_answered() {
                run.caller_ms.push(caller_ms(&invocation));
            } else {
                run.failed_ms.push(caller_ms(&invocation));
                *run.failures.entry(words(&invocation.outcome)).or_default() += 1;
            }
        }
        let pauses = environments.iter().map(|one| one.stands_still_for(PAUSE));
        join_all(pauses).await;
        run.kept.push(server.connections().await);
    }
    println!(
        "burst, {product}, {} x {}, {queries} queries: {} answered, {} failed, {:?} kept",
        environments.len(),
        contender.name,
        run.caller_ms.len(),
        run.failed_ms.len(),
        run.kept
    );
    stream::iter(environments)
        .for_each_concurrent(STARTING, |environment| async move {
            environment.shutdown().await;
        })
        .await;
    server.wait_until_empty().await;
    Ok(run)
}
