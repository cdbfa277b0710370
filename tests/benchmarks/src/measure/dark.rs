//! A connection that is dead after a freeze without anybody having said so, as a NAT gateway leaves it.

use sandbox::{Environment, Fault, Invocation};
use serde_json::json;
use std::{path::Path, time::Duration};

use super::{caller_ms, words};
use crate::{
    bed::{Bed, Failure, Link, Server},
    contender::{self, Contender},
    record::{Dark, DarkRun, Outcome, write},
};

/// A function's timeout, within which everybody has to come to a result.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than a kept connection is trusted by us, and (what no real network does) shorter.
const FROZEN: [Duration; 2] = [Duration::from_millis(1_500), Duration::from_millis(200)];
/// Invocations that a contender may fail between two rounds.
const LONGEST_RECOVERY: usize = 5;
/// After so many rounds everybody starts anew: what is dead stays open on the server, which has only so much room.
const ROUNDS_TOGETHER: usize = 2;
/// Most only wait, so that they can do so together; but nobody starts while another one works.
const APART: Duration = Duration::from_millis(350);
const LINK: Link = Link::plain(1.0);

pub(crate) async fn run(
    servers: &[Server],
    bed: &Bed,
    folder: &Path,
    quick: bool,
) -> Result<(), Failure> {
    let rounds = if quick { 3 } else { 10 };
    let mut runs = Vec::new();
    for server in servers {
        for frozen in FROZEN {
            let mut homes = Vec::new();
            let mut these: Vec<DarkRun> = contender::with(server.product())
                .map(|contender| DarkRun {
                    product: server.product(),
                    contender: contender.name.to_owned(),
                    frozen_ms: frozen.as_secs_f64() * 1000.0,
                    dead: Vec::new(),
                    next: Vec::new(),
                    restarts: 0,
                })
                .collect();
            for number in 0..rounds {
                if number % ROUNDS_TOGETHER == 0 {
                    end(std::mem::take(&mut homes)).await;
                    homes = start(server, bed).await?;
                }
                let round = homes
                    .iter()
                    .enumerate()
                    .map(|(turn, (contender, environment))| {
                        let turn = u32::try_from(turn).unwrap_or(0);
                        one(contender, environment, frozen, APART * turn)
                    });
                let results = futures_util::future::join_all(round).await;
                for (run, result) in these.iter_mut().zip(results) {
                    let (dead, next, restarted) = result?;
                    run.restarts += usize::from(restarted);
                    run.dead.push(dead);
                    run.next.push(next);
                }
            }
            println!(
                "dark, {}, frozen for {frozen:?}: {rounds} rounds",
                server.product()
            );
            runs.extend(these);
            end(homes).await;
        }
    }
    let dark = Dark {
        timeout_ms: TIMEOUT.as_secs_f64() * 1000.0,
        runs,
    };
    write(folder, "dark", &dark)
}

type Home = (&'static Contender, Environment);

async fn start(server: &Server, bed: &Bed) -> Result<Vec<Home>, Failure> {
    let (product, url) = (server.product(), server.url(LINK.tls));
    let mut homes = Vec::new();
    for contender in contender::with(product) {
        let environment = bed
            .start(contender, product, &url, LINK.rtt(), TIMEOUT)
            .await?;
        homes.push((contender, environment));
    }
    Ok(homes)
}

/// With an environment goes its network, and what was dead there is closed on the server, too.
async fn end(homes: Vec<Home>) {
    for (_, environment) in homes {
        environment.shutdown().await;
    }
}

async fn one(
    contender: &Contender,
    environment: &Environment,
    frozen: Duration,
    delay: Duration,
) -> Result<(Outcome, Outcome, bool), Failure> {
    tokio::time::sleep(delay).await;
    let event = || json!({"queries": 1});
    // Some need more than one invocation to get over the last round, and some never do.
    let mut restarted = false;
    let mut failed = 0;
    while !environment.invoke(event()).await.is_answered() {
        failed += 1;
        if failed == LONGEST_RECOVERY {
            if restarted {
                return Err(format!("{} does not work at all", contender.name).into());
            }
            environment.shutdown().await;
            (restarted, failed) = (true, 0);
        }
    }
    environment.apply(Fault::DarkExisting);
    environment.stands_still_for(frozen).await;
    let dead = outcome(&environment.invoke(event()).await);
    let next = outcome(&environment.invoke(event()).await);
    Ok((dead, next, restarted))
}

fn outcome(invocation: &Invocation) -> Outcome {
    Outcome {
        caller_ms: caller_ms(invocation),
        answered: invocation.is_answered(),
        words: words(&invocation.outcome),
    }
}
