//! Tencent SCF: the same binary as on AWS Lambda, run by the simulator's SCF custom runtime.

use crate::FUNCTION;
use db_handler::{config::TRUST, mongodb::bson::doc};
use sandbox::{After, Environment, Fault, Function, Invocation, Outcome, Platform, Sandbox};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};
use support::{
    MongoDb,
    caller::{Called, call, local},
    mongodb, refused_port,
};

/// Longer than the server delays a `find` here, and longer than `trust_ms`.
const LONG_FREEZE: Duration = TRUST.saturating_add(Duration::from_millis(100));

fn sandbox(platform: Platform, handler: &str, url: &str) -> Sandbox {
    Sandbox::new(
        Function::new(FUNCTION)
            .env("FUNCTION", "mongodb")
            .env("HANDLER", handler),
    )
    .platform(platform)
    .name("notes")
    .memory(64)
    .timeout(Duration::from_secs(3))
    .database("MONGODB_URI", url)
    .expect("a URL with host and port")
}

async fn started(sandbox: Sandbox) -> Environment {
    sandbox.start().await.expect("the function starts")
}

fn deed(what: &str) -> Value {
    json!({ "do": what })
}

#[tokio::test]
async fn same_binary_runs_on_lambda_and_scf() {
    let url = mongodb().fresh_url();
    for (number, platform) in [(1, Platform::Lambda), (3, Platform::Scf)] {
        let environment = started(sandbox(platform, "kept", &url)).await;
        for number in [number, number + 1] {
            let invocation = environment.invoke(deed("insert")).await;
            assert_eq!(invocation.json(), Some(json!(number)), "{invocation:?}");
            println!(
                "| {platform:?} | {} | answered after {} ms | {} |",
                if number % 2 == 1 { "first" } else { "second" },
                invocation.waited.as_millis(),
                mongodb().product()
            );
        }
        assert_eq!(environment.violations().await.len(), 0);
        environment.shutdown().await;
    }
}

#[tokio::test]
async fn context_has_function_name_and_deadline() {
    let url = mongodb().fresh_url();
    let environment = started(sandbox(Platform::Scf, "kept", &url)).await;
    let before = epoch_ms();
    let invocation = environment.invoke(deed("context")).await;
    let context = invocation.json().expect("an answer");
    assert_eq!(context["request_id"], invocation.request_id);
    assert_eq!(context["function"], "notes");
    assert_eq!(context["version"], "$LATEST");
    assert_eq!(context["memory"], 64);
    assert_eq!(context["group"], "default", "the namespace");
    let left = context["deadline"].as_u64().expect("a moment") - before;
    assert!((2_500..=3_500).contains(&left), "{left} ms");
    environment.shutdown().await;
}

fn epoch_ms() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().expect("after 1970");
    u64::try_from(since.as_millis()).expect("fits")
}

#[tokio::test]
async fn errors_panics_and_timeouts_are_reported_and_instance_survives() {
    support::measures_time();
    let server = MongoDb::start(false);
    let url = server.fresh_url();
    let environment = started(sandbox(Platform::Scf, "kept", &url)).await;
    assert!(environment.invoke(deed("insert")).await.is_answered());
    hold_up(&server, 10_000).await;
    for (event, kind) in [
        (deed("find"), "DeadlineExceeded"),
        (deed("fail"), "Handler"),
        (deed("panic"), "HandlerPanicked"),
        (json!("no deed"), "Event"),
    ] {
        let invocation = environment.invoke(event).await;
        match &invocation.outcome {
            Outcome::Failed { error_type, .. } => assert_eq!(error_type, kind),
            other => panic!("{kind}: {other:?}"),
        }
        assert!(matches!(invocation.after, After::Polled), "{kind}");
        assert!(invocation.billed < Duration::from_secs(3), "{kind}");
    }
    let answered = environment.invoke(deed("insert")).await;
    assert_eq!(answered.json(), Some(json!(2)));
    assert_eq!(environment.starts(), 1, "one process for all of them");
    assert_eq!(environment.violations().await.len(), 0);
    environment.shutdown().await;
}

#[tokio::test]
async fn cleanup_runs_after_response_and_before_next_poll() {
    let server = MongoDb::start(false);
    let watch = server.watch().await;
    for frozen in [true, false] {
        let sandbox = sandbox(Platform::Scf, "always", &server.fresh_url());
        let environment = started(sandbox.freeze_between(frozen)).await;
        for _ in 0..2 {
            let invocation = environment.invoke(deed("insert")).await;
            assert!(invocation.is_answered(), "{invocation:?}");
            watch.wait_until_connections(0).await;
        }
        environment.shutdown().await;
    }
    watch.close().await;
}

// --- situations ---

/// A short description of the outcome for the caller.
fn seen(invocation: &Invocation) -> String {
    let waited = invocation.waited.as_millis();
    match &invocation.outcome {
        Outcome::Answered { .. } => format!("answered after {waited} ms"),
        Outcome::Failed { error_type, .. } => format!("failed after {waited} ms: {error_type}"),
        Outcome::TimedOut => format!("**timed out** after {waited} ms"),
        other => format!("**{other:?}**"),
    }
}

/// `EXTENDED=1 cargo test --all-features --test it situations -- --nocapture | grep '^|'` prints the table.
#[tokio::test]
async fn recipe_situations() {
    support::measures_time();
    let server = MongoDb::start(false);
    println!(
        "| SCF in the sandbox, {}, 1 ms round trip | | |",
        server.product()
    );
    let plain: &[&str] = if crate::extended() {
        &["plain_each", "plain_cached"]
    } else {
        &[]
    };
    for handler in plain.iter().copied().chain(["kept"]) {
        let sandbox = sandbox(Platform::Scf, handler, &server.fresh_url())
            .rtt(Duration::from_millis(1))
            .wall_clock_jumps(true);
        let environment = started(sandbox).await;
        assert!(environment.invoke(deed("insert")).await.is_answered());

        // A warm invocation, and the connections that it opens.
        let before = environment.networks()[0].stats().opened;
        let mut waited: Vec<Duration> = Vec::new();
        for _ in 0..20 {
            let invocation = environment.invoke(deed("find")).await;
            assert!(invocation.is_answered(), "{handler}: {invocation:?}");
            waited.push(invocation.waited);
        }
        waited.sort_unstable();
        let opened = environment.networks()[0].stats().opened - before;
        println!(
            "| `{handler}` | 20 warm invocations | p50 {:.1} ms, {opened} connections opened |",
            waited[10].as_secs_f64() * 1000.0
        );
        assert_eq!(opened > 0, handler == "plain_each", "{handler}: {opened}");

        // A query that still runs when its handler returns.
        hold_up(&server, 380).await;
        let leaving = environment.invoke(deed("leave_running")).await;
        assert!(leaving.is_answered(), "{handler}: {leaving:?}");
        let frozen = epoch_ms();
        // The server has replied long before.
        assert!(environment.stands_still_for(LONG_FREEZE).await, "{handler}");
        let later = environment.invoke(deed("linger")).await;
        assert!(later.is_answered(), "{handler}: {later:?}");
        let ended = later.json().and_then(|ended| ended.as_u64());
        let went_on = ended.is_some_and(|ended| ended > frozen);
        let what = if went_on {
            "frozen, and resumed in a later invocation"
        } else if leaving.waited > Duration::from_millis(350) {
            "holds up the answer until it is done"
        } else {
            "is waited for after the answer; what takes too long is stopped on the server"
        };
        println!("| `{handler}` | what is under way when the function returns | {what} |");
        assert_eq!(went_on, handler == "plain_cached", "{leaving:?}");

        // The open connections go dark during a long freeze.
        environment.apply(Fault::DarkExisting);
        environment
            .jump(Duration::from_secs(60))
            .expect("a wall clock that jumps");
        let after = environment.invoke(deed("find")).await;
        println!(
            "| `{handler}` | the connections died silently in a freeze | {} |",
            seen(&after)
        );
        assert_eq!(after.is_answered(), handler != "plain_cached", "{handler}");

        // A server that does not reply in time.
        hold_up(&server, 10_000).await;
        let late = environment.invoke(deed("find")).await;
        let starts = environment.starts();
        let next = environment.invoke(deed("insert")).await;
        let instance = if environment.starts() == starts {
            "the same"
        } else {
            "a new"
        };
        println!(
            "| `{handler}` | an operation beyond the time limit | {}; the next one {}, in {instance} instance |",
            seen(&late),
            seen(&next)
        );
        assert_eq!(instance == "the same", handler == "kept", "{handler}");
        environment.shutdown().await;
    }
}

async fn hold_up(server: &MongoDb, milliseconds: i32) {
    let watch = server.watch().await;
    watch
        .run(doc! {
            "configureFailPoint": "failCommand",
            "mode": { "times": 1 },
            "data": {
                "failCommands": ["find"],
                "blockConnection": true,
                "blockTimeMS": milliseconds,
            },
        })
        .await;
    watch.close().await;
}

// --- bad input ---

#[tokio::test]
async fn failed_init_is_logged_and_sets_exit_code() {
    let failure = Sandbox::new(Function::new(FUNCTION).env("FUNCTION", "mongodb"))
        .platform(Platform::Scf)
        .start()
        .await
        .expect_err("there is no MONGODB_URI");
    let text = failure.to_string();
    assert!(text.contains("exit status 1"), "{text}");
    assert!(
        text.contains("the environment variable MONGODB_URI is not set"),
        "{text}"
    );
}

async fn refused(variables: &[(&str, &str)]) -> Called {
    let function = local(FUNCTION.as_ref())
        .env("FUNCTION", "mongodb")
        .env("MONGODB_URI", "mongodb://127.0.0.1/db");
    let function = variables.iter().fold(function, |function, (name, value)| {
        function.env(name, value)
    });
    call(function, &[]).await
}

fn says(called: &Called, text: &str) {
    assert_eq!(called.code, Some(1), "{called:?}");
    assert!(called.log.contains(text), "{}", called.log);
    assert!(called.log.contains("Platform"), "{}", called.log);
}

#[tokio::test]
async fn missing_half_of_api_address_is_named() {
    let called = refused(&[("SCF_RUNTIME_API", "127.0.0.1")]).await;
    says(
        &called,
        "SCF_RUNTIME_API is set, but SCF_RUNTIME_API_PORT is not",
    );
    let called = refused(&[("SCF_RUNTIME_API_PORT", "80"), ("SCF_RUNTIME_API", " ")]).await;
    says(
        &called,
        "SCF_RUNTIME_API_PORT is set, but SCF_RUNTIME_API is not",
    );
    let called = refused(&[
        ("SCF_RUNTIME_API", "no address"),
        ("SCF_RUNTIME_API_PORT", "x"),
    ])
    .await;
    says(&called, "are no address (`no address`, `x`)");
}

#[tokio::test]
async fn failed_ready_call_is_named() {
    let port = refused_port().to_string();
    let nobody = [
        ("SCF_RUNTIME_API", "127.0.0.1"),
        ("SCF_RUNTIME_API_PORT", &*port),
    ];
    says(&refused(&nobody).await, "POST /runtime/init/ready failed");

    let platform =
        Scripted::start(|_| Some("HTTP/1.1 503 Busy\r\ncontent-length: 7\r\n\r\nnot now"));
    let called = refused(&platform.variables()).await;
    says(
        &called,
        "POST /runtime/init/ready was refused: 503 Service Unavailable not now",
    );
}

// --- lost responses ---

#[tokio::test]
async fn event_with_lost_response_is_not_handled_twice() {
    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK";
    const EVENT: &str = "HTTP/1.1 200 OK\r\nrequest_id: one\r\ntime_limit_in_ms: 3000\r\ncontent-length: 15\r\n\r\n{\"do\":\"insert\"}";
    let mut responses = 0;
    let mut polls = 0;
    let platform = Scripted::start(move |line| {
        if line.starts_with("POST /runtime/init/ready") {
            return Some(OK);
        }
        if line.starts_with("GET /runtime/invocation/next") {
            polls += 1;
            // Delivers the same event until its response has arrived, then none.
            return if polls <= 2 { Some(EVENT) } else { None };
        }
        responses += 1;
        // The first response is lost.
        if responses == 1 { None } else { Some(OK) }
    });
    let url = mongodb().fresh_url();
    let function = local(FUNCTION.as_ref())
        .env("FUNCTION", "mongodb")
        .env("MONGODB_URI", &url);
    let function = platform
        .variables()
        .iter()
        .fold(function, |function, (name, value)| {
            function.env(name, value)
        });
    let called = call(function, &[]).await;
    // In the end the platform closes connections without a reply.
    says(&called, "GET /runtime/invocation/next failed");
    let seen = platform.seen();
    let answers: Vec<&String> = seen
        .iter()
        .filter(|request| request.starts_with("POST /runtime/invocation/response"))
        .collect();
    assert_eq!(answers.len(), 2, "{seen:?}");
    assert!(
        answers.iter().all(|answer| answer.ends_with(" 1")),
        "{seen:?}"
    );
}

/// A platform with scripted replies, which closes the connection if there is none.
struct Scripted {
    port: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    fn start(reply: impl FnMut(&str) -> Option<&'static str> + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free loopback port");
        let port = listener.local_addr().expect("the bound port").port();
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let reply = Arc::new(Mutex::new((reply, Arc::clone(&seen))));
        // The threads end with the test process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let reply = Arc::clone(&reply);
                // A client may open a second connection before the first one is free.
                thread::spawn(move || {
                    while let Some(request) = read(&stream) {
                        let (reply, book) = &mut *reply.lock().expect("nobody panics");
                        book.lock().expect("nobody panics").push(request.clone());
                        let text = reply(&request);
                        let answered =
                            text.is_some_and(|text| (&stream).write_all(text.as_bytes()).is_ok());
                        if !answered {
                            break;
                        }
                    }
                });
            }
        });
        Self {
            port: port.to_string(),
            seen,
        }
    }

    fn variables(&self) -> [(&'static str, &str); 2] {
        [
            ("SCF_RUNTIME_API", "127.0.0.1"),
            ("SCF_RUNTIME_API_PORT", &self.port),
        ]
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("nobody panics").clone()
    }
}

/// Reads a request: its first line and its body.
fn read(stream: &TcpStream) -> Option<String> {
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    let mut reader = BufReader::with_capacity(1, stream);
    let mut lines = Vec::new();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(20) {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let length = lines.iter().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse().ok())?
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(format!(
        "{} {}",
        lines.first()?,
        String::from_utf8_lossy(&body)
    ))
}
