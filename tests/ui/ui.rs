//! Compiler messages for invalid handlers. Valid handlers (`ui/pass`) are compiled by the packages in `users/`, in
//! editions 2021 and 2024: here, trybuild would build every driver a second time.
//!
//! The messages are the pinned compiler's: `TRYBUILD=overwrite cargo test --all-features --test ui` regenerates them.

use std::{env, fs, path::Path, process::Command};

/// Variables for the process that runs trybuild.
const VARIABLES: [(&str, &str); 3] = [
    // trybuild's own options for rustc. It passes them to cargo in another way, and adds one for dependencies, so that
    // cargo would build them all a second time. This variable takes precedence.
    (
        "CARGO_ENCODED_RUSTFLAGS",
        "--cfg\u{1f}trybuild\u{1f}--verbose\u{1f}-A\u{1f}dead_code\u{1f}--diagnostic-width=140",
    ),
    // SQLite need not be compiled: nothing is linked here.
    ("LIBSQLITE3_SYS_USE_PKG_CONFIG", "1"),
    ("SQLITE3_LIB_DIR", "/nowhere"),
];

#[test]
fn mistakes_are_reported_at_their_location() {
    let is_set = |(name, value): &(&str, &str)| env::var(name).is_ok_and(|set| set == *value);
    if VARIABLES.iter().all(is_set) {
        trybuild::TestCases::new().compile_fail("fail/*.rs");
        return;
    }
    // A test cannot set its own variables without `unsafe`.
    let again = Command::new(env::current_exe().expect("this test"))
        .args(["--exact", "mistakes_are_reported_at_their_location"])
        .args(["--nocapture", "--test-threads=1"])
        .envs(VARIABLES)
        .output()
        .expect("this test");
    print!("{}", String::from_utf8_lossy(&again.stdout));
    eprint!("{}", String::from_utf8_lossy(&again.stderr));
    assert!(again.status.success(), "the compiler says something else");
}

#[test]
fn handlers_compile_in_both_editions() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pass");
    let all = fs::read_to_string(folder.join("main.rs")).expect("the list of the handlers");
    for file in fs::read_dir(folder).expect("the handlers") {
        let path = file.expect("an entry").path();
        let name = path.file_stem().expect("a file").display().to_string();
        let entries = [format!("mod {name};"), format!("{name}::main();")];
        assert!(
            name == "main" || entries.iter().all(|entry| all.contains(entry)),
            "main.rs has not {entries:?}"
        );
    }
}
