//! The layers of `runtime/src`: a module imports only from its own layer and the layers below it.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// From the lowest layer up.
const FLOORS: [&str; 9] = [
    "error",
    "util",
    "credentials",
    "config",
    "resource",
    "drivers",
    "event",
    "lifecycle",
    "platform",
];

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|name| *name == module)
}

pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of the sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Returns the top-level modules that `text` names in paths and import lists.
fn named(text: &str) -> Vec<&str> {
    let identifier = |text: &'_ str| {
        text.find(|c: char| !(c.is_alphanumeric() || c == '_'))
            .unwrap_or(text.len())
    };
    let mut modules = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let Some(list) = rest.strip_prefix('{') else {
            modules.push(&rest[..identifier(rest)]);
            continue;
        };
        let mut depth = 0_i32;
        let mut start = Some(0);
        for (index, character) in list.char_indices() {
            match character {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = Some(index + 1),
                _ if character.is_alphabetic() && start.is_some() && depth == 0 => {
                    modules.push(&list[index..index + identifier(&list[index..])]);
                    start = None;
                }
                _ => {}
            }
        }
    }
    modules
}

#[test]
fn modules_import_only_from_their_own_layer_or_below() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut seen = 0;
    for file in files(&src) {
        let place = file.strip_prefix(&src).expect("below the sources");
        let name = place.iter().next().expect("a name").to_string_lossy();
        let Some(own) = floor(name.trim_end_matches(".rs")) else {
            continue;
        };
        let text = fs::read_to_string(&file).expect("a source");
        // Unit tests may import anything; links in comments are not imports.
        let text = text
            .split("#[cfg(test)]\nmod tests")
            .next()
            .unwrap_or_default();
        let code: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect();
        for module in named(&code.join("\n")) {
            let other = floor(module);
            seen += 1;
            assert!(
                other.is_none_or(|other| other <= own),
                "{} imports `{module}`, which stands above it",
                place.display()
            );
        }
    }
    assert!(seen > 100, "only {seen} imports were found");
}

#[test]
fn finds_imports_in_lists_and_paths() {
    let text = "use crate::{a::{b, c}, d::e, f};\ncrate::g::h()";
    assert_eq!(named(text), ["a", "d", "f", "g"]);
}
