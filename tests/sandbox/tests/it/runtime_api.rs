//! The Runtime API, tested with raw requests and with `lambda_runtime`.

use std::{sync::Arc, time::Duration};

use crate::common::{
    probe,
    puppet::{Puppet, answer, get, post, request},
};
use sandbox::{After, Event, Outcome, PhaseKind, Sandbox};
use serde_json::json;

const NEXT: &str = "/2018-06-01/runtime/invocation/next";

#[tokio::test]
async fn function_receives_event_with_all_headers() {
    let puppet = Puppet::new();
    let sandbox = puppet
        .sandbox()
        .timeout(Duration::from_secs(7))
        .name("orders");
    let (environment, poll) = puppet.start(&sandbox).await;
    let event = Event::from(json!({"a": 1}))
        .tenant("blue")
        .client_context(&json!({"c": 2}));
    let environment = Arc::new(environment);
    let invoking = {
        let environment = Arc::clone(&environment);
        let event = event.cognito_identity("id", "pool");
        tokio::spawn(async move { environment.invoke(event).await })
    };
    let reply = poll.await.unwrap();
    let header = |name: &str| reply.headers.get(name).cloned().unwrap_or_default();
    assert_eq!(reply.body, r#"{"a":1}"#);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis();
    let deadline: u128 = header("lambda-runtime-deadline-ms").parse().unwrap();
    assert!(
        (6000..=7000).contains(&(deadline - now)),
        "{} ms left",
        deadline - now
    );
    assert_eq!(
        header("lambda-runtime-invoked-function-arn"),
        "arn:aws:lambda:eu-central-1:123456789012:function:orders"
    );
    assert!(header("lambda-runtime-trace-id").starts_with("Root=1-"));
    assert_eq!(header("lambda-runtime-aws-tenant-id"), "blue");
    assert_eq!(header("lambda-runtime-client-context"), r#"{"c":2}"#);
    assert_eq!(
        header("lambda-runtime-cognito-identity"),
        r#"{"cognitoIdentityId":"id","cognitoIdentityPoolId":"pool"}"#
    );

    let address = puppet.address().await;
    let id = header("lambda-runtime-aws-request-id");
    // A poll before the response gets the same event again.
    assert_eq!(
        get(&address, NEXT).await.headers["lambda-runtime-aws-request-id"],
        id
    );
    assert_eq!(answer(&address, &id, "42").await.status, 202);
    let next = tokio::spawn(async move { get(&address, NEXT).await });
    let invocation = invoking.await.unwrap();
    assert_eq!(invocation.json(), Some(json!(42)));
    assert_eq!(invocation.request_id, id);
    assert_eq!(environment.violations().await.len(), 1, "the repeated poll");
    next.abort();
}

#[tokio::test]
async fn protocol_errors_get_the_real_platforms_replies() {
    let puppet = Puppet::new();
    let (environment, poll) = puppet.start(&puppet.sandbox()).await;
    let address = puppet.address().await;
    let conduct = async {
        let id = poll.await.unwrap().headers["lambda-runtime-aws-request-id"].clone();
        let unknown = answer(&address, "no-such-id", "1").await;
        assert_eq!(
            (unknown.status, unknown.error_type()),
            (400, "InvalidRequestID".into())
        );
        assert_eq!(answer(&address, &id, "1").await.status, 202);
        let second = answer(&address, &id, "2").await;
        assert_eq!(
            (second.status, second.error_type()),
            (403, "InvalidStateTransition".into())
        );
        let late = post(&address, "/2018-06-01/runtime/init/error", "", "{}").await;
        assert_eq!(
            (late.status, late.error_type()),
            (403, "InvalidStateTransition".into())
        );
        assert_eq!(get(&address, "/2018-06-01/nothing").await.status, 404);
        assert_eq!(
            get(&address, "/2018-06-01/runtime/restore/next")
                .await
                .status,
            404
        );
        let address = address.clone();
        tokio::spawn(async move { get(&address, NEXT).await });
        id
    };
    let (invocation, id) = tokio::join!(environment.invoke(json!({})), conduct);
    assert_eq!(invocation.json(), Some(json!(1)), "the first answer counts");
    let forgotten = answer(&address, &id, "3").await;
    assert_eq!(
        (forgotten.status, forgotten.error_type()),
        (400, "InvalidRequestID".into())
    );
    let violations = environment.violations().await;
    let statuses: Vec<u16> = violations
        .iter()
        .map(|violation| violation.status)
        .collect();
    assert_eq!(statuses, [400, 403, 403, 404, 404, 400], "{violations:?}");
}

#[tokio::test]
async fn unknown_response_mode_ends_invocation() {
    let puppet = Puppet::new();
    let (environment, poll) = puppet.start(&puppet.sandbox()).await;
    let address = puppet.address().await;
    let conduct = async {
        let id = poll.await.unwrap().headers["lambda-runtime-aws-request-id"].clone();
        let mode = "Lambda-Runtime-Function-Response-Mode: carrier-pigeon\r\n";
        let path = format!("/2018-06-01/runtime/invocation/{id}/response");
        let mode = post(&address, &path, mode, "1").await;
        assert_eq!(
            (mode.status, mode.error_type()),
            (400, "InvalidFunctionResponseMode".into())
        );
        assert_eq!(
            answer(&address, &id, "1").await.error_type(),
            "InvalidStateTransition"
        );
        let address = address.clone();
        tokio::spawn(async move { get(&address, NEXT).await });
    };
    let (invocation, ()) = tokio::join!(environment.invoke(json!({})), conduct);
    assert!(
        matches!(&invocation.outcome, Outcome::Failed { error_type, .. } if error_type == "Runtime.InvalidResponseModeHeader"),
        "{:?}",
        invocation.outcome
    );
}

#[tokio::test]
async fn streamed_response_has_own_phase_and_error_trailers() {
    let puppet = Puppet::new();
    let (environment, poll) = puppet.start(&puppet.sandbox()).await;
    let address = puppet.address().await;
    let stream = |id: &str, end: &str| {
        format!(
            "POST /2018-06-01/runtime/invocation/{id}/response HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Lambda-Runtime-Function-Response-Mode: streaming\r\nTransfer-Encoding: chunked\r\n\
             Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n\r\n\
             3\r\nabc\r\n3\r\ndef\r\n0\r\n{end}\r\n"
        )
    };
    let conduct = async {
        let id = poll.await.unwrap().headers["lambda-runtime-aws-request-id"].clone();
        assert_eq!(request(&address, &stream(&id, "")).await.status, 202);
        let address = address.clone();
        // In a tuple: clippy would treat a handle alone as a future to await.
        (tokio::spawn(async move { get(&address, NEXT).await }),)
    };
    let (invocation, (poll,)) = tokio::join!(environment.invoke(json!({})), conduct);
    assert_eq!(
        invocation.outcome,
        Outcome::Answered {
            body: "abcdef".into()
        }
    );
    assert!(
        invocation
            .phases
            .iter()
            .any(|phase| phase.kind == PhaseKind::Stream)
    );

    let conduct = async {
        let id = poll.await.unwrap().headers["lambda-runtime-aws-request-id"].clone();
        // {"errorMessage":"half"}
        let trailers = "Lambda-Runtime-Function-Error-Type: Stream.Broken\r\n\
                        Lambda-Runtime-Function-Error-Body: eyJlcnJvck1lc3NhZ2UiOiJoYWxmIn0=\r\n";
        assert_eq!(request(&address, &stream(&id, trailers)).await.status, 202);
        let address = address.clone();
        tokio::spawn(async move { get(&address, NEXT).await });
    };
    let (invocation, ()) = tokio::join!(environment.invoke(json!({})), conduct);
    let expected = Outcome::Failed {
        error_type: "Stream.Broken".into(),
        message: "half".into(),
    };
    assert_eq!(invocation.outcome, expected);
}

#[tokio::test]
async fn truncated_response_is_a_failure() {
    use tokio::io::AsyncWriteExt;
    let puppet = Puppet::new();
    let (environment, poll) = puppet.start(&puppet.sandbox()).await;
    let address = puppet.address().await;
    let conduct = async {
        let id = poll.await.unwrap().headers["lambda-runtime-aws-request-id"].clone();
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let head = format!(
            "POST /2018-06-01/runtime/invocation/{id}/response HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nhalf"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        drop(stream);
        let address = address.clone();
        tokio::spawn(async move { get(&address, NEXT).await });
    };
    let (invocation, ()) = tokio::join!(environment.invoke(json!({})), conduct);
    assert!(
        matches!(&invocation.outcome, Outcome::Failed { error_type, .. } if error_type == "Runtime.TruncatedResponse"),
        "{:?}",
        invocation.outcome
    );
}

#[tokio::test]
async fn lambda_runtime_works_with_simulator() {
    let sandbox = Sandbox::new(probe())
        .memory(512)
        .timeout(Duration::from_secs(5))
        .name("probe");
    let environment = sandbox.start().await.unwrap();
    let echo = environment.invoke(json!({"hello": [1, 2, "ü"]})).await;
    assert_eq!(echo.json(), Some(json!({"hello": [1, 2, "ü"]})));
    let event = Event::from(json!({"op": "context"})).tenant("blue");
    let invocation = environment.invoke(event).await;
    let context = invocation.json().unwrap();
    assert_eq!(context["request_id"], invocation.request_id.as_str());
    assert_eq!(context["name"], "probe");
    assert_eq!(context["memory"], 512);
    assert_eq!(context["tenant"], "blue");
    assert!(
        (4900..=5000).contains(&context["left_ms"].as_u64().unwrap()),
        "{context}"
    );

    let error = environment.invoke(json!({"op": "error"})).await;
    assert!(
        matches!(&error.outcome, Outcome::Failed { message, .. } if message == "the handler failed"),
        "{error:?}"
    );
    let panic = environment.invoke(json!({"op": "panic"})).await;
    assert!(
        matches!(&panic.outcome, Outcome::Failed { message, .. } if message.contains("the handler panicked"))
    );
    assert!(
        environment.invoke(json!({})).await.is_answered(),
        "the process survives both"
    );
    assert_eq!(environment.starts(), 1);
}

#[tokio::test]
async fn concurrent_invocations_run_in_one_process() {
    let sandbox = Sandbox::new(probe())
        .concurrency(4)
        .timeout(Duration::from_secs(1));
    let environment = sandbox.start().await.unwrap();
    let began = std::time::Instant::now();
    let sleep = || environment.invoke(json!({"op": "sleep", "ms": 400}));
    let (a, b, c, late) = tokio::join!(
        sleep(),
        sleep(),
        sleep(),
        environment.invoke(json!({"op": "sleep", "ms": 1500}))
    );
    assert!(a.is_answered() && b.is_answered() && c.is_answered());
    assert_eq!(late.outcome, Outcome::TimedOut);
    for done in [&a, &b, &c] {
        assert_eq!(done.after, After::Polled);
        assert!(done.billed < Duration::from_millis(900), "{done:?}");
    }
    assert!(
        began.elapsed() < Duration::from_millis(1400),
        "side by side, not in turn"
    );
    // On Managed Instances a deadline ends the invocation, not the process: its handler still sleeps, and polls
    // of other invocations are not attributed to it.
    let next = environment.invoke(json!({})).await;
    assert!(next.is_answered());
    assert!(next.billed < Duration::from_millis(300), "{next:?}");
    assert_eq!(environment.starts(), 1);
}

#[tokio::test]
async fn snap_start_stops_before_restore_and_continues_after_it() {
    let puppet = Puppet::new();
    let shelf = Duration::from_millis(300);
    let sandbox = puppet.sandbox().snap_start(shelf);
    let starting = tokio::spawn(async move { sandbox.start().await });
    let address = puppet.address().await;
    let began = std::time::Instant::now();
    let restored = get(&address, "/2018-06-01/runtime/restore/next").await;
    assert_eq!(restored.status, 200);
    assert!(began.elapsed() >= shelf);
    tokio::spawn(async move { get(&address, NEXT).await });
    let environment = starting.await.unwrap().unwrap();
    let kinds: Vec<PhaseKind> = environment
        .phases()
        .iter()
        .map(|phase| phase.kind)
        .collect();
    assert_eq!(
        kinds,
        [PhaseKind::Init, PhaseKind::Frozen, PhaseKind::Restore]
    );

    let puppet = Puppet::new();
    let sandbox = puppet.sandbox().snap_start(Duration::from_millis(10));
    let starting = tokio::spawn(async move { sandbox.start().await });
    let address = puppet.address().await;
    get(&address, "/2018-06-01/runtime/restore/next").await;
    let body = r#"{"errorType": "Hook.Failed", "errorMessage": "no route"}"#;
    assert_eq!(
        post(&address, "/2018-06-01/runtime/restore/error", "", body)
            .await
            .status,
        202
    );
    let failure = starting.await.unwrap().unwrap_err();
    assert_eq!(
        (failure.error_type.as_str(), failure.message.as_str()),
        ("Hook.Failed", "no route")
    );
}
