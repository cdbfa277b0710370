//! The command line: output, exit codes, and errors for invalid binaries.

use std::{
    process::{Command, Output},
    time::{Duration, Instant},
};

use crate::common::example;
use serde_json::Value;

/// A function in three lines, which runs `$BODY` for each event with its `$id`.
const LOOP: &str = "api=http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime\n\
    while id=$(curl -s -D - -o /dev/null $api/invocation/next | sed -n 's/\\r$//;s/^lambda-runtime-aws-request-id: //p'); [ \"$id\" ]; do\n";

fn sandbox(args: &[&str], function: &[&str]) -> Output {
    crate::turn::measures_time();
    let began = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandbox"));
    let output = command
        .arg("run")
        .args(args)
        .arg("--")
        .args(function)
        .output()
        .unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "no run of these tests takes long"
    );
    output
}

fn shell(args: &[&str], body: &str) -> Output {
    sandbox(args, &["/bin/sh", "-c", &format!("{LOOP}{body}\ndone")])
}

fn probe(args: &[&str]) -> Output {
    sandbox(args, &[&example("probe").display().to_string()])
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn expect(output: &Output, code: i32, words: &str) {
    assert_eq!(
        output.status.code(),
        Some(code),
        "{}{}",
        stdout(output),
        stderr(output)
    );
    let all = stdout(output) + &stderr(output);
    assert!(all.contains(words), "`{words}` is not in:\n{all}");
}

#[test]
fn successful_run_prints_table_and_exits_with_0() {
    let output = probe(&["--envs", "3", "--invocations", "10", "--freeze", "20ms"]);
    expect(&output, 0, "10 in 3 environments");
    let table = stdout(&output);
    for row in [
        "answered  10",
        "failed  0",
        "timed out  0",
        "cold starts  3",
        "p99",
        "billed",
    ] {
        assert!(table.contains(row), "`{row}` is not in:\n{table}");
    }
    assert!(
        !stderr(&output).contains('\u{1b}'),
        "no progress bar in a pipe"
    );
}

#[test]
fn json_and_page_contain_every_invocation() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    let output = probe(&[
        "--envs",
        "2",
        "--invocations",
        "6",
        "--json",
        "--report",
        &page.display().to_string(),
    ]);
    expect(&output, 0, "");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["totals"]["answered"], 6);
    assert_eq!(
        report["environments"][1]["invocations"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("<svg") && page.contains("invocation 3"));
    for outside in ["http:", "https:", "src=", "@import", "url("] {
        assert!(
            !page.contains(outside),
            "the page needs nothing from outside: {outside}"
        );
    }
}

#[test]
fn platform_options_work_on_command_line() {
    let jumps = &["--invocations", "3", "--freeze", "20ms", "--jump", "10m"];
    expect(&probe(jumps), 0, "answered  3");
    let at_once = &["--envs", "2", "--invocations", "16", "--concurrency", "4"];
    expect(&probe(at_once), 0, "answered  16");
    let restored = probe(&["--invocations", "2", "--snap-start", "50ms", "--json"]);
    expect(&restored, 0, "\"restore\"");
}

/// A function for Tencent SCF in five lines of shell.
const SCF: &str = "api=http://$SCF_RUNTIME_API:$SCF_RUNTIME_API_PORT/runtime\n\
    curl -s -d ' ' $api/init/ready\n\
    while curl -sf $api/invocation/next >/dev/null; do\n\
    curl -s -d '\"hello\"' $api/invocation/response; done";

#[test]
fn scf_functions_run_with_and_without_freezes() {
    for idle in [["--freeze", "20ms"].as_slice(), &["--no-freeze"]] {
        let args = [
            &["--platform", "scf", "--envs", "2", "--invocations", "6"],
            idle,
        ]
        .concat();
        let output = sandbox(&args, &["/bin/sh", "-c", SCF]);
        expect(&output, 0, "6 in 2 environments");
        assert!(stdout(&output).contains("answered  6"), "{output:?}");
    }
    let lambdas = sandbox(&["--platform", "scf", "--concurrency", "2"], &["/bin/true"]);
    expect(&lambdas, 2, "are for --platform lambda");
    let unknown = sandbox(&["--platform", "moon"], &["/bin/true"]);
    expect(&unknown, 2, "unknown platform `moon`");
}

#[test]
fn lost_invocation_exits_with_1() {
    expect(
        &probe(&["--event", r#"{"op":"error"}"#]),
        1,
        "the handler failed",
    );
    expect(
        &probe(&["--invocations", "2", "--event", r#"{"op":"exit"}"#]),
        1,
        "2 crashed",
    );
    let late = probe(&[
        "--invocations",
        "2",
        "--timeout",
        "200ms",
        "--event",
        r#"{"op":"sleep","ms":9000}"#,
    ]);
    expect(&late, 1, "2 timed out");
}

#[test]
fn events_from_file_are_used_in_rotation() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events");
    std::fs::write(&file, "{\"a\": 1}\n\n{\"op\": \"error\"}\n").unwrap();
    let file = file.display().to_string();
    expect(
        &probe(&["--invocations", "4", "--events", &file]),
        1,
        "2 failed",
    );
}

#[test]
fn invalid_binary_is_named_and_exits_with_2() {
    expect(
        &sandbox(&[], &["/no/such/function"]),
        2,
        "`/no/such/function` does not exist",
    );
    expect(&sandbox(&[], &["/etc"]), 2, "`/etc` is a folder");
    expect(
        &sandbox(&[], &["/etc/passwd"]),
        2,
        "`/etc/passwd` is not executable",
    );
    expect(
        &sandbox(&[], &["no-such-program"]),
        2,
        "in any folder of PATH",
    );
    let exits = sandbox(&[], &["sh", "-c", "echo no config >&2; exit 5"]);
    expect(&exits, 2, "ended during its init (exit status 5)");
    expect(&exits, 2, "| no config");
    let never_polls = sandbox(&["--init-timeout", "300ms"], &["sleep", "600"]);
    expect(&never_polls, 2, "did not ask for an event");
    let reports = "curl -s -d '{\"errorType\":\"Config.Missing\",\"errorMessage\":\"no url\"}' \
                   http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/init/error; sleep 600";
    expect(
        &sandbox(&[], &["sh", "-c", reports]),
        2,
        "Config.Missing: no url",
    );
}

#[test]
fn invalid_usage_exits_with_2() {
    for (args, words) in [
        (["--envs", "0"], "at least 1"),
        (["--freeze", "soon"], "no duration"),
        (["--timeout", "0"], "longer than nothing"),
        (["--event", "{"], "not JSON"),
        (["--events", "/no/such/file"], "/no/such/file"),
        (["--dark-every", "2"], "--database"),
        (["--fault", "reset@lunch:1"], "FAULT@MOMENT"),
        (["--env", "NOT_SET_ANYWHERE"], "not set"),
        (["--database", "postgres:nowhere"], "host and a port"),
        (
            ["--database", "postgres://app@127.0.0.1:1/none"],
            "cannot connect",
        ),
        (["--extension", "/no/such/extension"], "does not exist"),
        (["--nonsense", "1"], "--nonsense"),
    ] {
        expect(&probe(&args), 2, words);
    }
    expect(&sandbox(&[], &[]), 2, "BINARY");
}

#[test]
fn protocol_violations_are_rejected_and_reported() {
    let answer = "curl -s -o /dev/null -d 1 $api/invocation/$id/response";
    expect(&shell(&["--invocations", "2"], answer), 0, "answered  2");
    let twice = shell(&["--invocations", "2"], &format!("{answer}; {answer}"));
    expect(&twice, 1, "2 calls that the Runtime API refused");
    let unknown = shell(
        &["--invocations", "1", "--timeout", "300ms"],
        "curl -s -o /dev/null -d 1 $api/invocation/who/response; sleep 600",
    );
    expect(
        &unknown,
        1,
        "1 timed out, 1 calls that the Runtime API refused",
    );
    // Sends half a response and closes the connection.
    let half = "printf 'POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 9\\r\\n\\r\\nhalf' $id \
                | timeout 0.3 curl -s telnet://$AWS_LAMBDA_RUNTIME_API >/dev/null";
    expect(
        &shell(&["--invocations", "1"], half),
        1,
        "Runtime.TruncatedResponse",
    );
    // Polls once, closes that connection, and never polls again.
    let gives_up =
        "curl -s -m 0.2 $AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/next; exec sleep 600";
    let output = sandbox(
        &["--invocations", "1", "--timeout", "1s", "--freeze", "0"],
        &["sh", "-c", gives_up],
    );
    expect(&output, 1, "1 timed out");
}
