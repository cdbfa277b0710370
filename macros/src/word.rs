//! Strings: words of a closed set, and names of environment variables.

use quote::ToTokens;
use syn::{Lit, LitStr};

use crate::args::{Args, Value};
use crate::diag::{Diagnostics, list, suggestion};
use crate::value::{Given, Plain, plain};

/// The words of `close`, each with the name of its variant in the runtime crate.
pub(crate) const CLOSE: &[Word] = &[
    ("always", "Always"),
    ("on_error", "OnError"),
    ("pressure", "Pressure"),
    ("never", "Never"),
];

/// The words of `connect`, likewise.
pub(crate) const CONNECT: &[Word] = &[("lazy", "Lazy"), ("eager", "Eager")];

/// The words of `background`, likewise.
pub(crate) const BACKGROUND: &[Word] = &[("wait", "Wait"), ("abort", "Abort")];

/// The words of `proxy`, likewise.
pub(crate) const PROXY: &[Word] = &[("rds", "Rds"), ("pgbouncer", "PgBouncer")];

type Word = (&'static str, &'static str);

/// The variant that `name = "word"` chose.
pub(crate) fn word(
    args: &Args,
    name: &str,
    words: &[Word],
    diag: &mut Diagnostics,
) -> Option<Given<&'static str>> {
    let Value::Expr(value) = &args.get(name)?.value else {
        return Some(Given::Broken);
    };
    let known = || words.iter().map(|(word, _)| *word);
    let Plain::Literal(Lit::Str(written)) = plain(value) else {
        let bare = value.to_token_stream().to_string().to_lowercase();
        match known().find(|word| *word == bare) {
            Some(word) => diag.error(
                value,
                format_args!("expected a string: write `{name} = \"{word}\"`"),
            ),
            None => diag.error(
                value,
                format_args!("expected a string: one of {}", quoted(known())),
            ),
        }
        return Some(Given::Broken);
    };
    let written = written.value();
    if let Some((_, variant)) = words.iter().find(|(word, _)| *word == written) {
        return Some(Given::Known {
            value: variant,
            tokens: value.to_token_stream(),
        });
    }
    let hint = suggestion(&written, known());
    diag.error(
        value,
        format_args!(
            "unknown value `\"{written}\"` for `{name}`; expected one of {}{hint}",
            quoted(known())
        ),
    );
    Some(Given::Broken)
}

fn quoted(words: impl Iterator<Item = &'static str>) -> String {
    let words: Vec<String> = words.map(|word| format!("\"{word}\"")).collect();
    list(words.iter().map(String::as_str))
}

/// The name of an environment variable.
pub(crate) fn variable(args: &Args, diag: &mut Diagnostics) -> Option<LitStr> {
    let entry = args.get("env")?;
    let Value::Expr(value) = &entry.value else {
        return None;
    };
    let Plain::Literal(Lit::Str(name)) = plain(value) else {
        diag.error(
            value,
            format_args!(
                "expected the name of an environment variable in quotes, e.g. `{}`",
                entry.key.example
            ),
        );
        return None;
    };
    let text = name.value();
    if text.is_empty() {
        diag.error(
            value,
            format_args!(
                "`env` names no variable: write e.g. `{}`",
                entry.key.example
            ),
        );
        return None;
    }
    if let Some(c) = text
        .chars()
        .find(|c| c.is_whitespace() || matches!(c, '=' | '\0'))
    {
        diag.error(
            value,
            format_args!(
                "`env` is the name of an environment variable, which cannot contain {c:?}: write e.g. `{}`",
                entry.key.example
            ),
        );
        return None;
    }
    Some(name.clone())
}
