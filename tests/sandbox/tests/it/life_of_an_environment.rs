//! Cold and warm starts, freezes, timeouts, crashes and shutdowns.

use std::time::{Duration, Instant};

use crate::common::{
    self, eventually, is_running, probe,
    puppet::{Puppet, answer, get},
    state,
};
use sandbox::{After, Limits, Outcome, PhaseKind, Sandbox};
use serde_json::{Value, json};

fn clock() -> Value {
    json!({"op": "clock"})
}

#[tokio::test]
async fn invocations_that_waited_for_init_are_cold() {
    let sandbox = Sandbox::new(probe().env("PROBE_INIT_MS", "300")).concurrency(2);
    let environment = sandbox.environment().await.unwrap();
    let (one, other) = tokio::join!(environment.invoke(clock()), environment.invoke(clock()));
    assert_eq!(environment.starts(), 1);
    assert!(one.cold && other.cold, "{one:?} {other:?}");
    assert!(!environment.invoke(clock()).await.cold);
}

#[tokio::test]
async fn environment_is_cold_then_warm_then_frozen() {
    let environment = Sandbox::new(probe()).environment().await.unwrap();
    let cold = environment.invoke(clock()).await;
    assert!(cold.cold && cold.spent(PhaseKind::Init) > Duration::ZERO);
    assert_eq!(cold.after, After::Polled);
    assert!(cold.billed >= cold.spent(PhaseKind::Handler));
    // Stopped as soon as the invocation ends.
    let pid = environment.pid().await.unwrap();
    assert_eq!(state(pid), Some('T'));
    let ticks =
        |invocation: &sandbox::Invocation| invocation.json().unwrap()["ticks"].as_u64().unwrap();
    let pause = Duration::from_millis(600);
    assert!(environment.stands_still_for(pause).await);
    let warm = environment.invoke(clock()).await;
    assert!(!warm.cold);
    assert!(ticks(&warm) <= ticks(&cold) + 1, "its timers did not run");
    assert!(warm.waited < Duration::from_millis(100));
    let frozen = environment
        .phases()
        .into_iter()
        .find(|phase| phase.kind == PhaseKind::Frozen)
        .unwrap();
    assert!(frozen.to - frozen.from >= 600.0);

    environment.thaw().await;
    assert_ne!(state(pid), Some('T'));
    assert!(!environment.stands_still_for(Duration::ZERO).await);
    tokio::time::sleep(Duration::from_millis(600)).await;
    let later = environment.invoke(clock()).await;
    assert!(ticks(&later) >= ticks(&warm) + 4, "not frozen, it goes on");
    assert_eq!(environment.starts(), 1);
}

#[tokio::test]
async fn deadline_ends_process_and_next_invocation_starts_another() {
    let environment = Sandbox::new(probe())
        .timeout(Duration::from_millis(300))
        .start()
        .await
        .unwrap();
    let pid = environment.pid().await.unwrap();
    let late = environment.invoke(json!({"op": "sleep", "ms": 5000})).await;
    assert_eq!(late.outcome, Outcome::TimedOut);
    assert!(
        late.waited >= Duration::from_millis(300) && late.waited < Duration::from_millis(400),
        "{late:?}"
    );
    assert!(!is_running(pid));
    let next = environment.invoke(clock()).await;
    assert!(next.cold && next.is_answered());
    assert_eq!(environment.starts(), 2);
}

#[tokio::test]
async fn sigterm_is_sent_only_with_registered_extension() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("asked");
    let function = probe().env("PROBE_SHUTDOWN_FILE", &file);
    let sandbox = Sandbox::new(function).timeout(Duration::from_millis(200));
    let environment = sandbox.start().await.unwrap();
    let late = environment.invoke(json!({"op": "sleep", "ms": 5000})).await;
    assert_eq!(late.outcome, Outcome::TimedOut);
    assert!(file.exists(), "at the deadline");
    std::fs::remove_file(&file).unwrap();
    environment.start().await.unwrap();
    let ended = environment.shutdown().await.unwrap();
    assert!(ended.asked && ended.in_time && ended.took < Duration::from_millis(500));
    assert!(file.exists(), "at the shutdown");

    std::fs::remove_file(&file).unwrap();
    let poll = "trap 'touch $F; exit' TERM; \
                curl -s http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/next & wait";
    let function = common::script(poll).env("F", &file);
    let environment = Sandbox::new(function).start().await.unwrap();
    let ended = environment.shutdown().await.unwrap();
    assert!(!ended.asked && !file.exists(), "no extension, no SIGTERM");
}

#[tokio::test]
async fn function_that_ignores_sigterm_is_killed_after_grace_period() {
    // Registers an extension, polls, and ignores signals.
    let script = "trap '' TERM; curl -s -XPOST -H 'Lambda-Extension-Name: e' -d '{\"events\":[]}' -D $F -o /dev/null \
                  http://$AWS_LAMBDA_RUNTIME_API/2020-01-01/extension/register; \
                  id=$(sed -n 's/\\r$//;s/^lambda-extension-identifier: //p' $F); \
                  curl -s -H \"Lambda-Extension-Identifier: $id\" http://$AWS_LAMBDA_RUNTIME_API/2020-01-01/extension/event/next & \
                  while :; do curl -s http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/next; done";
    let folder = tempfile::tempdir().unwrap();
    let function = common::script(script).env("F", folder.path().join("headers"));
    let environment = Sandbox::new(function).start().await.unwrap();
    let ended = environment.shutdown().await.unwrap();
    assert!(ended.asked && !ended.in_time);
    assert!(
        ended.took >= Duration::from_millis(500) && ended.took < Duration::from_millis(800),
        "{ended:?}"
    );
}

#[tokio::test]
async fn crash_is_detected_at_once_and_next_invocation_starts_another_process() {
    let environment = Sandbox::new(probe()).start().await.unwrap();
    let began = Instant::now();
    let crash = environment.invoke(json!({"op": "exit"})).await;
    assert_eq!(
        crash.outcome,
        Outcome::Crashed {
            status: "exit status 3".into()
        }
    );
    assert!(began.elapsed() < Duration::from_secs(1));
    assert!(environment.invoke(clock()).await.is_answered());
    assert_eq!(environment.starts(), 2);
}

#[tokio::test]
async fn process_that_dies_while_frozen_is_replaced() {
    let environment = Sandbox::new(probe()).start().await.unwrap();
    let pid = environment.pid().await.unwrap();
    std::process::Command::new("kill")
        .args(["-KILL", &pid.to_string()])
        .status()
        .unwrap();
    let until = Instant::now() + common::PATIENCE;
    while environment.is_alive().await {
        assert!(Instant::now() < until, "its end goes unnoticed");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let next = environment.invoke(clock()).await;
    assert!(next.is_answered(), "{next:?}");
}

#[tokio::test]
async fn work_after_response_is_billed_and_does_not_delay_caller() {
    let puppet = Puppet::new();
    let (environment, poll) = puppet.start(&puppet.sandbox()).await;
    let address = puppet.address().await;
    let work = Duration::from_millis(300);
    let conduct = async {
        let id = poll.await.unwrap().headers["lambda-runtime-aws-request-id"].clone();
        answer(&address, &id, "1").await;
        tokio::time::sleep(work).await;
        let address = address.clone();
        // In a tuple: clippy would treat a handle alone as a future to await.
        (tokio::spawn(async move {
            get(&address, "/2018-06-01/runtime/invocation/next").await
        }),)
    };
    let (invocation, (poll,)) = tokio::join!(environment.invoke(json!({})), conduct);
    assert!(
        invocation.waited < work && invocation.billed >= work,
        "{invocation:?}"
    );
    assert!(invocation.spent(PhaseKind::After) >= work);

    // At the deadline it is killed; the response has been delivered.
    let conduct = async {
        let id = poll.await.unwrap().headers["lambda-runtime-aws-request-id"].clone();
        answer(&address, &id, "2").await;
    };
    let (invocation, ()) = tokio::join!(environment.invoke(json!({})), conduct);
    assert_eq!(invocation.json(), Some(json!(2)));
    assert_eq!(invocation.after, After::KilledAtDeadline);
    assert!(!environment.is_alive().await);
}

#[tokio::test]
async fn child_processes_are_frozen_and_ended_with_function() {
    let environment = Sandbox::new(probe()).start().await.unwrap();
    let invocation = environment.invoke(json!({"op": "orphan"})).await;
    let child = u32::try_from(invocation.json().unwrap()["child"].as_u64().unwrap()).unwrap();
    assert_eq!(state(child), Some('T'));
    environment.shutdown().await;
    eventually("the child's end", || (!is_running(child)).then_some(())).await;
}

#[tokio::test]
async fn init_has_its_own_time_limit() {
    let limits = Limits {
        init: Duration::from_millis(300),
        ..Limits::default()
    };
    let sandbox = Sandbox::new(probe().env("PROBE_INIT_MS", "5000")).limits(limits);
    let began = Instant::now();
    let failure = sandbox.start().await.unwrap_err();
    assert_eq!(failure.error_type, "Sandbox.Timedout");
    assert!(
        failure.message.contains("within the init's 0.3 s"),
        "{failure}"
    );
    assert!(began.elapsed() < Duration::from_secs(2));
    // An init may take longer than the timeout of an invocation.
    let slow =
        Sandbox::new(probe().env("PROBE_INIT_MS", "400")).timeout(Duration::from_millis(200));
    let environment = slow.environment().await.unwrap();
    let cold = environment.invoke(clock()).await;
    assert!(
        cold.is_answered() && cold.waited >= Duration::from_millis(400),
        "{cold:?}"
    );
}

#[tokio::test]
async fn only_wall_clock_jumps() {
    let sandbox = Sandbox::new(probe())
        .wall_clock_jumps(true)
        .timeout(Duration::from_secs(3));
    let environment = sandbox.start().await.unwrap();
    let read = |invocation: &sandbox::Invocation| {
        let json = invocation.json().expect("a clock");
        (
            json["wall"].as_f64().unwrap(),
            json["monotonic"].as_f64().unwrap(),
        )
    };
    let (wall, monotonic) = read(&environment.invoke(clock()).await);
    environment.jump(Duration::from_secs(900)).unwrap();
    let (later_wall, later_monotonic) = read(&environment.invoke(clock()).await);
    assert!(
        (900.0..905.0).contains(&(later_wall - wall)),
        "{wall} {later_wall}"
    );
    assert!((0.0..5.0).contains(&(later_monotonic - monotonic)));
    // The deadline has jumped as well: it is still one timeout from now.
    let context = environment
        .invoke(json!({"op": "context"}))
        .await
        .json()
        .unwrap();
    assert!(
        (2900..=3000).contains(&context["left_ms"].as_u64().unwrap()),
        "{context}"
    );
}
