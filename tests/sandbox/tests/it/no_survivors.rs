//! No child process outlives the simulator, however it ends.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use crate::common::{eventually, is_running, probe, script, state};
use sandbox::Sandbox;
use serde_json::json;

/// Starts children inside and outside its group, writes all their ids, and never polls again.
const CLAN: &str = "sleep 600 & echo $! >>$F; setsid sleep 600 & echo $! >>$F; echo $$ >>$F; \
                    curl -s http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/next; sleep 600";

fn pids(file: &std::path::Path) -> Option<Vec<u32>> {
    let text = std::fs::read_to_string(file).ok()?;
    let pids: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    (pids.len() == 3).then_some(pids)
}

/// A child that leaves its group and session, clears its environment, and outlives its parent.
const RENEGADE: &str = "(env -i /bin/sh -c 'setsid sleep 600 & echo $! >&3' 3>>$F); echo $$ >>$F; echo $$ >>$F; \
                        curl -s http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/next; sleep 600";

/// The processes with this text in their environment, which all descendants inherit.
fn carriers(text: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let carries = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == text.as_bytes())
    };
    pids.filter(carries)
        .filter(|pid| is_running(*pid))
        .collect()
}

/// Also checks processes that were started last and are on no list.
async fn clan_is_gone(file: &std::path::Path, pids: &[u32]) {
    all_gone(pids).await;
    let variable = format!("F={}", file.display());
    eventually("the clan's end", || {
        carriers(&variable).is_empty().then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(carriers(&variable), Vec::<u32>::new());
}

async fn all_gone(pids: &[u32]) {
    eventually("the children's end", || {
        pids.iter().all(|pid| !is_running(*pid)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn children_end_when_simulator_is_killed() {
    for signal in ["-KILL", "-TERM", "-INT"] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pids");
        let mut sandbox = Command::new(env!("CARGO_BIN_EXE_sandbox"))
            .args(["run", "--invocations", "1", "--timeout", "600s", "--env"])
            .arg(format!("F={}", file.display()))
            .args(["--", "/bin/sh", "-c", CLAN])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pids = eventually("the clan", || pids(&file)).await;
        assert!(pids.iter().all(|pid| is_running(*pid)));
        Command::new("kill")
            .args([signal, &sandbox.id().to_string()])
            .status()
            .unwrap();
        sandbox.wait().unwrap();
        clan_is_gone(&file, &pids).await;
    }
}

#[tokio::test]
async fn children_with_cleared_environment_end() {
    for signal in ["-KILL", "-TERM"] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pids");
        let mut sandbox = Command::new(env!("CARGO_BIN_EXE_sandbox"))
            .args(["run", "--invocations", "1", "--timeout", "600s", "--env"])
            .arg(format!("F={}", file.display()))
            .args(["--", "/bin/sh", "-c", RENEGADE])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pids = eventually("the children", || pids(&file)).await;
        assert!(pids.iter().all(|pid| is_running(*pid)));
        let carriers = carriers(&format!("F={}", file.display()));
        assert!(!carriers.contains(&pids[0]), "it has dropped it");
        Command::new("kill")
            .args([signal, &sandbox.id().to_string()])
            .status()
            .unwrap();
        sandbox.wait().unwrap();
        all_gone(&pids).await;
    }
}

#[tokio::test]
async fn children_end_when_dropped_while_frozen() {
    let environment = Sandbox::new(probe()).start().await.unwrap();
    let child = environment
        .invoke(json!({"op": "orphan"}))
        .await
        .json()
        .unwrap();
    let pids = ["pid", "child"].map(|name| u32::try_from(child[name].as_u64().unwrap()).unwrap());
    assert!(pids.iter().all(|pid| state(*pid) == Some('T')));
    drop(environment);
    all_gone(&pids).await;
}

#[tokio::test]
async fn children_end_when_dropped_during_invocation() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pids");
    let sandbox = Sandbox::new(script(CLAN).env("F", &file)).timeout(Duration::from_secs(600));
    let invoking = tokio::spawn(async move {
        let environment = sandbox.environment().await.unwrap();
        environment.invoke(json!({})).await
    });
    let pids = eventually("the clan", || pids(&file)).await;
    invoking.abort();
    assert!(invoking.await.is_err());
    clan_is_gone(&file, &pids).await;
}
