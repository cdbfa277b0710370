//! Types: replaces `impl Trait`, which a signature may contain but a body may not, and formats types for errors.

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use quote::format_ident;
use syn::visit_mut::{VisitMut, visit_type_mut};
use syn::{Generics, Type, TypeImplTrait, parse_quote};

/// Replaces every `impl Trait` with `_`, so that a body can write its own return type.
pub(crate) fn without_impl_trait(ty: &Type) -> Type {
    let mut ty = ty.clone();
    Replace(|_: &TypeImplTrait| -> Type { parse_quote!(_) }).visit_type_mut(&mut ty);
    ty
}

/// Turns every `impl Trait` of a parameter into a named type parameter, so that the body can name it.
pub(crate) fn name_impl_trait(ty: &mut Type, generics: &mut Generics) {
    let replacement = |anonymous: &TypeImplTrait| -> Type {
        let name = format_ident!(
            "__DbhImpl{}",
            generics.params.len(),
            span = Span::mixed_site()
        );
        let bounds = &anonymous.bounds;
        generics.params.push(parse_quote!(#name: #bounds));
        parse_quote!(#name)
    };
    Replace(replacement).visit_type_mut(ty);
}

/// Formats a type in the usual spacing: `Db<Postgres>`, where its tokens alone are `Db < Postgres >`.
pub(crate) fn text(tokens: TokenStream) -> String {
    let mut text = String::new();
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::None => ("", ""),
                };
                text.push_str(open);
                text.push_str(&self::text(group.stream()));
                text.push_str(close);
            }
            TokenTree::Punct(punct) => match punct.as_char() {
                sign @ (',' | ';') => text.extend([sign, ' ']),
                sign @ ('+' | '=' | '-') => text.extend([' ', sign, ' ']),
                // The second half of an arrow.
                '>' if text.ends_with(" - ") => {
                    text.truncate(text.len() - 1);
                    text.push_str("> ");
                }
                sign => text.push(sign),
            },
            word => {
                let is_word = |last: char| last.is_alphanumeric() || matches!(last, '_' | '>');
                if text.ends_with(is_word) {
                    text.push(' ');
                }
                text.push_str(&word.to_string());
            }
        }
    }
    text
}

struct Replace<F>(F);

impl<F: FnMut(&TypeImplTrait) -> Type> VisitMut for Replace<F> {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        // The inner types first: `impl Iterator<Item = impl Display>`.
        visit_type_mut(self, ty);
        if let Type::ImplTrait(anonymous) = ty {
            *ty = (self.0)(anonymous);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::ToTokens;

    #[test]
    fn types_are_shown_as_people_write_them() {
        for written in [
            "PgPool",
            "Db<Postgres>",
            "&'a mut sqlx::Transaction<'_, Postgres>",
            "dyn Fn(u8, &str) -> Vec<u8> + Send",
            "[u8; 4]",
            "<T as Trait<Item = u8>>::Output",
            "for<'a> fn(&'a str)",
        ] {
            let ty: Type = syn::parse_str(written).expect("a type");
            assert_eq!(text(ty.to_token_stream()), written);
        }
    }
}
