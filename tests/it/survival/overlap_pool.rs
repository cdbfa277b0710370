//! Concurrent invocations in one process on sqlx's pool: a failure of one does not affect the others.

use crate::world::{Product, Running, World};
use db_handler::sqlx::{Connection, Executor, MySqlConnection, PgConnection};
use futures_util::future::join_all;
use sandbox::{Environment, Invocation, Outcome};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use support::wait_for;

/// Parameter kinds whose connections come from sqlx's pool.
const KINDS: [&str; 2] = ["pool", "transaction"];
const SERVERS: [Product; 2] = [Product::Postgres, Product::MariaDb];
const AT_ONCE: [usize; 2] = [2, 8];
/// Much longer than cancelling takes, and much shorter than the query.
const NEVER_CANCELLED: Duration = Duration::from_secs(15);

/// A locked table: reading it blocks until the gate is opened.
struct Gate(Key);

enum Key {
    Postgres(PgConnection),
    MariaDb(MySqlConnection),
}

impl Gate {
    async fn shut(world: &World) -> Self {
        let url = world.server().url();
        Self(if world.product == Product::Postgres {
            let mut key = PgConnection::connect(url).await.expect("a connection");
            key.execute("BEGIN; LOCK TABLE gate IN ACCESS EXCLUSIVE MODE")
                .await
                .expect("the lock");
            Key::Postgres(key)
        } else {
            let mut key = MySqlConnection::connect(url).await.expect("a connection");
            key.execute("LOCK TABLES gate WRITE")
                .await
                .expect("the lock");
            Key::MariaDb(key)
        })
    }

    async fn open(self) {
        let closed = match self.0 {
            Key::Postgres(key) => key.close().await,
            Key::MariaDb(key) => key.close().await,
        };
        closed.expect("it goes");
    }
}

/// Steps that wait at the gate and then run a query.
fn passing(product: Product) -> Value {
    let gate = match product {
        Product::Postgres => "SELECT count(*)::text FROM gate",
        _ => "SELECT CAST(count(*) AS CHAR) FROM gate",
    };
    json!([{ "ask": gate }, { "ask": product.session() }, { "ask": product.session() }])
}

/// One function with concurrent invocations.
struct Scene {
    world: World,
    running: Running,
    at_once: usize,
    place: String,
}

impl Scene {
    async fn new(product: Product, kind: &str, close: &str, at_once: usize) -> Self {
        Self::with_timeout(product, kind, close, at_once, Duration::from_secs(60)).await
    }

    async fn with_timeout(
        product: Product,
        kind: &str,
        close: &str,
        at_once: usize,
        timeout: Duration,
    ) -> Self {
        let world = World::new(product).await;
        world.prepare("CREATE TABLE gate (id INT)").await;
        let mut url = world.server().url().to_owned();
        if product == Product::Postgres {
            // Turns off the server's check for lost clients, so that only a cancel request ends a query.
            let separator = if url.contains('?') { '&' } else { '?' };
            url = format!("{url}{separator}options=-c%20client_connection_check_interval%3D0");
        }
        let sandbox = world
            .sandbox_with(kind, close, |function| function)
            .concurrency(at_once)
            .timeout(timeout)
            .database("DATABASE_URL", &url)
            .expect("a URL with a host");
        Self {
            running: Running::of(sandbox).await,
            world,
            at_once,
            place: format!("{product:?}/{kind}/{close}, {at_once} at once"),
        }
    }

    fn environment(&self) -> &Environment {
        &self.running.0
    }

    /// Runs `steps` while the other invocations wait at the gate, and then opens the gate.
    async fn beside(&self, steps: impl AsyncFnOnce() -> Invocation) -> Invocation {
        let gate = Gate::shut(&self.world).await;
        let others = self.at_once - 1;
        let passing = passing(self.world.product);
        let neighbours = (0..others).map(|_| self.running.invoke(passing.clone()));
        let accident = async {
            self.world.server().wait_until_running(others).await;
            let accident = steps().await;
            // Its orphaned queries are cancelled while the others still run.
            let from = Instant::now();
            loop {
                let runs = self.world.server().running_queries().await;
                if runs.len() <= others {
                    break;
                }
                assert!(
                    from.elapsed() < NEVER_CANCELLED,
                    "{}: {runs:?} after {}",
                    self.place,
                    accident.outcome
                );
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            gate.open().await;
            accident
        };
        let (neighbours, accident) = tokio::join!(join_all(neighbours), accident);
        for neighbour in neighbours {
            assert!(
                neighbour.is_answered(),
                "{}: {} beside {}\n{}",
                self.place,
                neighbour.outcome,
                accident.outcome,
                self.world.last_words(5)
            );
        }
        accident
    }

    fn assert_answered(&self, invocation: &Invocation) {
        let outcome = &invocation.outcome;
        assert!(invocation.is_answered(), "{}: {outcome}", self.place);
    }

    async fn end(self) {
        let left = async || self.world.server().running_queries().await;
        let what = format!("{}: nothing to run", self.place);
        wait_for(&what, left, Vec::is_empty).await;
        self.running.end().await;
    }
}

async fn everywhere(kinds: &[&str], prove: impl AsyncFn(Scene)) {
    for product in SERVERS {
        for kind in kinds {
            for close in ["wide_always", "wide_never"] {
                for at_once in AT_ONCE {
                    prove(Scene::new(product, kind, close, at_once).await).await;
                }
            }
        }
    }
}

fn failed(invocation: &Invocation) -> &str {
    match &invocation.outcome {
        Outcome::Failed { error_type, .. } => error_type,
        other => panic!("it did not fail: {other}"),
    }
}

#[tokio::test]
async fn panic_fails_no_concurrent_invocation() {
    support::waits();
    everywhere(&KINDS, async |scene| {
        let session = json!({ "ask": scene.world.product.session() });
        let accident = scene
            .beside(async || scene.running.invoke(json!([session, "panic"])).await)
            .await;
        assert_eq!(failed(&accident), "HandlerPanicked", "{}", scene.place);
        scene.end().await;
    })
    .await;
}

#[tokio::test]
async fn dropped_future_fails_no_concurrent_invocation_and_is_cancelled() {
    support::waits();
    everywhere(&KINDS, async |scene| {
        let steps = [json!({ "ask": scene.world.product.endless() })];
        let dropped = json!([{ "dropped": { "steps": steps, "ms": 300 } }]);
        let accident = scene
            .beside(async || scene.running.invoke(dropped).await)
            .await;
        scene.assert_answered(&accident);
        scene.end().await;
    })
    .await;
}

#[tokio::test]
async fn dropped_query_is_cancelled_while_others_run() {
    support::waits();
    everywhere(&KINDS, async |scene| {
        let endless = scene.world.product.endless();
        let steps = json!([{ "give_up": { "sql": endless, "ms": 300 } }]);
        scene
            .beside(async || scene.running.invoke(steps).await)
            .await;
        scene.end().await;
    })
    .await;
}

/// The concurrent invocations have much later deadlines.
#[tokio::test]
async fn deadline_fails_no_concurrent_invocation() {
    support::measures_time();
    let scenes = SERVERS.iter().flat_map(|product| {
        KINDS.map(async |kind| {
            let timeout = Duration::from_secs(12);
            let scene = Scene::with_timeout(*product, kind, "patient_never", 2, timeout).await;
            let endless = json!([{ "ask": product.endless() }]);
            let late = async {
                scene.world.server().wait_until_running(1).await;
                tokio::time::sleep(timeout / 2).await;
                let gate = Gate::shut(&scene.world).await;
                let neighbour = scene.running.invoke(passing(*product));
                let opening = async {
                    scene.world.server().wait_until_running(2).await;
                    scene.world.wait_for_log("DeadlineExceeded").await;
                    let cancelled = scene.world.server().wait_until_running(1);
                    if tokio::time::timeout(NEVER_CANCELLED, cancelled)
                        .await
                        .is_err()
                    {
                        panic!("{}:\n{}", scene.place, scene.world.log());
                    }
                    gate.open().await;
                };
                tokio::join!(neighbour, opening).0
            };
            let (stopped, neighbour) = tokio::join!(scene.running.invoke(endless), late);
            assert_eq!(failed(&stopped), "DeadlineExceeded", "{}", scene.place);
            scene.assert_answered(&neighbour);
            scene.end().await;
        })
    });
    join_all(scenes).await;
}

#[tokio::test]
async fn leaked_clone_fails_no_concurrent_invocation() {
    support::waits();
    everywhere(&["pool"], async |scene| {
        let escape = json!([{ "escape": { "sql": "SELECT 1", "ms": 50 } }]);
        let accident = scene
            .beside(async || {
                let accident = scene.running.invoke(escape).await;
                // The clone's query runs meanwhile. While other invocations run, it is executed and not logged.
                tokio::time::sleep(Duration::from_millis(200)).await;
                accident
            })
            .await;
        scene.assert_answered(&accident);
        scene.end().await;
    })
    .await;
}

/// However many queries are dropped, at most `max` (2) and one that is being cancelled run at a time.
#[tokio::test]
async fn orphaned_queries_count_against_max() {
    support::waits();
    for product in SERVERS {
        for at_once in [1, 2, 8] {
            let scene = Scene::new(product, "pool", "patient_never", at_once).await;
            let endless = product.endless();
            let drop_one = json!({ "give_up": { "sql": endless, "ms": 60 } });
            let drop_some = json!(vec![drop_one; 6 / at_once.min(3)]);
            let dropping = (0..at_once).map(|_| scene.running.invoke(drop_some.clone()));
            let mut most = 0;
            let counting = async {
                loop {
                    let mut running = scene.world.server().running_queries().await;
                    running.retain(|sql| sql == endless);
                    most = most.max(running.len());
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::select! {
                _ = join_all(dropping) => {}
                () = counting => {}
            }
            assert!(most <= 3, "{}: {most} at once", scene.place);
            let next = scene
                .running
                .invoke(json!([{ "ask": product.session() }]))
                .await;
            scene.assert_answered(&next);
            scene.end().await;
        }
    }
}

/// Session state: how to set it, how to read it, and its value in a new session.
fn marks(product: Product) -> Vec<(&'static str, &'static str, Option<&'static str>)> {
    match product {
        Product::Postgres => vec![
            (
                "SET search_path = secret",
                "SELECT current_setting('search_path')",
                Some("\"$user\", public"),
            ),
            (
                "CREATE TEMPORARY TABLE secret (id INT)",
                "SELECT to_regclass('pg_temp.secret')::text",
                None,
            ),
            (
                "SELECT pg_advisory_lock(7)",
                "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
                Some("0"),
            ),
        ],
        _ => vec![
            (
                "SET @secret = 'secret'",
                "SELECT CAST(@secret AS CHAR)",
                None,
            ),
            (
                "SET SESSION group_concat_max_len = 4711",
                "SELECT CAST(@@group_concat_max_len = 4711 AS CHAR)",
                Some("0"),
            ),
            (
                "DO GET_LOCK('secret', 0)",
                "SELECT CAST(NULLIF(IS_USED_LOCK('secret') = CONNECTION_ID(), 0) AS CHAR)",
                None,
            ),
        ],
    }
}

#[tokio::test]
async fn session_state_is_not_visible_to_other_invocations() {
    support::waits();
    everywhere(&KINDS, async |scene| {
        let marks = marks(scene.world.product);
        let leave: Vec<Value> = marks
            .iter()
            .map(|(sql, ..)| json!({ "run": sql }))
            .collect();
        let look: Vec<Value> = marks
            .iter()
            .map(|(_, sql, _)| json!({ "ask": sql }))
            .collect();
        let expected: Vec<Value> = marks.iter().map(|(.., fresh)| json!(fresh)).collect();
        // Runs alone, and leaves the session idle.
        scene.running.succeed(json!(look)).await;
        let next = scene
            .beside(async || {
                let left = scene.running.invoke(json!(leave)).await;
                assert!(left.is_answered(), "{}: {}", scene.place, left.outcome);
                // Each invocation may get any of the connections.
                let mut seen = scene.running.invoke(json!(look)).await;
                for _ in 0..4 {
                    if seen.json() != Some(json!(expected)) {
                        break;
                    }
                    seen = scene.running.invoke(json!(look)).await;
                }
                seen
            })
            .await;
        assert_eq!(next.json(), Some(json!(expected)), "{}", scene.place);
        scene.end().await;
    })
    .await;
}

/// Another invocation begins while the dirty session is idle.
#[tokio::test]
async fn new_invocation_does_not_see_session_of_running_one() {
    support::waits();
    for product in SERVERS {
        for close in ["wide_always", "wide_never"] {
            let scene = Scene::new(product, "pool", close, 2).await;
            for (leave, look, fresh) in marks(product) {
                if leave.to_lowercase().contains("lock") {
                    // A held lock is visible to all sessions.
                    continue;
                }
                let said = format!("left {leave}");
                let first = json!([{ "run": leave }, { "say": said }, { "linger": 1_500 }]);
                let second = async {
                    scene.world.wait_for_log(&said).await;
                    scene.running.invoke(json!([{ "ask": look }])).await
                };
                let (first, second) = tokio::join!(scene.running.invoke(first), second);
                assert!(first.is_answered(), "{}: {}", scene.place, first.outcome);
                assert_eq!(
                    second.json(),
                    Some(json!([fresh])),
                    "{}: {leave}",
                    scene.place
                );
            }
            scene.end().await;
        }
    }
}

/// The second invocation begins while the query of the first is being cancelled.
#[tokio::test]
async fn new_invocation_is_not_cancelled_with_ending_one() {
    support::waits();
    for product in SERVERS {
        for kind in KINDS {
            let scene = Scene::new(product, kind, "wide_never", 2).await;
            let endless = product.endless();
            let short = match product {
                Product::Postgres => "SELECT pg_sleep(0.04)::text",
                _ => "SELECT CAST(sleep(0.04) AS CHAR)",
            };
            for round in 0..12 {
                let said = format!("dropped in round {round}.");
                let drops = json!([{ "give_up": { "sql": endless, "ms": 60 } }, { "say": said }]);
                let newcomer = async {
                    scene.world.wait_for_log(&said).await;
                    tokio::time::sleep(Duration::from_millis(round * 12)).await;
                    scene
                        .running
                        .invoke(json!(vec![json!({ "ask": short }); 8]))
                        .await
                };
                let (_, newcomer) = tokio::join!(scene.running.invoke(drops), newcomer);
                let outcome = &newcomer.outcome;
                assert!(
                    newcomer.is_answered(),
                    "{}, round {round}: {outcome}",
                    scene.place
                );
            }
            scene.end().await;
        }
    }
}

/// Some concurrent invocations drop a query.
#[tokio::test]
async fn concurrent_cancellations_hit_only_dropped_queries() {
    support::waits();
    for product in SERVERS {
        for kind in KINDS {
            for close in ["wide_always", "wide_never"] {
                let scene = Scene::new(product, kind, close, 8).await;
                let endless = product.endless();
                let drops = json!([{ "give_up": { "sql": endless, "ms": 5 } }]);
                let session = json!({ "ask": product.session() });
                let works = json!(vec![session; 10]);
                let each = (0..8).map(async |number| {
                    for round in 0..10 {
                        let is_careless = (number + round) % 4 == 0;
                        let steps = if is_careless { &drops } else { &works };
                        let done = scene.running.invoke(steps.clone()).await;
                        let expected = is_careless && kind == "transaction";
                        assert!(
                            done.is_answered() || expected,
                            "{}: {}\n{}",
                            scene.place,
                            done.outcome,
                            scene.world.last_words(5)
                        );
                    }
                });
                join_all(each).await;
                assert!(scene.environment().is_alive().await, "{}", scene.place);
                scene.end().await;
            }
        }
    }
}
