//! Many environments that thaw at the same time.

use crate::world::{Product, Running, World};
use db_handler::config::TRUST;
use futures_util::future::join_all;
use serde_json::json;
use std::{
    env,
    time::{Duration, Instant},
};
use support::Postgres;

/// The number of environments. `BURST=200` is the full size and needs more memory.
fn size() -> usize {
    env::var("BURST").map_or(40, |size| size.parse().expect("BURST is a number"))
}

#[tokio::test]
async fn burst_after_freeze_loses_no_invocation() {
    support::alone();
    let size = size();
    let room = (2 * size + 50).to_string();
    let server = Postgres::builder().setting("max_connections", room).start();
    let world = World::of(Product::Postgres, Some(server.fresh_database().await));
    let sandbox = world.sandbox("db", "never");
    let mut fleet = Vec::new();
    // A few at a time: only the thaw is tested.
    while fleet.len() < size {
        let next = (size - fleet.len()).min(8);
        fleet.extend(join_all((0..next).map(|_| Running::of(sandbox.clone()))).await);
    }
    let ask = json!([{ "ask": Product::Postgres.session() }]);
    for running in &fleet {
        running.succeed(ask.clone()).await;
    }
    world.server().wait_until_connections(size).await;
    let youngest = fleet.last().expect("a fleet");
    youngest
        .stand_still(TRUST + Duration::from_millis(100))
        .await;
    let begun = Instant::now();
    let burst = join_all(fleet.iter().map(|running| running.invoke(ask.clone()))).await;
    let took = begun.elapsed();
    let lost: Vec<String> = burst
        .iter()
        .filter(|one| !one.is_answered())
        .map(|one| one.outcome.to_string())
        .collect();
    let opened: usize = fleet.iter().map(Running::opened).sum();
    let slowest = burst.iter().map(|one| one.waited).max().unwrap_or_default();
    println!(
        "{size} thawed at once: {} lost, {took:?} in all, slowest {slowest:?}, {opened} connections opened",
        lost.len()
    );
    assert!(
        lost.is_empty(),
        "{} lost: {:?}",
        lost.len(),
        &lost[..lost.len().min(3)]
    );
    join_all(fleet.into_iter().map(Running::end)).await;
}
