//! Runs against live servers: the proxies' counts and the server's list must agree.

use std::time::Duration;

use crate::common::{example, servers::Server};
use sandbox::{Fault, Fleet, Function, Incident, Moment, Outcome, Plan, Report, Sandbox};
use serde_json::json;

async fn run(server: &Server, plan: Plan, timeout: Duration) -> Report {
    let sandbox = Sandbox::new(Function::new(example("plain_pool")))
        .timeout(timeout)
        .rtt(Duration::from_millis(1))
        .database("DATABASE_URL", &server.url)
        .unwrap();
    Fleet::new(sandbox, plan)
        .observe(&server.url)
        .run(|_| {})
        .await
        .unwrap()
}

fn plan(environments: usize, invocations: usize, sleep_ms: u32) -> Plan {
    Plan {
        freeze: Duration::from_millis(100),
        events: vec![json!({"ms": sleep_ms}).into()],
        ..Plan::new(environments, invocations)
    }
}

fn check_counts(report: &Report) {
    let totals = &report.totals;
    assert!(report.verdict.ok, "{:?}", report.verdict);
    assert_eq!(totals.answered, 12);
    let connections = totals.connections.as_ref().unwrap();
    assert!((3..=6).contains(&connections.opened), "{connections:?}");
    let on_server = connections.peak_on_server.unwrap();
    assert!(
        on_server >= 3 && on_server <= connections.peak,
        "{connections:?}"
    );
    assert_eq!(connections.freezes, 9);
    assert_eq!(
        connections.freezes_holding, 9,
        "a global pool holds its connections"
    );
    assert!(
        report.samples.iter().any(|sample| sample.running > 0),
        "running queries are seen"
    );
    assert_eq!(report.samples.first().unwrap().connections, 0);
    let residue = connections.residue.as_ref().unwrap();
    assert_eq!(
        (residue.connections, residue.running, residue.hidden),
        (0, 0, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_observed() {
    let server = Server::postgres().ready().await;
    check_counts(&run(&server, plan(3, 12, 100), Duration::from_secs(3)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_is_observed() {
    let server = Server::mariadb().ready().await;
    check_counts(&run(&server, plan(3, 12, 100), Duration::from_secs(3)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn query_that_outlives_its_function_is_found_on_server() {
    let server = Server::postgres().ready().await;
    let report = run(&server, plan(1, 1, 20_000), Duration::from_millis(300)).await;
    let timed_out = report.invocations().next().unwrap();
    assert_eq!(timed_out.outcome, Outcome::TimedOut);
    let residue = report
        .totals
        .connections
        .as_ref()
        .unwrap()
        .residue
        .as_ref()
        .unwrap();
    assert_eq!((residue.connections, residue.running), (1, 1));
    assert!(!report.verdict.ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn incidents_happen_at_planned_moment() {
    let server = Server::postgres().ready().await;
    let dark = Incident {
        fault: Fault::DarkExisting,
        at: Moment::Freeze(2),
        delay: Duration::ZERO,
    };
    let mut plan = plan(1, 4, 0);
    plan.faults = vec![dark];
    let report = run(&server, plan, Duration::from_millis(600)).await;
    let environment = &report.environments[0];
    let dark = environment.connections[0].dark.unwrap();
    let second_freeze = environment.freezes[1].at;
    assert!(
        (0.0..50.0).contains(&(dark - second_freeze)),
        "{dark} {second_freeze}"
    );
    assert!(environment.invocations[1].is_answered(), "before it");
    // Later events depend on a race between the function and its pool.
    let residue = report
        .totals
        .connections
        .as_ref()
        .unwrap()
        .residue
        .as_ref()
        .unwrap();
    assert_eq!(
        (residue.connections, residue.hidden),
        (0, 1),
        "held open by the dark network alone"
    );
}
