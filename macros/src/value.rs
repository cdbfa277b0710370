//! What a value is: known here, or left to the compiler.

use proc_macro2::TokenStream;
use syn::{Expr, ExprLit, ExprUnary, Lit, UnOp};

/// A value that is known here, or an expression that only the compiler can evaluate.
#[derive(Clone)]
pub(crate) enum Given<T> {
    Known {
        value: T,
        tokens: TokenStream,
    },
    Constant(TokenStream),
    /// Already reported: nothing may be concluded from it.
    Broken,
}

impl<T: Copy> Given<T> {
    pub(crate) fn known(&self) -> Option<T> {
        match self {
            Given::Known { value, .. } => Some(*value),
            Given::Constant(_) | Given::Broken => None,
        }
    }
}

impl<T> Given<T> {
    /// The value as it was written.
    pub(crate) fn tokens(&self) -> Option<&TokenStream> {
        match self {
            Given::Known { tokens, .. } | Given::Constant(tokens) => Some(tokens),
            Given::Broken => None,
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
