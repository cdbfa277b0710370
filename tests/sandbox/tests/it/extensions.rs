//! The Extensions API: internal and external extensions, their events and their ends.

use std::{os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use crate::common::{
    self, probe,
    puppet::{Puppet, get, post, request},
};
use sandbox::{Function, Limits, Sandbox};
use serde_json::{Value, json};

const REGISTER: &str = "/2020-01-01/extension/register";

#[tokio::test]
async fn internal_extension_registers_and_receives_invocations() {
    let puppet = Puppet::new();
    let sandbox = puppet.sandbox().name("orders");
    let starting = tokio::spawn(async move { sandbox.start().await });
    let address = puppet.address().await;
    let named = |name: &str| format!("Lambda-Extension-Name: {name}\r\n");

    let nameless = post(&address, REGISTER, "", "{}").await;
    assert_eq!(
        (nameless.status, nameless.error_type()),
        (403, "Extension.InvalidExtensionName".into())
    );
    let shutdown = post(
        &address,
        REGISTER,
        &named("mine"),
        r#"{"events":["SHUTDOWN"]}"#,
    )
    .await;
    assert_eq!(
        (shutdown.status, shutdown.error_type()),
        (403, "Extension.InvalidEventType".into())
    );
    let headers = named("mine") + "Lambda-Extension-Accept-Feature: accountId\r\n";
    let registered = post(&address, REGISTER, &headers, r#"{"events":["INVOKE"]}"#).await;
    assert_eq!(registered.status, 200);
    let expected = json!({"functionName": "orders", "functionVersion": "$LATEST", "handler": "bootstrap", "accountId": "123456789012"});
    assert_eq!(registered.json(), expected);
    let twice = post(&address, REGISTER, &headers, r#"{"events":[]}"#).await;
    assert_eq!(
        (twice.status, twice.error_type()),
        (403, "Extension.InvalidExtensionState".into())
    );
    let unknown = "GET /2020-01-01/extension/event/next HTTP/1.1\r\nHost: x\r\nConnection: close\r\nLambda-Extension-Identifier: x\r\n\r\n";
    assert_eq!(
        request(&address, unknown).await.error_type(),
        "Extension.UnknownExtensionIdentifier"
    );

    let id = registered.headers["lambda-extension-identifier"].clone();
    let next = move |address: String| {
        let text = format!(
            "GET /2020-01-01/extension/event/next HTTP/1.1\r\nHost: x\r\nConnection: close\r\nLambda-Extension-Identifier: {id}\r\n\r\n"
        );
        tokio::spawn(async move { request(&address, &text).await })
    };
    let event = next(address.clone());
    let poll = tokio::spawn({
        let address = address.clone();
        async move { get(&address, "/2018-06-01/runtime/invocation/next").await }
    });
    let environment = starting.await.unwrap().unwrap();
    let closed = post(&address, REGISTER, &named("late"), "{}").await;
    assert_eq!(closed.error_type(), "Extension.RegistrationClosed");

    let slow = Duration::from_millis(200);
    let conduct = async {
        let request_id = poll.await.unwrap().headers["lambda-runtime-aws-request-id"].clone();
        let event = event.await.unwrap().json();
        assert_eq!(
            (event["eventType"].as_str(), event["requestId"].as_str()),
            (Some("INVOKE"), Some(request_id.as_str()))
        );
        common::puppet::answer(&address, &request_id, "1").await;
        let polling = address.clone();
        tokio::spawn(async move { get(&polling, "/2018-06-01/runtime/invocation/next").await });
        tokio::time::sleep(slow).await;
        let _waiting = next(address.clone());
    };
    let (invocation, ()) = tokio::join!(environment.invoke(json!({})), conduct);
    assert!(invocation.is_answered() && invocation.waited < slow);
    assert!(invocation.billed >= slow, "the extension's work is billed");
}

/// An external extension that registers for SHUTDOWN and records its events.
fn extension(folder: &tempfile::TempDir, end: &str) -> (PathBuf, PathBuf) {
    let (program, events) = (folder.path().join("witness"), folder.path().join("events"));
    let text = format!(
        "#!/bin/sh\nd={}; api=http://$AWS_LAMBDA_RUNTIME_API/2020-01-01/extension\n\
         curl -s -XPOST -H 'Lambda-Extension-Name: witness' -d '{{\"events\":[\"SHUTDOWN\"]}}' -D $d/headers -o /dev/null $api/register\n\
         id=$(sed -n 's/\\r$//;s/^lambda-extension-identifier: //p' $d/headers)\n\
         curl -s -H \"Lambda-Extension-Identifier: $id\" $api/event/next >>$d/events\n{end}\n",
        folder.path().display()
    );
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    (program, events)
}

#[tokio::test]
async fn external_extension_receives_shutdown() {
    let folder = tempfile::tempdir().unwrap();
    let (program, events) = extension(&folder, "exit 0");
    let sandbox = Sandbox::new(probe()).extension(Function::new(program));
    let environment = sandbox
        .timeout(Duration::from_millis(300))
        .start()
        .await
        .unwrap();
    assert!(environment.invoke(json!({})).await.is_answered());
    let ended = environment.shutdown().await.unwrap();
    assert!(
        ended.asked && ended.took < Duration::from_secs(1),
        "{ended:?}"
    );
    let event: Value = serde_json::from_str(&std::fs::read_to_string(&events).unwrap()).unwrap();
    assert_eq!(
        (
            event["eventType"].as_str(),
            event["shutdownReason"].as_str()
        ),
        (Some("SHUTDOWN"), Some("SPINDOWN"))
    );

    std::fs::remove_file(&events).unwrap();
    environment.invoke(json!({"op": "sleep", "ms": 5000})).await;
    let event: Value = serde_json::from_str(&std::fs::read_to_string(&events).unwrap()).unwrap();
    assert_eq!(event["shutdownReason"], "TIMEOUT");
}

#[tokio::test]
async fn extension_that_does_not_exit_is_killed_after_two_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let (program, _) = extension(&folder, "exec sleep 600");
    let environment = Sandbox::new(probe())
        .extension(Function::new(program))
        .start()
        .await
        .unwrap();
    let ended = environment.shutdown().await.unwrap();
    assert!((2000..2500).contains(&ended.took.as_millis()), "{ended:?}");
}

#[tokio::test]
async fn failed_extension_fails_init() {
    let sandbox = Sandbox::new(probe()).extension(Function::new("true"));
    assert_eq!(
        sandbox.start().await.unwrap_err().error_type,
        "Extension.Crash"
    );
    let limits = Limits {
        init: Duration::from_millis(300),
        ..Limits::default()
    };
    let silent = Sandbox::new(probe())
        .limits(limits)
        .extension(Function::new("yes"));
    assert_eq!(
        silent.start().await.unwrap_err().error_type,
        "Sandbox.Timedout"
    );
}
