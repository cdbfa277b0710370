//! What the compiler says to a handler that is written wrong. Those that are written right (`ui/pass`) are tests of the
//! packages in `users/`, in edition 2021 and in edition 2024: here, trybuild would build every driver a second time for them.
//!
//! The texts are the pinned compiler's: `TRYBUILD=overwrite cargo test -p db-handler-ui` renews them.

use std::{fs, path::Path};

#[test]
fn every_mistake_is_named_where_it_stands() {
    trybuild::TestCases::new().compile_fail("fail/*.rs");
}

#[test]
fn every_kind_of_handler_is_compiled_in_both_editions() {
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
