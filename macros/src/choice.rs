//! Strings: the choices of a closed set, and names of environment variables.

use quote::ToTokens;
use syn::{Lit, LitStr};

use crate::args::{Args, Value};
use crate::diag::{Diagnostics, list, suggestion};
use crate::value::{KeyValue, Plain, plain};

/// The choices of `close`, each with its variant in the runtime crate.
pub(crate) const CLOSE: &[Choice] = &[
    ("always", "Always"),
    ("on_error", "OnError"),
    ("pressure", "Pressure"),
    ("never", "Never"),
];

/// The choices of `connect`, each with its variant.
pub(crate) const CONNECT: &[Choice] = &[("lazy", "Lazy"), ("eager", "Eager")];

/// The choices of `background`, each with its variant.
pub(crate) const BACKGROUND: &[Choice] = &[("wait", "Wait"), ("abort", "Abort")];

/// The choices of `proxy`, each with its variant.
pub(crate) const PROXY: &[Choice] = &[("rds", "Rds"), ("pgbouncer", "PgBouncer")];

type Choice = (&'static str, &'static str);

/// Reads `name = "word"`, and returns the variant.
pub(crate) fn choice(
    args: &Args,
    name: &str,
    choices: &[Choice],
    diag: &mut Diagnostics,
) -> Option<KeyValue<&'static str>> {
    let Value::Expr(value) = &args.get(name)?.value else {
        return Some(KeyValue::Invalid);
    };
    let known = || choices.iter().map(|(word, _)| *word);
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
        return Some(KeyValue::Invalid);
    };
    let written = written.value();
    if let Some((_, variant)) = choices.iter().find(|(word, _)| *word == written) {
        return Some(KeyValue::Known {
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
    Some(KeyValue::Invalid)
}

fn quoted(choices: impl Iterator<Item = &'static str>) -> String {
    let choices: Vec<String> = choices.map(|word| format!("\"{word}\"")).collect();
    list(choices.iter().map(String::as_str))
}

/// Reads the name of an environment variable.
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
