//! A connection that died during a freeze fails no invocation and costs little time.

use crate::world::{KINDS, Product, Running, SERVERS, SLACK, World};
use db_handler::config::{PING, TRUST};
use sandbox::{Fault, Proxy};
use serde_json::{Value, json};
use sqlx::{
    Connection, MySqlConnection, PgConnection, mysql::MySqlConnectOptions,
    postgres::PgConnectOptions,
};
use std::{str::FromStr, time::Duration};

/// Long enough for a reused connection to be pinged.
const LONG: Duration = TRUST.saturating_add(Duration::from_millis(150));

/// Starts a function, queries its session, runs `befalls` and keeps the environment frozen.
async fn thawed(
    world: &World,
    kind: &str,
    befalls: impl AsyncFnOnce(&Running),
) -> (Running, Value) {
    let running = world.start(kind, "never").await;
    let session = running.ask(world.product.session()).await;
    befalls(&running).await;
    running.stand_still(LONG).await;
    (running, session)
}

#[tokio::test]
async fn sessions_ended_by_server_are_replaced() {
    for product in SERVERS {
        let world = World::new(product).await;
        for kind in KINDS {
            let end = async |_: &Running| {
                assert_eq!(world.server().terminate_connections().await, 1);
            };
            let (running, before) = thawed(&world, kind, end).await;
            let after = running.ask(product.session()).await;
            assert_ne!(before, after, "{product:?}/{kind}");
            running.end().await;
            world.nothing_secret();
        }
    }
}

#[tokio::test]
async fn connection_reset_during_freeze_is_replaced() {
    for product in SERVERS {
        let world = World::new(product).await;
        for kind in KINDS {
            let reset = async |running: &Running| running.0.apply(Fault::ResetExisting);
            let (running, _) = thawed(&world, kind, reset).await;
            running.ask(product.session()).await;
            running.end().await;
        }
    }
}

/// A dark connection costs at most a connect and `ping_ms`, for any round-trip time.
#[tokio::test]
async fn dark_connection_costs_at_most_connect_and_ping() {
    support::measures_time();
    for product in SERVERS {
        for rtt in [1, 20] {
            let rtt = Duration::from_millis(rtt);
            let world = World::new(product).await;
            for kind in KINDS {
                let place = format!("{product:?}/{kind} at {rtt:?}");
                let running = Running::of(world.sandbox(kind, "never").rtt(rtt)).await;
                let ask = json!([{ "ask": product.session() }]);
                let cold = running.invoke(ask.clone()).await;
                running.0.apply(Fault::DarkExisting);
                running.stand_still(LONG).await;
                let dark = running.invoke(ask.clone()).await;
                assert!(dark.is_answered(), "{place}: {}", dark.outcome);
                // The first invocation also opened a connection and started the process.
                let opening = cold.spent(sandbox::PhaseKind::Handler);
                let bound = opening + PING + SLACK / 4;
                println!(
                    "{place}: {:?} after the dark, {opening:?} for the first",
                    dark.waited
                );
                assert!(
                    dark.waited <= bound,
                    "{place}: {:?} > {bound:?}",
                    dark.waited
                );
                running.end().await;
            }
        }
    }
}

#[tokio::test]
async fn restarted_server_fails_no_invocation() {
    // For the function, all connections are lost and the port is closed for a while.
    for product in SERVERS {
        let world = World::new(product).await;
        for kind in KINDS {
            let restart = async |running: &Running| {
                running.0.apply(Fault::ResetExisting);
                running.0.apply(Fault::Refuse);
            };
            let (running, _) = thawed(&world, kind, restart).await;
            let (error_type, text) = running.fail(json!([{ "ask": product.session() }])).await;
            assert!(
                ["ConnectionRefused", "PoolExhausted"].contains(&error_type.as_str()),
                "{product:?}/{kind}: {error_type}: {text}"
            );
            running.heal().await;
            running.ask(product.session()).await;
            running.end().await;
        }
    }
}

/// Within `trust_ms`, a warm invocation sends exactly the bytes of a bare connection.
#[tokio::test]
async fn no_extra_bytes_within_trust_ms() {
    const QUERIES: usize = 4;
    support::measures_time();
    for product in SERVERS {
        let world = World::new(product).await;
        let floor = bare(product, &world, QUERIES).await;
        // sqlx's pool pings every released connection.
        for kind in ["db", "single"] {
            let sandbox = world.sandbox(kind, "never").freeze_between(false);
            let running = Running::of(sandbox).await;
            let ask = json!({ "ask": product.session() });
            let steps = json!(vec![ask; QUERIES]);
            // The statement is prepared, and the session has been reset once.
            running.succeed(steps.clone()).await;
            running.succeed(steps.clone()).await;
            let network = &running.0.networks()[0];
            // Measured up to the response: the reset comes later.
            let before = network.stats();
            let mut with_a_pause = steps.as_array().cloned().unwrap_or_default();
            let said = format!("{kind} has asked");
            with_a_pause.extend([json!({ "say": said }), json!({ "linger": 300 })]);
            let (invocation, warm) = tokio::join!(running.invoke(json!(with_a_pause)), async {
                world.wait_for_log(&said).await;
                // In the middle of the pause, when any extra bytes have been sent.
                tokio::time::sleep(Duration::from_millis(150)).await;
                let now = network.stats();
                (now.sent - before.sent, now.received - before.received)
            });
            assert!(invocation.is_answered(), "{}", invocation.outcome);
            assert_eq!(warm, floor, "{product:?}/{kind}: sent and received");
            running.end().await;
        }
    }
}

/// The bytes that a bare connection sends and receives in its second round of queries.
async fn bare(product: Product, world: &World, queries: usize) -> (u64, u64) {
    let url = world.server().url();
    let target = url
        .split('@')
        .nth(1)
        .and_then(|rest| rest.split('/').next());
    let proxy = Proxy::start(target.expect("a host and a port"))
        .await
        .expect("a port");
    let port = proxy.addr().port();
    let mut second = (0, 0);
    macro_rules! rounds {
        ($connection:expr) => {{
            let mut connection = $connection;
            for _ in 0..2 {
                let before = proxy.stats();
                for _ in 0..queries {
                    let _: Option<String> = sqlx::query_scalar(product.session())
                        .fetch_one(&mut connection)
                        .await
                        .expect("answers");
                }
                let now = proxy.stats();
                second = (now.sent - before.sent, now.received - before.received);
            }
            connection.close().await.expect("closes");
        }};
    }
    if product == Product::Postgres {
        let options = PgConnectOptions::from_str(url).expect("a URL");
        rounds!(
            PgConnection::connect_with(&options.port(port))
                .await
                .expect("connects")
        );
    } else {
        let options = MySqlConnectOptions::from_str(url).expect("a URL");
        rounds!(
            MySqlConnection::connect_with(&options.port(port))
                .await
                .expect("connects")
        );
    }
    second
}
