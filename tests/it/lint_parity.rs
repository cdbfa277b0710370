//! An annotated function triggers the same lints as the bare function, with two exceptions.

use serde_json::Value;
use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};
use tokio::{process::Command, time::timeout};

/// The package with the samples: the bins `with` and `bare`.
const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/lints");
/// The first run takes half a minute on two cores, because it checks the dependencies; later runs take a second.
const PATIENCE: Duration = Duration::from_secs(600);

/// The function is `async` without a `.await` of its own, but the expansion has one. This cannot be avoided.
const UNUSED_ASYNC: &str = "clippy::unused_async";
/// The body is a closure inside the function, and the lint does not check closures.
const IMPLICIT_RETURN: &str = "clippy::implicit_return";

/// A diagnostic: line, column, name of the lint, message.
type Finding = (u64, u64, String, String);

#[tokio::test]
async fn annotated_function_triggers_same_lints() {
    support::alone();
    let output = clippy(&every_lint().await).await;
    let (with, bare) = (findings(&output, "with"), findings(&output, "bare"));

    let added: Vec<&Finding> = with.difference(&bare).collect();
    assert!(added.is_empty(), "the attribute adds {added:#?}");
    let lost: BTreeSet<&Finding> = bare.difference(&with).collect();
    let (tolerated, missing): (Vec<&Finding>, Vec<_>) = lost
        .into_iter()
        .partition(|(_, _, lint, _)| [UNUSED_ASYNC, IMPLICIT_RETURN].contains(&lint.as_str()));
    assert!(missing.is_empty(), "the attribute hides {missing:#?}");

    // Checks that lints of each group are on.
    let found: BTreeSet<&str> = bare.iter().map(|(_, _, lint, _)| lint.as_str()).collect();
    for lint in [
        "dead_code",                  // of rustc's defaults
        "unused_results",             // of rustc's others
        "clippy::assign_op_pattern",  // of clippy's groups: all,
        "clippy::cast_lossless",      // pedantic,
        "clippy::option_if_let_else", // nursery,
        "clippy::question_mark_used", // restriction
    ] {
        assert!(found.contains(lint), "{lint} is not on: {found:#?}");
    }
    let tolerated: BTreeSet<&str> = tolerated
        .iter()
        .map(|(_, _, lint, _)| lint.as_str())
        .collect();
    assert_eq!(tolerated, BTreeSet::from([IMPLICIT_RETURN, UNUSED_ASYNC]));
}

#[test]
fn bare_sample_equals_annotated_sample_without_attribute() {
    let path = |name| Path::new(SAMPLES).join("src/bin").join(name);
    let with = fs::read_to_string(path("with.rs")).expect("the annotated sample");
    let expected: String = with
        .lines()
        .map(|line| without_attribute(line) + "\n")
        .collect();
    if env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(path("bare.rs"), &expected).expect("a folder that can be written to");
    }
    let bare = fs::read_to_string(path("bare.rs")).expect("the bare sample");
    assert!(
        bare == expected,
        "bare.rs is not with.rs without the attribute: UPDATE_EXPECT=1 writes it"
    );
}

/// Returns the line, or a comment instead of the attribute, so that line numbers stay the same.
fn without_attribute(line: &str) -> String {
    let code = line.trim_start();
    if code.starts_with("#[db") || code == "use db_handler::db_handler;" {
        assert!(code.ends_with([']', ';']), "one line each, please: {line}");
        let indentation = &line[..line.len() - code.len()];
        format!("{indentation}// (the attribute)")
    } else {
        line.to_owned()
    }
}

/// The options that enable every lint of clippy and rustc.
async fn every_lint() -> Vec<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let help = run(Command::new(rustc).args(["-W", "help"])).await;
    let help = String::from_utf8(help.stdout).expect("text");
    // Lines such as `    dead-code  warn  detect unused, unexported items`. Unstable lints have no effect.
    let lints = help.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (name, level) = (words.next()?, words.next()?);
        ["allow", "warn"].contains(&level).then(|| name.to_owned())
    });
    let groups =
        ["all", "pedantic", "nursery", "restriction"].map(|name| format!("clippy::{name}"));
    lints
        .chain(groups)
        .map(|lint| format!("--warn={lint}"))
        // This lint is about enabling all of `restriction`, not about the code.
        .chain(["--allow=clippy::blanket_clippy_restriction_lints".to_owned()])
        .collect()
}

/// Runs clippy on the samples in a separate target directory: in a shared one the two sets of options would replace
/// each other's artefacts.
async fn clippy(options: &[String]) -> Output {
    let target: PathBuf = [env!("CARGO_TARGET_TMPDIR"), "lints"].iter().collect();
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        // The build of this test has already fetched the dependencies.
        .args(["clippy", "--offline", "--bins", "--message-format=json"])
        .arg("--target-dir")
        .arg(target)
        .arg("--")
        .args(options);
    run(&mut command).await
}

async fn run(command: &mut Command) -> Output {
    let output = command.current_dir(SAMPLES).kill_on_drop(true).output();
    let output = timeout(PATIENCE, output).await;
    let output = output.expect("an end of it in time").expect("it starts");
    assert!(
        output.status.success(),
        "{command:?} ended with {}:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// The diagnostics of the bin `sample`.
fn findings(output: &Output, sample: &str) -> BTreeSet<Finding> {
    let finding = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("one object of JSON on every line");
        let of_sample = line["reason"] == "compiler-message" && line["target"]["name"] == sample;
        let message = of_sample.then(|| &line["message"])?;
        let spans = message["spans"].as_array()?;
        // Summaries and diagnostics about the options have no span.
        let place = spans.iter().find(|span| span["is_primary"] == true)?;
        Some((
            place["line_start"].as_u64()?,
            place["column_start"].as_u64()?,
            message["code"]["code"].as_str()?.to_owned(),
            message["message"].as_str()?.to_owned(),
        ))
    };
    let stdout = String::from_utf8_lossy(&output.stdout);
    stdout.lines().filter_map(finding).collect()
}
