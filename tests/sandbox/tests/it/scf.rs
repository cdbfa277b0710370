//! Tencent SCF's custom runtime, tested with raw requests.
#![allow(
    clippy::async_yields_async,
    reason = "a poll is handed on while it waits"
)]

use std::{sync::Arc, time::Duration};

use crate::common::{
    eventually, probe,
    puppet::{Puppet, Reply, get, post},
    state,
};
use sandbox::{After, Environment, Function, Outcome, Platform, Sandbox};
use serde_json::json;
use tokio::task::JoinHandle;

const READY: &str = "/runtime/init/ready";
const NEXT: &str = "/runtime/invocation/next";
const RESPONSE: &str = "/runtime/invocation/response";
const ERROR: &str = "/runtime/invocation/error";

/// A waiting poll, which is cancelled when dropped.
struct Poll(JoinHandle<Reply>);

impl Poll {
    fn begin(address: &str) -> Self {
        let address = address.to_owned();
        Self(tokio::spawn(async move { get(&address, NEXT).await }))
    }

    async fn event(mut self) -> Reply {
        (&mut self.0).await.unwrap()
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An environment that has reported its init, and whose first poll is waiting.
async fn start(puppet: &Puppet, sandbox: Sandbox) -> (Arc<Environment>, String, Poll) {
    let sandbox = sandbox.platform(Platform::Scf);
    let starting = tokio::spawn(async move { sandbox.start().await.unwrap() });
    let address = puppet.address().await;
    assert_eq!(post(&address, READY, "", " ").await.status, 200);
    let poll = Poll::begin(&address);
    (Arc::new(starting.await.unwrap()), address, poll)
}

#[tokio::test]
async fn event_has_id_and_limits_and_repeats_until_response() {
    let puppet = Puppet::new();
    let sandbox = puppet.sandbox().timeout(Duration::from_secs(7)).memory(64);
    let (environment, address, poll) = start(&puppet, sandbox).await;
    let invoking = {
        let environment = Arc::clone(&environment);
        tokio::spawn(async move { environment.invoke(json!({"a": 1})).await })
    };
    let event = poll.event().await;
    assert_eq!(event.body, r#"{"a":1}"#);
    assert_eq!(event.headers["memory_limit_in_mb"], "64");
    assert_eq!(event.headers["time_limit_in_ms"], "7000", "a duration");
    let again = get(&address, NEXT).await;
    assert_eq!(again.headers["request_id"], event.headers["request_id"]);

    // The first response wins.
    assert_eq!(post(&address, RESPONSE, "", "42").await.status, 200);
    post(&address, RESPONSE, "", "43").await;
    post(&address, ERROR, "", "too late").await;
    let next = Poll::begin(&address);
    let invocation = invoking.await.unwrap();
    assert_eq!(invocation.json(), Some(json!(42)));
    assert_eq!(invocation.request_id, event.headers["request_id"]);
    assert_eq!(environment.violations().await.len(), 2, "two answers more");
    drop(next);
}

#[tokio::test]
async fn error_is_free_text_and_process_continues() {
    let puppet = Puppet::new();
    let (environment, address, poll) = start(&puppet, puppet.sandbox()).await;
    let conduct = async {
        poll.event().await;
        post(&address, ERROR, "", "out of tea").await;
        get(&address, NEXT).await;
        post(&address, RESPONSE, "", "1").await;
        Poll::begin(&address)
    };
    let invoking = async {
        let failed = environment.invoke(json!({})).await;
        let answered = environment.invoke(json!({})).await;
        (failed, answered)
    };
    let (next, (failed, answered)) = tokio::join!(conduct, invoking);
    let Outcome::Failed { message, .. } = failed.outcome else {
        panic!("{failed:?}");
    };
    assert_eq!(message, "out of tea");
    assert!(answered.is_answered());
    assert_eq!(environment.starts(), 1);
    drop(next);
}

#[tokio::test]
async fn ready_call_needs_body_and_precedes_first_poll() {
    let puppet = Puppet::new();
    let sandbox = puppet.sandbox().platform(Platform::Scf);
    let environment = Arc::new(sandbox.environment().await.unwrap());
    let starting = {
        let environment = Arc::clone(&environment);
        tokio::spawn(async move { environment.start().await })
    };
    let address = puppet.address().await;
    assert_eq!(get(&address, NEXT).await.status, 400);
    assert_eq!(post(&address, READY, "", "").await.status, 400);
    assert_eq!(post(&address, READY, "", " ").await.status, 200);
    assert_eq!(
        post(&address, READY, "", " ").await.status,
        200,
        "once more"
    );
    let poll = Poll::begin(&address);
    starting.await.unwrap().unwrap();
    assert_eq!(environment.violations().await.len(), 2);
    drop(poll);
}

#[tokio::test]
async fn time_limit_starts_at_dispatch_and_ends_instance() {
    let puppet = Puppet::new();
    let limit = Duration::from_millis(300);
    let (environment, _, poll) = start(&puppet, puppet.sandbox().timeout(limit)).await;
    let (invocation, _) = tokio::join!(environment.invoke(json!({})), poll.event());
    assert!(matches!(invocation.outcome, Outcome::TimedOut));
    assert!(matches!(invocation.after, After::NoAnswer));
    assert!(invocation.waited >= limit);
    assert!(!environment.is_alive().await);
}

#[tokio::test]
async fn idle_instance_is_frozen_or_running() {
    for frozen in [true, false] {
        let puppet = Puppet::new();
        let (environment, address, poll) =
            start(&puppet, puppet.sandbox().freeze_between(frozen)).await;
        let conduct = async {
            poll.event().await;
            post(&address, RESPONSE, "", "1").await;
            Poll::begin(&address)
        };
        let (invocation, next) = tokio::join!(environment.invoke(json!({})), conduct);
        assert!(invocation.is_answered());
        let pid = environment.pid().await.unwrap();
        let stopped = || (state(pid) == Some('T') || !frozen).then_some(());
        eventually("the freeze", stopped).await;
        assert_eq!(state(pid) == Some('T'), frozen);
        drop(next);
    }
}

#[tokio::test]
async fn function_without_scf_support_names_missing_variable() {
    // It panics without the variables of AWS Lambda, which SCF does not set.
    let failure = Sandbox::new(probe())
        .platform(Platform::Scf)
        .start()
        .await
        .expect_err("speaks another protocol");
    let text = failure.to_string();
    assert!(text.contains("ended during its init"), "{text}");

    let failure = Sandbox::new(Function::new("/bin/true"))
        .platform(Platform::Scf)
        .extension(Function::new("/bin/true"))
        .start()
        .await
        .expect_err("no extensions there");
    assert!(failure.to_string().contains("extensions"), "{failure}");
}
