//! Parses the attribute's tokens. Keys and their forms are checked against the table; values are not.

use std::fmt;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::discouraged::Speculative;
use syn::parse::{ParseStream, Parser};
use syn::{Expr, Ident, Token};

use crate::diag::Diagnostics;
use crate::keys::{Key, Place};

/// The entries of `key = value, key(...)`. Each key occurs at most once.
#[derive(Default)]
pub(crate) struct Args {
    entries: Vec<Entry>,
}

pub(crate) struct Entry {
    pub(crate) key: &'static Key,
    pub(crate) ident: Ident,
    pub(crate) value: Value,
}

pub(crate) enum Value {
    Expr(Box<Expr>),
    List(Args),
    /// Already reported.
    Invalid,
}

impl Args {
    pub(crate) fn parse(tokens: TokenStream, place: Place, diag: &mut Diagnostics) -> Self {
        let mut args = Self::default();
        args.extend(tokens, place, diag);
        args
    }

    /// Adds more keys: those of a second `#[db(...)]` on the same parameter.
    pub(crate) fn extend(&mut self, tokens: TokenStream, place: Place, diag: &mut Diagnostics) {
        let parser = |input: ParseStream<'_>| {
            while !input.is_empty() {
                self.parse_entry(input, place, diag)?;
                parse_comma(input, diag)?;
            }
            Ok(())
        };
        if let Err(error) = parser.parse2(tokens) {
            diag.push(error);
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key.name == name)
    }

    fn parse_entry(
        &mut self,
        input: ParseStream<'_>,
        place: Place,
        diag: &mut Diagnostics,
    ) -> syn::Result<()> {
        let ahead = input.fork();
        let ident = match ahead.call(Ident::parse_any) {
            Ok(ident) if !ahead.peek(Token![::]) => ident,
            _ => {
                let tokens = take_to_comma(input)?;
                let message = format!("expected a key: one of {}", place.known());
                if tokens.is_empty() {
                    diag.push(input.error(message));
                } else {
                    diag.error(&tokens, message);
                }
                return Ok(());
            }
        };
        input.advance_to(&ahead);
        let form = Form::parse(input)?;
        let Some(key) = place.find(&ident.to_string()) else {
            diag.error(&ident, place.unknown(&ident.to_string()));
            return Ok(());
        };
        let value = form.into_value(key, &ident, diag);
        match self.get(key.name) {
            None => self.entries.push(Entry { key, ident, value }),
            Some(first) => diag.error(
                &ident,
                format_args!(
                    "duplicate key `{ident}`: it is already given as `{first}`; keep one of the two"
                ),
            ),
        }
        Ok(())
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.key.name;
        match &self.value {
            Value::Expr(value) if matches!(**value, Expr::Lit(_)) => {
                write!(f, "{name} = {}", value.to_token_stream())
            }
            Value::List(_) => write!(f, "{name}(...)"),
            Value::Expr(_) | Value::Invalid => write!(f, "{name} = ..."),
        }
    }
}

/// What follows a key, for any key.
enum Form {
    Bare,
    Expr(Expr),
    /// `=` without a valid expression after it. The tokens may be empty.
    NoExpr(TokenStream),
    /// `:` instead of `=`.
    Colon(TokenStream),
    Group(Group),
}

impl Form {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        if input.is_empty() || input.peek(Token![,]) {
            return Ok(Form::Bare);
        }
        if input.peek(Token![=]) {
            input.parse::<TokenTree>()?;
            let ahead = input.fork();
            return match ahead.parse::<Expr>() {
                Ok(value) => {
                    input.advance_to(&ahead);
                    Ok(Form::Expr(value))
                }
                Err(_) => take_to_comma(input).map(Form::NoExpr),
            };
        }
        if input.peek(Token![:]) {
            return take_to_comma(input).map(Form::Colon);
        }
        match input.fork().parse::<TokenTree>()? {
            TokenTree::Group(group) if group.delimiter() != Delimiter::None => {
                input.parse::<TokenTree>()?;
                Ok(Form::Group(group))
            }
            _ => Ok(Form::Bare),
        }
    }

    fn into_value(self, key: &'static Key, ident: &Ident, diag: &mut Diagnostics) -> Value {
        let Key { name, example, .. } = key;
        match self {
            Form::Expr(value) if !key.takes_list() => return Value::Expr(Box::new(value)),
            Form::Group(group) if key.takes_list() => {
                if group.delimiter() != Delimiter::Parenthesis {
                    let got = match group.delimiter() {
                        Delimiter::Brace => "{...}",
                        _ => "[...]",
                    };
                    diag.error(
                        &group,
                        format_args!(
                            "wrong delimiter: expected parentheses, e.g. `{example}`, but got `{name}{got}`"
                        ),
                    );
                }
                return Value::List(Args::parse(group.stream(), Place::Nested(key), diag));
            }
            Form::Expr(value) => diag.error(
                &value,
                format_args!("`{name}` takes a list, not a value: write e.g. `{example}`"),
            ),
            Form::Group(group) => {
                let stream = group.stream().to_string();
                let fix = if stream.is_empty() || stream.contains([',', '=']) {
                    format!("e.g. `{example}`")
                } else {
                    format!("`{name} = {stream}`")
                };
                diag.error(
                    &group,
                    format_args!("`{name}` takes a value, not a list: write {fix}"),
                );
            }
            Form::Bare if key.takes_list() => diag.error(
                ident,
                format_args!("`{name}` takes a list: write e.g. `{example}`"),
            ),
            Form::NoExpr(tokens) if !tokens.is_empty() => diag.error(
                &tokens,
                format_args!("`{name}` has no value that can be read: write e.g. `{example}`"),
            ),
            Form::Bare | Form::NoExpr(_) => diag.error(
                ident,
                format_args!("`{name}` has no value: write e.g. `{example}`"),
            ),
            Form::Colon(tokens) => diag.error(
                &tokens.into_iter().next(),
                format_args!("expected `=`: write e.g. `{example}`"),
            ),
        }
        Value::Invalid
    }
}

fn parse_comma(input: ParseStream<'_>, diag: &mut Diagnostics) -> syn::Result<()> {
    if input.peek(Token![,]) {
        input.parse::<Token![,]>()?;
    } else if !input.is_empty() {
        diag.push(input.error("expected `,` before this"));
        if !input.peek(Ident::peek_any) {
            take_to_comma(input)?;
            input.parse::<Option<Token![,]>>()?;
        }
    }
    Ok(())
}

/// Takes everything up to the next comma.
fn take_to_comma(input: ParseStream<'_>) -> syn::Result<TokenStream> {
    let mut tokens = TokenStream::new();
    while !input.is_empty() && !input.peek(Token![,]) {
        tokens.extend([input.parse::<TokenTree>()?]);
    }
    Ok(tokens)
}
