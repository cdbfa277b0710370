//! Values that are known to the macro, or that only the compiler can evaluate.

use proc_macro2::TokenStream;
use syn::{Expr, ExprLit, ExprUnary, Lit, UnOp};

#[derive(Clone)]
pub(crate) enum KeyValue<T> {
    Known {
        value: T,
        tokens: TokenStream,
    },
    Constant(TokenStream),
    /// Already reported; no further check uses it.
    Invalid,
}

impl<T: Copy> KeyValue<T> {
    pub(crate) fn known(&self) -> Option<T> {
        match self {
            KeyValue::Known { value, .. } => Some(*value),
            KeyValue::Constant(_) | KeyValue::Invalid => None,
        }
    }
}

impl<T> KeyValue<T> {
    /// The value as it was written.
    pub(crate) fn tokens(&self) -> Option<&TokenStream> {
        match self {
            KeyValue::Known { tokens, .. } | KeyValue::Constant(tokens) => Some(tokens),
            KeyValue::Invalid => None,
        }
    }
}

pub(crate) enum Plain<'a> {
    Literal(&'a Lit),
    Negative,
    Constant,
}

/// Looks through the invisible groups that `macro_rules!` puts around its fragments.
pub(crate) fn plain(mut value: &Expr) -> Plain<'_> {
    loop {
        value = match value {
            Expr::Group(group) => &group.expr,
            Expr::Paren(paren) => &paren.expr,
            Expr::Lit(ExprLit { lit, .. }) => return Plain::Literal(lit),
            Expr::Unary(ExprUnary {
                op: UnOp::Neg(_),
                expr,
                ..
            }) if matches!(plain(expr), Plain::Literal(_)) => return Plain::Negative,
            _ => return Plain::Constant,
        };
    }
}
