//! Queries that still run on the server at the end of their invocation are cancelled.

use crate::world::{KINDS, PRODUCTS, Product, REFUSED, Running, SLACK, World};
use db_handler::config::CANCEL_TIMEOUT;
use sandbox::{Invocation, Outcome, PhaseKind};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const UPDATE: &str = "UPDATE orders SET touched = touched + 1 WHERE id = 1";

/// A world with one row to lock.
async fn world(product: Product) -> World {
    let world = World::new(product).await;
    world
        .prepare("CREATE TABLE orders (id INT PRIMARY KEY, touched INT); INSERT INTO orders VALUES (1, 0)")
        .await;
    world
}

/// Locks a row and keeps it locked with an endless query.
fn hold(product: Product) -> Value {
    let sql = format!("{UPDATE}; {}", product.endless());
    json!({ "transaction": { "sql": sql, "end": "commit" } })
}

/// Asserts that another session can write the row immediately.
async fn row_is_free(world: &World, place: &str) {
    world.nothing_runs(place).await;
    let other = world.start("single", "always").await;
    let begun = Instant::now();
    let written = other.invoke(json!([{ "run": UPDATE }])).await;
    assert!(written.is_answered(), "{place}: {}", written.outcome);
    let took = begun.elapsed();
    assert!(
        took < Duration::from_millis(500) + SLACK,
        "{place}: {took:?}"
    );
    other.end().await;
}

/// One handler, and its database.
struct Scene<'a> {
    world: &'a World,
    kind: &'a str,
    close: &'a str,
    place: String,
}

/// Runs `prove` with each of these handlers. Sequentially, because cancelling within the reserve needs a processor.
async fn everywhere(kinds: &[&str], closes: &[&str], prove: impl AsyncFn(Scene<'_>)) {
    for product in PRODUCTS {
        let world = world(product).await;
        for kind in kinds {
            for close in closes {
                prove(Scene {
                    world: &world,
                    kind,
                    close,
                    place: format!("{product:?}/{kind}/{close}"),
                })
                .await;
            }
        }
    }
}

impl Scene<'_> {
    async fn start(&self) -> Running {
        self.world.start(self.kind, self.close).await
    }

    async fn start_with_timeout(&self, timeout: Duration) -> Running {
        let sandbox = self.world.sandbox(self.kind, self.close);
        Running::of(sandbox.timeout(timeout)).await
    }

    fn the_finally_was_short(&self, invocation: &Invocation) {
        let after = invocation.spent(PhaseKind::After);
        assert!(after < CANCEL_TIMEOUT + SLACK, "{}: {after:?}", self.place);
    }

    async fn row_is_free(&self) {
        row_is_free(self.world, &self.place).await;
    }

    /// Asserts that the next invocation succeeds in the same process, without a cold start.
    async fn goes_on(&self, running: Running) {
        let next = running.invoke(json!([{ "run": UPDATE }])).await;
        assert!(
            next.is_answered() && !next.cold,
            "{}: {}",
            self.place,
            next.outcome
        );
        running.end().await;
    }
}

#[tokio::test]
async fn query_is_cancelled_at_deadline() {
    support::alone();
    everywhere(&KINDS, &["always", "never"], async |scene| {
        let place = &scene.place;
        let running = scene.start_with_timeout(Duration::from_millis(1_200)).await;
        let invocation = running.invoke(json!([hold(scene.world.product)])).await;
        match &invocation.outcome {
            Outcome::Failed { error_type, .. } => {
                assert_eq!(error_type, "DeadlineExceeded", "{place}");
            }
            other => panic!("{place}: {other}"),
        }
        scene.row_is_free().await;
        scene.goes_on(running).await;
    })
    .await;
}

#[tokio::test]
async fn sibling_query_is_cancelled_after_error() {
    support::measures_time();
    let closes = ["always", "on_error", "never"];
    everywhere(&["db", "pool"], &closes, async |scene| {
        let place = &scene.place;
        let running = scene.start().await;
        let twins = [scene.world.product.endless(), REFUSED];
        let invocation = running.invoke(json!([{ "together": twins }])).await;
        assert!(
            matches!(&invocation.outcome, Outcome::Failed { error_type, .. } if error_type == "Query"),
            "{place}: {}",
            invocation.outcome
        );
        scene.world.nothing_runs(place).await;
        scene.the_finally_was_short(&invocation);
        scene.goes_on(running).await;
    })
    .await;
}

#[tokio::test]
async fn query_is_cancelled_after_callers_timeout() {
    support::measures_time();
    everywhere(&KINDS, &["always", "never"], async |scene| {
        let running = scene.start().await;
        let hold = hold(scene.world.product);
        let dropped = json!({ "dropped": { "steps": [hold], "ms": 300 } });
        let invocation = running.invoke(json!([dropped])).await;
        let answered = invocation.is_answered();
        assert!(answered, "{}: {}", scene.place, invocation.outcome);
        scene.the_finally_was_short(&invocation);
        scene.row_is_free().await;
        scene.goes_on(running).await;
    })
    .await;
}

#[tokio::test]
async fn query_is_cancelled_after_panic() {
    support::measures_time();
    everywhere(&KINDS, &["always", "never"], async |scene| {
        let running = scene.start().await;
        let endless = scene.world.product.endless();
        let give_up = json!({ "give_up": { "sql": endless, "ms": 50 } });
        let begin = json!({ "run": format!("BEGIN; {UPDATE}") });
        let invocation = running.invoke(json!([begin, give_up, "panic"])).await;
        assert!(
            matches!(&invocation.outcome, Outcome::Failed { .. }),
            "{}: {}",
            scene.place,
            invocation.outcome
        );
        scene.row_is_free().await;
        scene.goes_on(running).await;
    })
    .await;
}
