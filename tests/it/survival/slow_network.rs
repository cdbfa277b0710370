//! On a slow network, healthy connections are reused and no unnecessary ones are opened.

use crate::world::{Product, Running, SERVERS, World};
use db_handler::config::TRUST;
use futures_util::future::join_all;
use sandbox::Fault;
use serde_json::{Value, json};
use std::time::Duration;

const KINDS: [&str; 4] = ["db", "pool", "single", "transaction"];
const RTT: Duration = Duration::from_millis(80);
const INVOCATIONS: usize = 5;

/// Long enough for a reused connection to be pinged.
const LONG: Duration = TRUST.saturating_add(Duration::from_millis(150));

async fn start(world: &World, kind: &str, close: &str, rtt: Duration) -> Running {
    Running::of(world.sandbox(kind, close).rtt(rtt)).await
}

/// No other step before it: sqlx's pool would still ping that connection, and open another one.
fn rolled_back(product: Product) -> Value {
    json!([{ "transaction": { "sql": product.session(), "end": "drop" } }])
}

/// Checks that one connection serves all invocations, also after a rollback that was not awaited and after a ping.
/// `rtt` is the network's round-trip time.
async fn one_connection(rtt: Duration, kinds: &[&str]) {
    for product in SERVERS {
        let database = World::new(product).await.server().clone();
        join_all(kinds.iter().map(async |&kind| {
            let world = World::of(product, Some(database.clone()));
            let place = format!("{product:?}/{kind} at {rtt:?}");
            let running = start(&world, kind, "never", rtt).await;
            let ask = json!([{ "ask": product.session() }]);
            for _ in 0..INVOCATIONS {
                running.succeed(ask.clone()).await;
            }
            assert_eq!(running.opened(), 1, "{place}\n{}", world.last_words(5));
            if kind != "transaction" {
                running.succeed(rolled_back(product)).await;
                running.succeed(ask.clone()).await;
                assert_eq!(running.opened(), 1, "{place}, after a rollback");
            }
            running.stand_still(LONG).await;
            running.succeed(ask.clone()).await;
            assert_eq!(running.opened(), 1, "{place}, after a pause");
            running.end().await;
        }))
        .await;
    }
}

#[tokio::test]
async fn one_connection_serves_all_invocations() {
    support::alone();
    one_connection(RTT, &KINDS).await;
}

#[tokio::test]
async fn one_connection_serves_all_with_round_trip_as_long_as_reserve() {
    support::measures_time();
    // Without the transaction: opening its connection and BEGIN take all of `acquire_ms`.
    one_connection(RTT * 3, &["db", "pool", "single"]).await;
}

#[tokio::test]
async fn always_opens_one_connection_per_invocation() {
    support::measures_time();
    for product in SERVERS {
        let world = World::new(product).await;
        for kind in KINDS {
            let running = start(&world, kind, "always", RTT).await;
            for _ in 0..INVOCATIONS {
                running.ask(product.session()).await;
            }
            // A pool tests once per process which startup options the server accepts.
            let once =
                usize::from(product == Product::Postgres && !["db", "single"].contains(&kind));
            let opened = running.opened();
            assert!(
                (INVOCATIONS..=INVOCATIONS + once).contains(&opened),
                "{product:?}/{kind}: {opened}"
            );
            running.end().await;
        }
    }
}

/// Two connections are opened concurrently, the second one while the first one is pending.
#[tokio::test]
async fn slow_connect_opens_no_extra_connection() {
    support::measures_time();
    for product in SERVERS {
        let world = World::new(product).await;
        for kind in ["db", "pool"] {
            let running = start(&world, kind, "never", RTT * 2).await;
            let guards = json!([{ "guards": { "count": 2, "sql": product.session() } }]);
            running.succeed(guards).await;
            assert_eq!(running.opened(), 2, "{product:?}/{kind}");
            running.end().await;
        }
    }
}

/// The measured round-trip time is updated.
#[tokio::test]
async fn network_that_becomes_slow_costs_few_connections() {
    support::alone();
    for product in SERVERS {
        let world = World::new(product).await;
        for kind in KINDS {
            let running = start(&world, kind, "never", Duration::ZERO).await;
            running.ask(product.session()).await;
            // Open connections keep their original round-trip time.
            running.0.apply(Fault::Rtt(RTT));
            running.0.apply(Fault::ResetExisting);
            running.stand_still(LONG).await;
            let before = running.opened();
            for _ in 0..INVOCATIONS {
                running.ask(product.session()).await;
            }
            let more = running.opened() - before;
            assert!(more <= 2, "{product:?}/{kind}: {more}");
            running.end().await;
        }
    }
}

/// Cancelling opens a new connection, which may be the slowest part of the cleanup.
#[tokio::test]
async fn dropped_query_is_cancelled_when_connect_exceeds_reserve() {
    support::measures_time();
    for product in SERVERS {
        let world = World::new(product).await;
        for kind in KINDS {
            let place = format!("{product:?}/{kind}");
            let running = start(&world, kind, "never", Duration::ZERO).await;
            running.ask(product.session()).await;
            running.0.apply(Fault::Rtt(RTT));
            running
                .invoke(json!([{ "give_up": { "sql": product.endless(), "ms": 30 } }]))
                .await;
            world.nothing_runs(&place).await;
            running.end().await;
        }
    }
}
