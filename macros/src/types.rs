//! `impl Trait`, which may be written in a signature, but not in a body.

use proc_macro2::Span;
use quote::format_ident;
use syn::visit_mut::{VisitMut, visit_type_mut};
use syn::{Generics, Type, TypeImplTrait, parse_quote};

/// The type with `_` in place of every `impl Trait`: what a body can say about its own result.
pub(crate) fn without_impl_trait(ty: &Type) -> Type {
    let mut ty = ty.clone();
    Replace(|_: &TypeImplTrait| -> Type { parse_quote!(_) }).visit_type_mut(&mut ty);
    ty
}

/// Makes every `impl Trait` of a parameter the type parameter that it stands for, so that the body
/// can name it.
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

struct Replace<F>(F);

impl<F: FnMut(&TypeImplTrait) -> Type> VisitMut for Replace<F> {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        // What is inside first: `impl Iterator<Item = impl Display>`.
        visit_type_mut(self, ty);
        if let Type::ImplTrait(anonymous) = ty {
            *ty = (self.0)(anonymous);
        }
    }
}
