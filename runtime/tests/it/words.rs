//! Names and phrases that standard terms have replaced do not come back.

use crate::floors::files;
use std::{collections::BTreeSet, fs, path::Path};

const LIST: &str = include_str!("words.txt");

/// The entries of `[section]`.
fn section(name: &str) -> BTreeSet<&str> {
    let begin = format!("[{name}]");
    LIST.lines()
        .skip_while(|line| *line != begin)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.is_empty())
        .collect()
}

/// Whether `text` contains `phrase` as whole words.
fn contains(text: &str, phrase: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(phrase).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + phrase.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

fn assert_absent(folder: &str, words: &BTreeSet<&str>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut seen = 0;
    for file in files(&folder) {
        let is_code = file.extension().is_some_and(|extension| extension == "rs");
        if !is_code || file.components().any(|part| part.as_os_str() == "target") {
            continue;
        }
        seen += 1;
        let text = fs::read_to_string(&file).expect("a source");
        for (number, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            for word in words {
                assert!(
                    !contains(line, word) && !contains(&lower, word),
                    "{}:{}: `{word}` is in words.txt",
                    file.display(),
                    number + 1
                );
            }
        }
    }
    assert!(seen > 0, "no sources in {}", folder.display());
}

#[test]
fn replaced_identifiers_are_not_used() {
    let identifiers = section("identifiers");
    assert!(identifiers.len() > 20, "{identifiers:?}");
    for folder in ["src", "../macros/src"] {
        assert_absent(folder, &identifiers);
    }
}

#[test]
fn replaced_phrases_are_not_used() {
    let phrases = section("phrases");
    assert!(phrases.len() > 20, "{phrases:?}");
    for folder in ["src", "tests", "../macros", "../tests", "../examples"] {
        assert_absent(folder, &phrases);
    }
}

#[test]
fn finds_whole_words_only() {
    assert!(contains("a red link.", "red link"));
    assert!(!contains("a red linked list", "red link"));
}
