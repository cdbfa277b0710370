//! Shared helpers: the fixture function, a puppet function that the test controls, and bounded waits.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod puppet;
pub mod servers;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::turn;
use sandbox::Function;

/// The time limit of every wait.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The example `probe`: a function on `lambda_runtime` that does what its event says.
pub fn probe() -> Function {
    Function::new(example("probe"))
}

/// The binary of an example. `cargo test --test NAME` alone does not build examples.
pub fn example(name: &str) -> PathBuf {
    turn::measures_time();
    let test = std::env::current_exe().unwrap();
    let path = test
        .parent()
        .and_then(Path::parent)
        .unwrap()
        .join("examples")
        .join(name);
    if !path.exists() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let args = ["build", "-p", "db-handler-sandbox", "--example", name];
        let built = Command::new(cargo).args(args).status().unwrap();
        assert!(
            built.success() && path.exists(),
            "the example {name} is not at {}",
            path.display()
        );
    }
    path
}

/// A shell script as a function.
pub fn script(text: &str) -> Function {
    turn::measures_time();
    Function::new("/bin/sh").args(["-c", text])
}

/// Waits until `ready` returns a value, and panics after [`PATIENCE`].
pub async fn eventually<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(Instant::now() < until, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether this process runs (a zombie does not).
pub fn is_running(pid: u32) -> bool {
    state(pid).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// The kernel's letter for the state of a process.
pub fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}
