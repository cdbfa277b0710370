//! The path of the runtime crate: `::db_handler`, or the value of `crate = ...`.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{Expr, Path};

use crate::diag::Diagnostics;

/// The path of the runtime crate.
pub(crate) struct RuntimePath(TokenStream);

impl Default for RuntimePath {
    fn default() -> Self {
        Self(quote!(::db_handler))
    }
}

impl RuntimePath {
    /// Returns the path with its first tokens at `span`, where the compiler reports errors in the code around it. A
    /// crate that does not exist is reported where it is named.
    pub(crate) fn at(&self, span: Span) -> TokenStream {
        let mut tokens: Vec<TokenTree> = self.0.clone().into_iter().collect();
        // The two colons of `::x`, or `crate` and the first colon after it.
        for token in tokens.iter_mut().take(2) {
            token.set_span(token.span().located_at(span));
        }
        tokens.into_iter().collect()
    }

    /// Reads the value of `crate = ...`.
    pub(crate) fn read(value: &Expr, diag: &mut Diagnostics) -> Self {
        match value {
            Expr::Path(path) if path.qself.is_none() && is_absolute(&path.path) => {
                Self(path.to_token_stream())
            }
            Expr::Path(path) if path.qself.is_none() => {
                let written = path.to_token_stream().to_string().replace(' ', "");
                let is_relative = written.starts_with("self") || written.starts_with("super");
                let for_a_crate = if is_relative {
                    String::new()
                } else {
                    format!("`crate = ::{written}` for a crate, or ")
                };
                diag.error(
                    path,
                    format_args!(
                        "expected a path that means the same everywhere: write {for_a_crate}`crate = crate::...` for a \
                         module of this one"
                    ),
                );
                Self::default()
            }
            _ => {
                diag.error(
                    value,
                    "expected a path without quotes, e.g. `crate = ::my_facade::db_handler`",
                );
                Self::default()
            }
        }
    }
}

/// Whether it is `::x`, `crate::x`, or the `$crate::x` of a `macro_rules!` macro.
fn is_absolute(path: &Path) -> bool {
    path.leading_colon.is_some()
        || path
            .segments
            .first()
            .is_some_and(|first| first.ident == "crate" || first.ident == "$crate")
}
