//! The command line.

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    Event, Fleet, Function, Incident, Limits, Plan, Platform, Report, RunError, Sandbox,
    observe::is_observable, parse_duration,
};

/// Simulates AWS Lambda or Tencent SCF for any binary that uses its runtime API.
#[derive(Debug, Parser)]
#[command(name = "sandbox", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a function in many concurrent environments, with freezes and a faulty network.
    ///
    /// Exit code 0: every invocation succeeded and nothing was left on the server.
    /// 1: something was lost or left behind. 2: bad usage, or a binary that never came up.
    Run(Box<Run>),
}

#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
struct Run {
    /// The simulated platform: lambda, or scf (Tencent Cloud Functions).
    #[arg(long, default_value = "lambda", value_name = "NAME")]
    platform: Platform,
    /// Let the function run on between two events, instead of stopping it.
    #[arg(long, conflicts_with = "freeze")]
    no_freeze: bool,
    /// Number of concurrent environments.
    #[arg(long, default_value_t = 1, value_name = "N")]
    envs: usize,
    /// Total number of invocations, distributed evenly.
    #[arg(long, default_value_t = 10, value_name = "N")]
    invocations: usize,
    /// The length of the freeze after every response.
    #[arg(long, default_value = "0", value_parser = parse_duration, value_name = "TIME")]
    freeze: Duration,
    /// The jump of the wall clock in each freeze, in addition to its length (needs libfaketime).
    #[arg(long, default_value = "0", value_parser = parse_duration, value_name = "TIME")]
    jump: Duration,
    /// In every N-th freeze of an environment its open connections go dark.
    #[arg(long, value_name = "N")]
    dark_every: Option<usize>,
    /// FAULT@MOMENT[+DELAY], such as reset@freeze:3 or dark@invocation:2+20ms; may be repeated.
    /// Faults: dark-existing, dark-new, dark, reset, cut:BYTES, cut-new:BYTES, refuse, silence,
    /// heal, rtt:TIME. Moments: freeze:N, thaw:N, invocation:N.
    #[arg(long, value_name = "INCIDENT")]
    fault: Vec<Incident>,
    /// The round-trip time between the function and its database.
    #[arg(long, default_value = "0", value_parser = parse_duration, value_name = "TIME")]
    rtt: Duration,
    /// The time limit of an invocation.
    #[arg(long, default_value = "3s", value_parser = parse_duration, value_name = "TIME")]
    timeout: Duration,
    /// The time limit from the start of a process to its first poll.
    #[arg(long, default_value = "10s", value_parser = parse_duration, value_name = "TIME")]
    init_timeout: Duration,
    /// The memory size that is reported to the function, in MB (not enforced).
    #[arg(long, default_value_t = 128, value_name = "MB")]
    memory: u32,
    /// Concurrent invocations in one process (AWS_LAMBDA_MAX_CONCURRENCY).
    #[arg(long, default_value_t = 1, value_name = "N")]
    concurrency: usize,
    /// SnapStart: restore each environment from its snapshot this long after its init.
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    snap_start: Option<Duration>,
    /// An external extension, started before the function; may be repeated.
    #[arg(long, value_name = "PATH")]
    extension: Vec<PathBuf>,
    /// A variable for the function, or just its name to pass it on; may be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// The event, as JSON.
    #[arg(long, value_name = "JSON", conflicts_with = "events")]
    event: Option<String>,
    /// A file with one event per line, used in rotation.
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// The database's URL. The function gets it with the address of a proxy.
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// The variable in which the function expects the database's URL.
    #[arg(long, default_value = "DATABASE_URL", value_name = "NAME")]
    database_env: String,
    /// Do not query the database's list of connections.
    #[arg(long)]
    no_observer: bool,
    /// Show the function's output.
    #[arg(long)]
    logs: bool,
    /// Print the full report as JSON instead of the table.
    #[arg(long)]
    json: bool,
    /// Write an HTML page with charts of the run.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The function and its arguments.
    #[arg(last = true, required = true, value_name = "BINARY [ARGS]")]
    function: Vec<String>,
}

/// The program: parses the arguments, runs, prints, and returns the exit code.
#[must_use]
pub fn main() -> ExitCode {
    // Invalid usage exits here, with code 2.
    let Command::Run(run) = Cli::parse().command;
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error.to_string()),
    };
    let code = runtime.block_on(async {
        tokio::select! {
            code = execute(&run) => code,
            // The run is dropped here, which ends the children.
            _ = tokio::signal::ctrl_c() => ExitCode::from(130),
        }
    });
    // Remaining tasks need not be awaited.
    runtime.shutdown_background();
    code
}

async fn execute(run: &Run) -> ExitCode {
    let (sandbox, plan) = match prepare(run) {
        Ok(prepared) => prepared,
        Err(message) => return complain(&message),
    };
    let invocations = plan.invocations;
    let mut fleet = Fleet::new(sandbox, plan);
    if let Some(url) = run.database.as_deref().filter(|_| !run.no_observer) {
        if is_observable(url) {
            fleet = fleet.observe(url);
        } else {
            eprintln!("sandbox: there is no observer for this kind of database");
        }
    }
    let bar = progress_bar(invocations);
    let shown = bar.clone();
    let lost = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let result = fleet.run(move |invocation| {
        use std::sync::atomic::Ordering::Relaxed;
        let lost = lost.fetch_add(usize::from(!invocation.is_answered()), Relaxed)
            + usize::from(!invocation.is_answered());
        if lost > 0 {
            shown.set_message(format!("{lost} lost"));
        }
        shown.inc(1);
    });
    let result = result.await;
    bar.finish_and_clear();
    match result {
        Ok(report) => present(&report, run),
        Err(RunError::NeverReady(failure)) => {
            complain(&format!("the function never became ready\n{failure}"))
        }
        Err(error) => complain(&error.to_string()),
    }
}

fn prepare(run: &Run) -> Result<(Sandbox, Plan), String> {
    if run.envs == 0 || run.invocations == 0 || run.concurrency == 0 {
        return Err("--envs, --invocations and --concurrency must be at least 1".into());
    }
    if run.timeout.is_zero() {
        return Err("--timeout must be longer than nothing".into());
    }
    if run.database.is_none() && (run.dark_every.is_some() || !run.fault.is_empty()) {
        return Err("--dark-every and --fault need a --database to stand before".into());
    }
    if run.dark_every.is_some() && run.freeze.is_zero() {
        return Err("--dark-every happens in freezes: say how long they are with --freeze".into());
    }
    let (program, args) = run.function.split_first().ok_or("no binary given")?;
    let mut function = Function::new(program).args(args);
    for variable in &run.env {
        function = match variable.split_once('=') {
            Some((name, value)) => function.env(name, value),
            None => match std::env::var(variable) {
                Ok(value) => function.env(variable, value),
                Err(_) => return Err(format!("--env {variable}: it is not set here")),
            },
        };
    }
    function.locate().map_err(|error| error.to_string())?;
    let limits = Limits {
        init: run.init_timeout,
        ..Limits::default()
    };
    if run.platform == Platform::Scf
        && (run.concurrency > 1 || run.snap_start.is_some() || !run.extension.is_empty())
    {
        return Err("--concurrency, --snap-start and --extension are for --platform lambda".into());
    }
    let mut sandbox = Sandbox::new(function)
        .platform(run.platform)
        .timeout(run.timeout)
        .memory(run.memory)
        .concurrency(run.concurrency)
        .rtt(run.rtt)
        .limits(limits)
        .wall_clock_jumps(!run.jump.is_zero())
        .logs(run.logs);
    for extension in &run.extension {
        let extension = Function::new(extension);
        extension
            .locate()
            .map_err(|error| format!("--extension: {error}"))?;
        sandbox = sandbox.extension(extension);
    }
    if let Some(shelf) = run.snap_start {
        sandbox = sandbox.snap_start(shelf);
    }
    if run.no_freeze {
        sandbox = sandbox.freeze_between(false);
    }
    if let Some(url) = &run.database {
        sandbox = sandbox.database(&run.database_env, url)?;
    }
    let plan = Plan {
        freeze: run.freeze,
        jump: run.jump,
        events: events(run)?,
        dark_every: run.dark_every,
        faults: run.fault.clone(),
        ..Plan::new(run.envs, run.invocations)
    };
    Ok((sandbox, plan))
}

fn events(run: &Run) -> Result<Vec<Event>, String> {
    let text = match (&run.event, &run.events) {
        (Some(event), _) => event.clone(),
        (None, Some(file)) => std::fs::read_to_string(file)
            .map_err(|error| format!("--events {}: {error}", file.display()))?,
        (None, None) => "{}".into(),
    };
    // One event may span several lines; several events are on one line each.
    let lines: Vec<&str> = match &run.event {
        Some(event) => vec![event],
        None => text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect(),
    };
    if lines.is_empty() {
        return Err("there is no event in the file".into());
    }
    let parse = |line: &str| match serde_json::from_str::<serde_json::Value>(line) {
        Ok(_) => Ok(Event::new(line.to_owned())),
        Err(error) => Err(format!("this event is not JSON: {line}\n{error}")),
    };
    lines.into_iter().map(parse).collect()
}

fn progress_bar(invocations: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let style = "{bar:40} {pos}/{len} invocations, {elapsed} {msg}";
    let style =
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(invocations as u64).with_style(style)
}

fn present(report: &Report, run: &Run) -> ExitCode {
    let text = if run.json {
        match serde_json::to_string_pretty(report) {
            Ok(json) => json + "\n",
            Err(error) => return complain(&error.to_string()),
        }
    } else {
        report.table()
    };
    // A closed pipe (`| head`) is not a failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
    let written = run.report.as_ref().map(|file| write(file, &report.html()));
    if let Some(Err(message)) = written {
        return complain(&message);
    }
    if report.verdict.ok {
        return ExitCode::SUCCESS;
    }
    eprintln!("sandbox: {}", report.verdict.problems.join(", "));
    for invocation in report.invocations().filter(|i| !i.is_answered()).take(3) {
        eprintln!(
            "sandbox: for example {}: {}",
            invocation.request_id, invocation.outcome
        );
    }
    ExitCode::FAILURE
}

fn write(file: &Path, page: &str) -> Result<(), String> {
    std::fs::write(file, page).map_err(|error| format!("--report {}: {error}", file.display()))
}

fn complain(message: &str) -> ExitCode {
    eprintln!("sandbox: {message}");
    ExitCode::from(2)
}
