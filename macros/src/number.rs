//! Integers and shares. Literals are checked here, constant expressions by the runtime's `const fn`s.

use std::fmt;

use quote::ToTokens;
use syn::Lit;

use crate::args::{Args, Value};
use crate::diag::Diagnostics;
use crate::value::{KeyValue, Plain, plain};

/// The range of an integer, and its type.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) least: u64,
    pub(crate) most: u64,
    /// What `most` stands for, in brackets.
    pub(crate) note: &'static str,
    /// The only suffix that a literal may have.
    pub(crate) ty: &'static str,
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.most == u64::from(u32::MAX) {
            write!(f, "at least {}", self.least)
        } else {
            write!(f, "between {} and {}{}", self.least, self.most, self.note)
        }
    }
}

/// Reads the integer of `name = ...`.
pub(crate) fn integer(
    args: &Args,
    name: &str,
    limits: Limits,
    diag: &mut Diagnostics,
) -> Option<KeyValue<u64>> {
    let entry = args.get(name)?;
    let Value::Expr(value) = &entry.value else {
        return Some(KeyValue::Invalid);
    };
    let example = entry.key.example;
    let literal = match plain(value) {
        Plain::Literal(literal) => literal,
        Plain::Negative => {
            diag.error(
                value,
                format_args!("`{name}` must be {limits}, e.g. `{example}`"),
            );
            return Some(KeyValue::Invalid);
        }
        Plain::Constant => return Some(KeyValue::Constant(value.to_token_stream())),
    };
    let number = match literal {
        Lit::Int(int) if int.suffix().is_empty() || int.suffix() == limits.ty => {
            // An integer too large for `u64` is out of every range.
            let number = int.base10_parse::<u64>().unwrap_or(u64::MAX);
            if (limits.least..=limits.most).contains(&number) {
                return Some(KeyValue::Known {
                    value: number,
                    tokens: int.to_token_stream(),
                });
            }
            diag.error(value, format_args!("`{name}` must be {limits}"));
            return Some(KeyValue::Invalid);
        }
        Lit::Int(int) => Some(int.base10_digits().to_owned()),
        Lit::Str(text) => Some(text.value().trim().to_owned()),
        _ => None,
    };
    match number.filter(|number| number.parse::<u64>().is_ok()) {
        Some(number) => diag.error(
            value,
            format_args!("expected an integer: write `{name} = {number}`"),
        ),
        None => diag.error(value, format_args!("expected an integer, e.g. `{example}`")),
    }
    Some(KeyValue::Invalid)
}

/// Reads `share = ...`, in millionths.
pub(crate) fn share(args: &Args, diag: &mut Diagnostics) -> Option<KeyValue<u64>> {
    let entry = args.get("share")?;
    let Value::Expr(value) = &entry.value else {
        return Some(KeyValue::Invalid);
    };
    let literal = match plain(value) {
        Plain::Literal(literal) => Some(literal),
        Plain::Negative => None,
        Plain::Constant => return Some(KeyValue::Constant(value.to_token_stream())),
    };
    let millionths = literal.and_then(|literal| match literal {
        Lit::Int(int) => millionths_of(int.base10_digits()),
        Lit::Float(float) => millionths_of(float.base10_digits()),
        _ => None,
    });
    if let Some(millionths @ 1..=1_000_000) = millionths {
        return Some(KeyValue::Known {
            value: millionths,
            tokens: value.to_token_stream(),
        });
    }
    diag.error(
        value,
        "`share` must be above 0 and at most 1, with no more than six decimals, e.g. `share = 0.8`",
    );
    Some(KeyValue::Invalid)
}

/// Parses "0.8" as 800000. Returns `None` for an exponent or more than six decimals.
fn millionths_of(digits: &str) -> Option<u64> {
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
    let decimals = decimals.trim_end_matches('0');
    if decimals.len() > 6 {
        return None;
    }
    format!("{whole}{decimals:0<6}").parse().ok()
}
