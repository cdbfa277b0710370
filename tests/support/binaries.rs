//! Compiled binaries of this workspace.

use std::path::PathBuf;

/// The compiled example `name` of the package `db-handler-examples`.
///
/// # Panics
/// When it was not built, with the command that builds it.
#[must_use]
pub fn example(name: &str) -> PathBuf {
    built(
        &["examples", name],
        &format!("cargo build -p db-handler-examples --all-features --example {name}"),
    )
}

/// The compiled binary `name` of any package of the workspace.
///
/// # Panics
/// When it was not built, with the command that builds it.
#[must_use]
pub fn bin(name: &str) -> PathBuf {
    built(&[name], &format!("cargo build --workspace --bin {name}"))
}

fn built(path: &[&str], command: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test binary");
    // target/<profile>/deps/<test>-<hash>
    let profile = test
        .ancestors()
        .nth(2)
        .expect("a test binary lies in target/<profile>/deps");
    let mut file: PathBuf = profile.to_path_buf();
    file.extend(path);
    file.set_extension(std::env::consts::EXE_EXTENSION);
    let release = if profile.ends_with("release") {
        " --release"
    } else {
        ""
    };
    assert!(
        file.is_file(),
        "{} is not there; build it with `{command}{release}`, or run `cargo test --workspace --all-features`",
        file.display()
    );
    file
}
