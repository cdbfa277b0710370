//! Collects all errors, so that one build reports them all, in source order.

use std::fmt::Display;

use quote::ToTokens;

/// The errors found so far.
#[derive(Default)]
pub(crate) struct Diagnostics {
    errors: Vec<syn::Error>,
}

impl Diagnostics {
    /// Reports `message` on `tokens`: the smallest ones that have to change.
    pub(crate) fn error(&mut self, tokens: &impl ToTokens, message: impl Display) {
        self.push(syn::Error::new_spanned(tokens, message));
    }

    pub(crate) fn push(&mut self, error: syn::Error) {
        self.errors.push(error);
    }

    /// Returns all reported errors as one, if there are any.
    pub(crate) fn finish(mut self) -> syn::Result<()> {
        // The attribute's settings apply to several parameters; their errors are reported once.
        let place = |error: &syn::Error| {
            let (start, end) = (error.span().start(), error.span().end());
            (start.line, start.column, end.line, end.column)
        };
        self.errors
            .sort_by_cached_key(|error| (place(error), error.to_string()));
        self.errors
            .dedup_by_key(|error| (place(error), error.to_string()));
        let all = self.errors.into_iter().reduce(|mut all, error| {
            all.combine(error);
            all
        });
        all.map_or(Ok(()), Err)
    }
}

/// Formats names as "`a`, `b`, `c`".
pub(crate) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

/// Returns " (did you mean `pool`?)" if one of `known` is similar to `written`, otherwise an empty string.
pub(crate) fn suggestion<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let written = written.to_lowercase();
    let nearest = known
        .into_iter()
        .filter(|name| is_near(&written, name))
        .min_by_key(|name| edit_distance(&written, name));
    nearest.map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"))
}

/// A third of the name may differ, its end may be missing (`idle` for `idle_ms`), or its letters may be in another
/// order (`polo` for `pool`).
fn is_near(written: &str, name: &str) -> bool {
    let sorted = |text: &str| {
        let mut letters: Vec<char> = text.chars().collect();
        letters.sort_unstable();
        letters
    };
    edit_distance(written, name) * 3 <= name.len()
        || (written.len() >= 3 && name.starts_with(written))
        || sorted(written) == sorted(name)
}

/// Levenshtein distance: the number of characters to add, remove or change.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (deleted, x) in (1..).zip(a.chars()) {
        let mut last = deleted;
        let mut next = vec![deleted];
        for (y, pair) in b.chars().zip(row.windows(2)) {
            if let [diagonal, above] = pair {
                last = (diagonal + usize::from(x != y))
                    .min(above + 1)
                    .min(last + 1);
                next.push(last);
            }
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}
