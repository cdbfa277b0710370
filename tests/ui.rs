//! What the compiler says to a handler that is written wrong. Those that are written right (`ui/pass`) are tests of the
//! packages in `users/`, in edition 2021 and in edition 2024: here, trybuild would build every driver a second time for them.
//!
//! The texts are the pinned compiler's: `TRYBUILD=overwrite cargo test --test ui` renews them.

use std::{fs, path::Path};

#[test]
fn every_mistake_is_named_where_it_stands() {
    trybuild::TestCases::new().compile_fail("ui/fail/*.rs");
}

#[test]
fn every_kind_of_handler_is_compiled_in_both_editions() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    for edition in ["edition_2021", "edition_2024"] {
        let manifest = tests.join("users").join(edition).join("Cargo.toml");
        let manifest = fs::read_to_string(manifest).expect("the package of the edition");
        for file in fs::read_dir(tests.join("ui/pass")).expect("the handlers") {
            let name = file.expect("an entry").file_name();
            let entry = format!("path = \"../../ui/pass/{}\"", name.display());
            assert!(
                manifest.contains(&entry),
                "{edition}: no [[test]] has {entry}"
            );
        }
    }
}
