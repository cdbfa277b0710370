//! A silent server does not delay a function after its response.

use crate::world::{KINDS, SERVERS, SLACK, World};
use db_handler::config::CANCEL_TIMEOUT;
use futures_util::future::join_all;
use sandbox::{Fault, PhaseKind};
use serde_json::{Value, json};

/// Logged after the queries, when the pause begins.
const SAID: &str = "now the pause";

/// Work that is left for the cleanup after the response.
fn left(session: &str, endless: &str) -> [(&'static str, Vec<Value>); 4] {
    let ask = json!({ "ask": session });
    let said = json!({ "say": SAID });
    let pause = json!({ "linger": 100 });
    let give_up = json!({ "give_up": { "sql": endless, "ms": 50 } });
    let drop = json!({ "transaction": { "sql": session, "end": "drop" } });
    [
        (
            "a kept connection",
            vec![ask.clone(), said.clone(), pause.clone()],
        ),
        (
            "a rollback",
            vec![ask.clone(), drop, said.clone(), pause.clone()],
        ),
        (
            "a query that runs",
            vec![ask.clone(), give_up, said.clone(), pause.clone()],
        ),
        ("a failure", vec![ask, said, pause, json!("fail")]),
    ]
}

async fn bounded(fault: Fault) {
    for product in SERVERS {
        let database = World::new(product).await.server().clone();
        join_all(KINDS.map(async |kind| {
            for close in ["always", "never"] {
                for (what, steps) in left(product.session(), product.endless()) {
                    let place = format!("{product:?}/{kind}/{close}, {what}, {fault}");
                    let world = World::of(product, Some(database.clone()));
                    let running = world.start(kind, close).await;
                    let network = &running.0.networks()[0];
                    let (invocation, ()) = tokio::join!(running.invoke(json!(steps)), async {
                        world.wait_for_log(SAID).await;
                        network.apply(fault);
                    });
                    let after = invocation.spent(PhaseKind::After);
                    println!(
                        "{place}: {} after {:?}, then {after:?}",
                        invocation.outcome, invocation.waited
                    );
                    assert!(after < CANCEL_TIMEOUT + SLACK, "{place}: {after:?}");
                    running.heal().await;
                    // Within `trust_ms` a dark connection is not pinged, which is the price of
                    // saving the ping. This one was checked by the reset.
                    running.ask(product.session()).await;
                    running.end().await;
                }
            }
        }))
        .await;
    }
}

#[tokio::test]
async fn dark_connections_do_not_delay_cleanup() {
    support::measures_time();
    bounded(Fault::DarkExisting).await;
}

#[tokio::test]
async fn dark_network_does_not_delay_cleanup() {
    support::measures_time();
    bounded(Fault::Dark).await;
}
