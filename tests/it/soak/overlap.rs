//! Random accidents of several invocations at once in one process. Only the invocation that has the accident fails, none
//! sees another's rows or session state, and nothing is left on the server between two rounds.
//!
//! `SOAK_OVERLAPPING` (500) sets the total number of invocations, 10,000 with `EXTENDED`.

use super::{
    Summary, befall, inspect, number,
    plan::{DEEDS, Deed, Incident, Scene},
    random::Random,
    run,
};
use crate::world::{Product, Running, World};
use db_handler::config::TRUST;
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::time::Duration;

/// Each environment has its own database and random sequence, and so many invocations at once.
const ENVIRONMENTS: [(Product, &str, &str, usize); 8] = [
    (Product::Postgres, "db", "wide_never", 8),
    (Product::MariaDb, "db", "wide_always", 8),
    (Product::Postgres, "pool", "wide_never", 8),
    (Product::MariaDb, "pool", "wide_never", 8),
    (Product::Postgres, "single", "wide_always", 8),
    (Product::MariaDb, "single", "wide_never", 8),
    (Product::Postgres, "pool", "wide_always", 2),
    (Product::MariaDb, "db", "wide_never", 2),
];

/// `max` of these handlers.
const MAX: usize = 16;
/// The handler is cancelled 5 s before.
const TIMEOUT: Duration = Duration::from_secs(8);

/// What happens to all idle connections between two rounds: they are pinged before they are reused.
const BETWEEN_ROUNDS: &[(Incident, u64)] = &[
    (Incident::Nothing, 94),
    (Incident::LongPause, 2),
    (Incident::ResetLong, 2),
    (Incident::KillLong, 2),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_invocation_with_the_accident_fails() {
    support::alone();
    let default = if crate::extended() { 10_000 } else { 500 };
    let invocations = number("SOAK_OVERLAPPING").unwrap_or(default);
    run("SOAK_OVERLAPPING", invocations, ENVIRONMENTS.len(), soak).await;
}

/// A query whose result shows whether another invocation's session state is left.
fn probe(product: Product) -> (Value, &'static str) {
    let (sql, clean) = match product {
        Product::MariaDb => ("SELECT CAST(COALESCE(@tenant, 'none') AS CHAR)", "none"),
        _ => (
            "SELECT current_setting('work_mem') || (SELECT count(*) FROM pg_class WHERE relname = 'basket' \
             AND pg_table_is_visible(oid))",
            "4MB0",
        ),
    };
    (json!({ "ask": sql }), clean)
}

/// The scene's steps, with a look at the session before them. A scene that is dropped as a whole has none.
fn steps(scene: Scene, product: Product, kind: &str) -> Value {
    let mut steps = scene.steps(product, kind);
    if let (Value::Array(all), false) = (&mut steps, is_dropped(scene)) {
        all.insert(1, probe(product).0);
    }
    steps
}

fn is_dropped(scene: Scene) -> bool {
    scene.deed == Deed::GivenUpByItsCaller
}

/// Returns an error if the session was not clean, or a row was another query's.
fn mixed_up(scene: Scene, product: Product, kind: &str, response: &Value) -> Option<String> {
    let (_, clean) = probe(product);
    let seen = response.as_array().and_then(|all| all.get(1));
    if !is_dropped(scene) && seen.is_some_and(|seen| seen != clean) {
        return Some(format!("state of another session: {seen:?}"));
    }
    scene.mixed_up(kind, response)
}

async fn soak(index: usize, invocations: u64, mut random: Random, replay: String) -> Summary {
    let (product, kind, close, at_once) = ENVIRONMENTS[index];
    let name = format!(
        "{index} {}/{kind}/{close}, {at_once} at once",
        product.name()
    );
    let world = World::new(product).await;
    world.prepare("CREATE TABLE orders (id INT)").await;
    let sandbox = world.sandbox(kind, close).concurrency(at_once);
    let running = Running::of(sandbox.timeout(TIMEOUT)).await;
    let process = running.0.pid().await;
    let mut summary = Summary {
        name: name.clone(),
        ..Summary::default()
    };
    // Three guards are no more than there may be, and cancelling everything is not this test's.
    let mut deeds: Vec<(Deed, u64)> = DEEDS.to_vec();
    deeds.retain(|(deed, _)| *deed != Deed::OneTooMany);
    deeds.push((Deed::KillsItsOwn, 3));
    for round in 1..=invocations.div_ceil(at_once as u64) {
        let incident = random.pick(BETWEEN_ROUNDS);
        befall(&world, &running, incident).await;
        if incident.is_long() {
            // Where several invocations run at once, no environment is frozen.
            tokio::time::sleep(TRUST + Duration::from_millis(50)).await;
        }
        let scenes: Vec<Scene> = (0..at_once)
            .map(|_| Scene::calm(&mut random, &deeds, product, kind))
            .collect();
        let invoking = scenes
            .iter()
            .map(|scene| running.invoke(steps(*scene, product, kind)));
        let mut wrong = Vec::new();
        for (scene, invocation) in scenes.iter().zip(join_all(invoking).await) {
            let judged = scene
                .judge(close, false, &invocation.outcome)
                .or_else(|| mixed_up(*scene, product, kind, &invocation.json()?));
            if let Some(judged) = judged {
                let (outcome, waited) = (&invocation.outcome, invocation.waited);
                wrong.push(format!("{scene:?}: {outcome} after {waited:?}: {judged}"));
            }
            summary.note(*scene, &invocation);
        }
        let closed = close.strip_prefix("wide_").unwrap_or(close);
        wrong.extend(inspect(&world, closed, scenes[0]).await);
        let open = world.server().sessions().await.len();
        if open > MAX {
            wrong.push(format!("{open} connections are open"));
        }
        if !wrong.is_empty() {
            let failure = format!(
                "{name}, round {round} after {incident:?}: {}\n  beside {:?}\n  again: {replay} cargo test --all-features --test it soak::overlap -- --nocapture\n  {}",
                wrong.join("\n  "),
                scenes.iter().map(|scene| scene.deed).collect::<Vec<_>>(),
                world.last_words(6)
            );
            println!("{failure}");
            summary.failures.push(failure);
        }
    }
    summary.opened = running.opened();
    if running.0.starts() != 1 || running.0.pid().await != process {
        summary.failures.push(format!(
            "{name}: it had {} processes\n  again: {replay}",
            running.0.starts()
        ));
    }
    running.end().await;
    world.server().wait_until_connections(0).await;
    world.nothing_secret();
    summary
}
