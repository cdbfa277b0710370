//! What the compiler says to a handler that is written wrong, and that it says nothing else.
//!
//! The texts are the pinned compiler's: `TRYBUILD=overwrite cargo test --test ui` renews them.

use std::{fs, path::Path};

#[test]
fn every_mistake_is_named_where_it_stands() {
    trybuild::TestCases::new().compile_fail("ui/fail/*.rs");
}

#[test]
fn every_kind_of_handler_compiles() {
    trybuild::TestCases::new().pass("ui/pass/*.rs");
}

#[test]
fn every_kind_of_handler_compiles_in_edition_2021_too() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = tests.join("users/edition_2021/Cargo.toml");
    let manifest = fs::read_to_string(manifest).expect("the package of edition 2021");
    for file in fs::read_dir(tests.join("ui/pass")).expect("the handlers") {
        let name = file.expect("an entry").file_name();
        let entry = format!("path = \"../../ui/pass/{}\"", name.display());
        assert!(manifest.contains(&entry), "no [[test]] has {entry}");
    }
}
