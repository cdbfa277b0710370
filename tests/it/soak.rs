//! Random invocations, freezes and faults, concurrently in several environments. Only invocations that a fault hits
//! may fail, no query or connection is left in the end, and memory and files do not grow.
//!
//! `SOAK_INVOCATIONS` (360) sets the total number, `SOAK_SEED` repeats a run, and `SOAK_ENVIRONMENT` runs only one
//! of its environments. The long run:
//!
//! `SOAK_INVOCATIONS=10000 cargo test --all-features --test it soak -- --nocapture`

mod overlap;
mod plan;
mod process;
mod random;

use crate::world::{Product, Running, World};
use db_handler::config::{CANCEL_TIMEOUT, TRUST};
use futures_util::future::join_all;
use plan::{Deed, Incident, Scene};
use process::Use;
use random::Random;
use sandbox::{Fault, Invocation, PhaseKind};
use std::{
    collections::BTreeMap,
    env,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Each environment has its own database, network and random sequence.
const ENVIRONMENTS: [(Product, &str, &str); 12] = [
    (Product::Postgres, "db", "never"),
    (Product::MariaDb, "db", "never"),
    (Product::Postgres, "pool", "never"),
    (Product::MariaDb, "pool", "never"),
    (Product::Postgres, "single", "never"),
    (Product::MariaDb, "single", "never"),
    (Product::Postgres, "db", "always"),
    (Product::MariaDb, "db", "on_error"),
    (Product::Postgres, "pool", "on_error"),
    (Product::MariaDb, "pool", "always"),
    (Product::Postgres, "single", "always"),
    (Product::Sqlite, "db", "never"),
];

/// The handler is cancelled `RESERVE` before.
const DEADLINE: Duration = Duration::from_millis(2_000);
/// Cancelling limits the cleanup; a busy machine may take longer.
const MAX_CLEANUP: Duration = CANCEL_TIMEOUT.saturating_add(Duration::from_millis(500));

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is not a number: {text}")),
    )
}

/// `SOAK_SEED`, or a new one.
fn seed() -> u64 {
    number("SOAK_SEED").unwrap_or_else(|| {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970");
        u64::from(now.subsec_nanos()) ^ now.as_secs()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_invocations_hit_by_faults_fail() {
    support::alone();
    let invocations = number("SOAK_INVOCATIONS").unwrap_or(360);
    run("SOAK_INVOCATIONS", invocations, ENVIRONMENTS.len(), soak).await;
}

/// Runs `soak` in each of the environments, or in `SOAK_ENVIRONMENT`, with its share of `invocations`. `total_variable`
/// sets their number in the command that repeats a failure.
async fn run(
    total_variable: &str,
    invocations: u64,
    environments: usize,
    soak: impl AsyncFn(usize, u64, Random, String) -> Summary,
) {
    let seed = seed();
    let only = number("SOAK_ENVIRONMENT");
    println!("SOAK_SEED={seed} {total_variable}={invocations}");
    let each = invocations.div_ceil(environments as u64);
    let chosen = (0..environments).filter(|one| only.is_none_or(|only| only == *one as u64));
    let begun = Instant::now();
    let soaking = chosen.map(|one| {
        let replay =
            format!("SOAK_SEED={seed} {total_variable}={invocations} SOAK_ENVIRONMENT={one}");
        soak(one, each, Random::fork(seed, one), replay)
    });
    let mut failures = Vec::new();
    let mut total = Summary::default();
    for summary in join_all(soaking).await {
        println!("{summary}");
        failures.extend(summary.failures.iter().cloned());
        total.add(summary);
    }
    println!("{total}");
    println!("took {:?}", begun.elapsed());
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n\n")
    );
}

/// The results of one environment, or of all.
#[derive(Default)]
struct Summary {
    name: String,
    outcomes: BTreeMap<String, u64>,
    incidents: BTreeMap<Incident, u64>,
    deeds: BTreeMap<Deed, u64>,
    excused: u64,
    /// Times of invocations that succeeded without an incident.
    waited: Vec<Duration>,
    longest_after: Duration,
    opened: usize,
    uses: Vec<(Use, Use)>,
    not_stopped: usize,
    /// Queries found on the server after the function logged that it could not cancel them in time.
    left_running: usize,
    failures: Vec<String>,
}

impl Summary {
    fn add(&mut self, other: Self) {
        "all".clone_into(&mut self.name);
        for (key, count) in other.outcomes {
            *self.outcomes.entry(key).or_default() += count;
        }
        for (key, count) in other.incidents {
            *self.incidents.entry(key).or_default() += count;
        }
        for (key, count) in other.deeds {
            *self.deeds.entry(key).or_default() += count;
        }
        self.excused += other.excused;
        self.waited.extend(other.waited);
        self.longest_after = self.longest_after.max(other.longest_after);
        self.opened += other.opened;
        self.uses.extend(other.uses);
        self.not_stopped += other.not_stopped;
        self.left_running += other.left_running;
        self.failures.extend(other.failures);
    }

    fn percentile(&self, percent: usize) -> Duration {
        let mut waited = self.waited.clone();
        waited.sort_unstable();
        let at = waited.len().saturating_sub(1) * percent / 100;
        waited.get(at).copied().unwrap_or_default()
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count: u64 = self.outcomes.values().sum();
        writeln!(
            f,
            "{}: {count} invocations, {} failures, {} excused",
            self.name,
            self.failures.len(),
            self.excused
        )?;
        writeln!(f, "  outcomes   {:?}", self.outcomes)?;
        if self.name == "all" {
            writeln!(f, "  incidents  {:?}", self.incidents)?;
            writeln!(f, "  deeds      {:?}", self.deeds)?;
        }
        writeln!(
            f,
            "  undisturbed responses p50 {:?}, p99 {:?}; the cleanup at most {:?}; {} connections opened; {} cancellations failed (refused, dark or too slow), {} seen running for that",
            self.percentile(50),
            self.percentile(99),
            self.longest_after,
            self.opened,
            self.not_stopped,
            self.left_running
        )?;
        let uses = self.uses.iter().map(|(before, after)| {
            format!(
                "{} -> {} KiB, {} -> {} files",
                before.kib, after.kib, before.files, after.files
            )
        });
        write!(
            f,
            "  after the warm-up -> in the end: {}",
            uses.collect::<Vec<_>>().join("; ")
        )
    }
}

/// Runs one environment from start to end.
async fn soak(index: usize, invocations: u64, mut random: Random, replay: String) -> Summary {
    let (product, kind, close) = ENVIRONMENTS[index];
    let name = format!("{index} {}/{kind}/{close}", product.name());
    let world = World::new(product).await;
    world.prepare("CREATE TABLE orders (id INT)").await;
    let running = Running::of(world.sandbox(kind, close).timeout(DEADLINE)).await;
    let process = running.0.pid().await.expect("a process");
    let mut summary = Summary {
        name: name.clone(),
        ..Summary::default()
    };
    let mut warm = Use::of(process);
    let mut shaken = false;
    let mut inspected = 0;
    for number in 1..=invocations {
        let mut shaken_by_us = false;
        let scene = Scene::draw(&mut random, product, kind);
        befall(&world, &running, scene.incident).await;
        if scene.incident.is_long() {
            running.stand_still(TRUST + Duration::from_millis(50)).await;
        }
        let invocation = running.invoke(scene.steps(product, kind)).await;
        if matches!(scene.incident, Incident::Refused | Incident::Silence) {
            running.heal().await;
        }
        shaken &= !scene.incident.is_long();
        let mut wrong = scene
            .judge(close, shaken, &invocation.outcome)
            .or_else(|| scene.mixed_up(kind, &invocation.json()?));
        if scene.inspect && wrong.is_none() {
            wrong = inspect(&world, close, scene).await;
            // On a busy machine the reserve may be too short for one more connection. The function logs
            // that, and only then may a query be left.
            let log = world.log();
            if wrong.is_some() && reports_left_behind(&log[inspected..]) {
                world.server().terminate_connections().await;
                shaken_by_us = true;
                summary.left_running += 1;
                wrong = None;
            }
            if !scene.incident.hides() {
                inspected = log.len();
            }
        }
        let after = invocation.spent(PhaseKind::After);
        if after > MAX_CLEANUP && wrong.is_none() {
            wrong = Some(format!("its cleanup took {after:?}"));
        }
        if let Some(wrong) = wrong {
            let failure = format!(
                "{name}, invocation {number}: {scene:?}, shaken: {shaken}\n  {} after {:?}, then {after:?}: {wrong}\n  again: {replay} cargo test --all-features --test it soak -- --nocapture\n  {}",
                invocation.outcome,
                invocation.waited,
                world.last_words(3)
            );
            // Printed immediately: the long run takes minutes.
            println!("{failure}");
            summary.failures.push(failure);
        }
        shaken = shaken_by_us || !plan::noticed(scene.incident, shaken, &invocation.outcome);
        summary.note(scene, &invocation);
        if number == invocations.div_ceil(4) {
            warm = Use::of(process);
        }
    }
    let now = Use::of(process);
    summary.uses.extend(warm.zip(now));
    summary.opened = running.opened();
    let uses = summary.uses.clone();
    let mut end = |wrong: String| {
        summary
            .failures
            .push(format!("{name}, in the end: {wrong}\n  again: {replay}"));
    };
    if running.0.starts() != 1 || running.0.pid().await != Some(process) {
        end(format!("it had {} processes", running.0.starts()));
    }
    // Growth shows only after many invocations: dropped results are read in large chunks, once.
    for (warm, now) in uses {
        if invocations >= 200 && !now.is_flat_since(warm) {
            end(format!("it grew from {warm:?} to {now:?}"));
        }
    }
    let violations = running.0.violations().await;
    if !violations.is_empty() {
        end(format!("{violations:?}"));
    }
    if close == "always" && product != Product::Sqlite {
        // The environment is alive and frozen.
        world.server().wait_until_connections(0).await;
    }
    running.end().await;
    if product != Product::Sqlite {
        // Ends the queries that could not be cancelled in time, without waiting for them.
        world.server().terminate_connections().await;
        world.server().wait_until_connections(0).await;
    }
    world.nothing_secret();
    summary.not_stopped = world.log().matches("could not be cancelled").count();
    summary
}

impl Summary {
    fn note(&mut self, scene: Scene, invocation: &Invocation) {
        let outcome = match &invocation.outcome {
            sandbox::Outcome::Answered { .. } => "answered".to_owned(),
            sandbox::Outcome::Failed { error_type, .. } => error_type.clone(),
            other => format!("{other:?}"),
        };
        *self.outcomes.entry(outcome).or_default() += 1;
        *self.incidents.entry(scene.incident).or_default() += 1;
        *self.deeds.entry(scene.deed).or_default() += 1;
        let plain = scene.deed == Deed::Ask && scene.incident == Incident::Nothing;
        if plain && invocation.is_answered() {
            self.waited.push(invocation.waited);
        }
        let network = !invocation.is_answered() && scene.incident != Incident::Nothing;
        self.excused += u64::from(network);
        self.longest_after = self.longest_after.max(invocation.spent(PhaseKind::After));
    }
}

/// Applies `incident` to the network or the server, between two invocations.
async fn befall(world: &World, running: &Running, incident: Incident) {
    match incident {
        Incident::Nothing | Incident::LongPause => {}
        Incident::DarkLong | Incident::DarkShort => running.0.apply(Fault::DarkExisting),
        Incident::ResetLong | Incident::ResetShort => running.0.apply(Fault::ResetExisting),
        Incident::KillLong | Incident::KillShort => {
            world.server().terminate_connections().await;
        }
        Incident::Refused => running.0.apply(Fault::Refuse),
        Incident::Silence => running.0.apply(Fault::Silence),
    }
}

fn reports_left_behind(log: &str) -> bool {
    log.contains("could not be cancelled") || log.contains("closed instead of being reused")
}

/// Returns what is wrong on the server while the environment is frozen.
async fn inspect(world: &World, close: &str, scene: Scene) -> Option<String> {
    if world.product == Product::Sqlite {
        return None;
    }
    let until = Instant::now() + Duration::from_secs(2);
    loop {
        let sessions = world.server().sessions().await;
        let running = sessions.iter().filter(|session| session.running).count();
        let open = sessions.len();
        let quiet = running == 0 || scene.incident.hides();
        let gone = close != "always" || open == 0 || scene.incident.hides();
        if quiet && gone {
            return None;
        }
        if Instant::now() > until {
            return Some(format!(
                "{running} queries run and {open} connections are open on the server: {sessions:?}"
            ));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
