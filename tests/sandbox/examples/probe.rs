//! The test fixture: a function on `lambda_runtime` that does what its event says.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::{Value, json};

/// Counts tenths of seconds while the process runs.
static TICKS: AtomicU64 = AtomicU64::new(0);
static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

#[tokio::main]
async fn main() -> Result<(), Error> {
    LazyLock::force(&STARTED);
    if let Ok(ms) = std::env::var("PROBE_INIT_MS") {
        tokio::time::sleep(Duration::from_millis(ms.parse()?)).await;
    }
    if let Ok(file) = std::env::var("PROBE_SHUTDOWN_FILE") {
        // Registers an internal extension, so that SIGTERM is sent; its handler writes this file.
        let write = || async move {
            std::fs::write(file, "asked").unwrap_or_default();
        };
        lambda_runtime::spawn_graceful_shutdown_handler(write).await;
    }
    tokio::spawn(async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            TICKS.fetch_add(1, Ordering::Relaxed);
        }
    });
    lambda_runtime::run_concurrent(service_fn(handle)).await
}

async fn handle(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let LambdaEvent { payload, context } = event;
    match payload.get("op").and_then(Value::as_str) {
        None => Ok(payload),
        Some("sleep") => {
            let ms = payload.get("ms").and_then(Value::as_u64).unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Ok(json!({"slept": ms}))
        }
        Some("after") => {
            // Work that continues after the response, on the same runtime.
            let ms = payload.get("ms").and_then(Value::as_u64).unwrap_or(0);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                std::thread::sleep(Duration::from_millis(ms));
            });
            Ok(json!({}))
        }
        Some("error") => Err("the handler failed".into()),
        Some("panic") => panic!("the handler panicked"),
        Some("exit") => std::process::exit(3),
        Some("orphan") => {
            let sleep = std::process::Command::new("sleep").arg("600").spawn()?;
            Ok(json!({"pid": std::process::id(), "child": sleep.id()}))
        }
        Some("clock") => Ok(json!({
            "wall": SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64(),
            "monotonic": STARTED.elapsed().as_secs_f64(),
            "ticks": TICKS.load(Ordering::Relaxed),
            "pid": std::process::id(),
        })),
        Some("context") => Ok(json!({
            "request_id": context.request_id,
            "deadline": context.deadline,
            "left_ms": context.deadline().duration_since(SystemTime::now()).unwrap_or_default().as_millis(),
            "arn": context.invoked_function_arn,
            "trace": context.xray_trace_id,
            "tenant": context.tenant_id,
            "client_context": context.client_context,
            "identity": context.identity,
            "name": context.env_config.function_name,
            "memory": context.env_config.memory,
            "database": std::env::var("DATABASE_URL").ok(),
        })),
        Some(other) => Err(format!("unknown op {other}").into()),
    }
}
