//! Concurrent invocations in one process: a failure of one does not affect the others.

use crate::world::{Product, Running, SERVERS, World};
use futures_util::future::{join, join_all};
use sandbox::Invocation;
use serde_json::{Value, json};
use std::time::Duration;

const KINDS: [&str; 2] = ["db", "single"];
/// With an acquire timeout that a busy machine does not reach.
const CLOSES: [&str; 2] = ["patient_always", "patient_never"];
const AT_ONCE: [usize; 2] = [2, 8];

async fn start(world: &World, kind: &str, close: &str, at_once: usize) -> Running {
    let seconds = if close.starts_with("patient") { 20 } else { 4 };
    let sandbox = world.sandbox(kind, close).concurrency(at_once);
    Running::of(sandbox.timeout(Duration::from_secs(seconds))).await
}

/// The steps of a concurrent invocation, which starts before the failure and ends after it.
fn neighbour(product: Product) -> Value {
    let ask = json!({ "ask": product.session() });
    json!([ask, { "linger": 40 }, ask, { "linger": 40 }, ask])
}

fn assert_unharmed(neighbours: &[Invocation], place: &str, world: &World) {
    for one in neighbours {
        let outcome = &one.outcome;
        assert!(
            one.is_answered(),
            "{place}: {outcome}\n{}",
            world.last_words(8)
        );
    }
}

/// Runs `accident` in one invocation, with ordinary invocations before, during and after it.
async fn only_one_has(accident: impl Fn(Product) -> Value) {
    for product in SERVERS {
        for (kind, close) in KINDS
            .iter()
            .flat_map(|kind| CLOSES.map(|close| (*kind, close)))
        {
            for at_once in AT_ONCE {
                let accident = accident(product);
                let place = format!("{product:?}/{kind}/{close}, {at_once} at once: {accident}");
                let world = World::new(product).await;
                let running = start(&world, kind, close, at_once).await;
                for _ in 0..2 {
                    let neighbours = (1..at_once).map(|_| running.invoke(neighbour(product)));
                    let having_it = running.invoke(accident.clone());
                    let (_, neighbours) = join(having_it, join_all(neighbours)).await;
                    assert_unharmed(&neighbours, &place, &world);
                }
                let next = running.invoke(neighbour(product)).await;
                assert_unharmed(&[next], &place, &world);
                world.nothing_runs(&place).await;
                running.end().await;
                world.server().wait_until_connections(0).await;
            }
        }
    }
}

#[tokio::test]
async fn panic_fails_no_other_invocation() {
    support::measures_time();
    only_one_has(|product| json!([{ "ask": product.session() }, { "linger": 20 }, "panic"])).await;
}

#[tokio::test]
async fn dropped_query_fails_no_other_invocation() {
    support::measures_time();
    only_one_has(|product| json!([{ "give_up": { "sql": product.endless(), "ms": 30 } }])).await;
}

#[tokio::test]
async fn dropped_handler_fails_no_other_invocation() {
    support::measures_time();
    only_one_has(|product| {
        let steps = json!([{ "ask": product.endless() }]);
        json!([{ "dropped": { "steps": steps, "ms": 30 } }])
    })
    .await;
}

/// One invocation reaches its deadline while others start and end.
#[tokio::test]
async fn deadline_fails_no_other_invocation() {
    support::measures_time();
    for product in SERVERS {
        for kind in KINDS {
            let place = format!("{product:?}/{kind}");
            let world = World::new(product).await;
            let running = start(&world, kind, "never", 4).await;
            let endless = json!([{ "ask": product.endless() }]);
            let others = async {
                let mut all = Vec::new();
                for _ in 0..30 {
                    let two = (0..2).map(|_| running.invoke(neighbour(product)));
                    all.extend(join_all(two).await);
                }
                all
            };
            let (stopped, others) = join(running.invoke(endless), others).await;
            assert!(!stopped.is_answered(), "{place}");
            assert_unharmed(&others, &place, &world);
            world.nothing_runs(&place).await;
            running.end().await;
        }
    }
}

/// A dropped query is cancelled at the end of its invocation, while another invocation continues.
#[tokio::test]
async fn orphaned_query_is_cancelled_while_others_run() {
    support::measures_time();
    for product in SERVERS {
        for kind in KINDS {
            let place = format!("{product:?}/{kind}");
            let world = World::new(product).await;
            let running = start(&world, kind, "never", 2).await;
            let ask = json!({ "ask": product.session() });
            let stays = running.invoke(json!([ask, { "linger": 2_500 }, ask]));
            let orphaning = async {
                let given_up = json!([{ "give_up": { "sql": product.endless(), "ms": 100 } }]);
                running.succeed(given_up).await;
                world.nothing_runs(&place).await;
            };
            let (stays, ()) = join(stays, orphaning).await;
            assert_unharmed(&[stays], &place, &world);
            running.end().await;
        }
    }
}

/// However many queries are dropped, at most `max` (2) and one that is being cancelled run at a time.
#[tokio::test]
async fn orphaned_queries_count_against_max() {
    support::measures_time();
    for product in SERVERS {
        let world = World::new(product).await;
        let running = start(&world, "db", "never", 8).await;
        let given_up = json!([
            { "give_up": { "sql": product.endless(), "ms": 60 } },
            { "give_up": { "sql": product.endless(), "ms": 60 } },
        ]);
        let giving_up = join_all((0..8).map(|_| running.invoke(given_up.clone())));
        let mut most = 0;
        let counting = async {
            loop {
                let mut running = world.server().running_queries().await;
                running.retain(|sql| sql == product.endless());
                most = most.max(running.len());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            _ = giving_up => {}
            () = counting => {}
        }
        assert!(most <= 3, "{product:?}: {most} at once");
        assert_unharmed(&[running.invoke(neighbour(product)).await], "after", &world);
        world.nothing_runs("orphans").await;
        running.end().await;
    }
}

/// Session state of one invocation is visible neither to concurrent nor to later invocations.
#[tokio::test]
async fn session_state_is_not_shared() {
    support::measures_time();
    let cases = [
        (
            Product::Postgres,
            "SET search_path TO pg_catalog; CREATE TEMP TABLE secret AS SELECT 1; SELECT pg_advisory_lock(7)",
            "SELECT current_setting('search_path') || (SELECT count(*) FROM pg_class WHERE relname = 'secret' \
             AND pg_table_is_visible(oid)) || (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())",
            "\"$user\", public00",
        ),
        (
            Product::MariaDb,
            "SET @secret = 'x', SESSION group_concat_max_len = 77; CREATE TEMPORARY TABLE secret (id INT); DO GET_LOCK('seven', 0)",
            "SELECT CAST(CONCAT(COALESCE(@secret, 'none'), IF(@@group_concat_max_len = 77, 'set', ''), COALESCE(IS_USED_LOCK('seven') = CONNECTION_ID(), 0)) AS CHAR)",
            "none0",
        ),
    ];
    for (product, leave, look, clean) in cases {
        for kind in KINDS {
            for close in CLOSES {
                let place = format!("{product:?}/{kind}/{close}");
                let world = World::new(product).await;
                let running = start(&world, kind, close, 2).await;
                let ask = json!({ "ask": product.session() });
                // One invocation always runs.
                let stays = running.invoke(json!([ask, { "linger": 1_000 }, ask]));
                let others = async {
                    for _ in 0..4 {
                        // Its cleanup may still run when the next invocation begins.
                        running.succeed(json!([{ "run": leave }])).await;
                        let seen = running.ask(look).await;
                        assert_eq!(seen, clean, "{place}");
                    }
                };
                let (stays, ()) = join(stays, others).await;
                assert_unharmed(&[stays], &place, &world);
                running.end().await;
            }
        }
    }
}
