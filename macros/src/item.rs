//! The function as written. Its signature is parsed; its body is not, so that incomplete code in it reaches the
//! compiler and the editor unchanged.

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::parse::{Parse, ParseStream};
use syn::token::Brace;
use syn::{
    Attribute, FnArg, Pat, Receiver, Signature, Token, Type, TypeReference, Visibility, braced,
};

use crate::types::name_impl_trait;

pub(crate) struct HandlerFn {
    /// All attributes in order, with the body's `#![...]` at the end.
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) vis: Visibility,
    /// Its inputs are as written; use `params` instead.
    pub(crate) sig: Signature,
    pub(crate) params: Vec<Param>,
    pub(crate) brace: Brace,
    pub(crate) body: TokenStream,
}

pub(crate) struct Param {
    /// Without `#[db(...)]`.
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) db: Vec<Attribute>,
    pub(crate) kind: Kind,
}

/// A parameter by value is the event, one by reference a resource. The body can name their types.
pub(crate) enum Kind {
    Receiver(Receiver),
    Event {
        pat: Pat,
        ty: Type,
    },
    Resource {
        pat: Pat,
        ty: Type,
        /// The same type as written.
        reference: TypeReference,
    },
}

impl Parse for HandlerFn {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut attrs = input.call(Attribute::parse_outer)?;
        let vis: Visibility = input.parse()?;
        reject_other_items(input)?;
        let mut sig: Signature = input.parse()?;
        if input.peek(Token![;]) {
            return Err(input
                .error("a handler needs a body: put `#[db_handler]` on the function that has it"));
        }
        let content;
        let brace = braced!(content in input);
        attrs.extend(content.call(Attribute::parse_inner)?);
        let body = content.parse()?;
        let mut params: Vec<Param> = sig.inputs.iter().cloned().map(Param::new).collect();
        for param in &mut params {
            if let Kind::Event { ty, .. } | Kind::Resource { ty, .. } = &mut param.kind {
                name_impl_trait(ty, &mut sig.generics);
            }
        }
        Ok(Self {
            attrs,
            vis,
            sig,
            params,
            brace,
            body,
        })
    }
}

/// Rejects other items with an error that says where `#[db_handler]` goes. The parser would only say that it expected
/// `fn`.
fn reject_other_items(input: ParseStream<'_>) -> syn::Result<()> {
    let is_const_item = input.peek(Token![const])
        && !input.peek2(Token![fn])
        && !input.peek2(Token![async])
        && !input.peek2(Token![unsafe])
        && !input.peek2(Token![extern]);
    let others = [
        (input.peek(Token![struct]), "a struct"),
        (input.peek(Token![enum]), "an enum"),
        (
            input.peek(Token![impl]),
            "an `impl` block: put it on the methods",
        ),
        (input.peek(Token![mod]), "a module: put it on the functions"),
        (
            input.peek(Token![trait]),
            "a trait: put it on what implements it",
        ),
        (input.peek(Token![type]), "a type"),
        (input.peek(Token![use]), "an import"),
        (input.peek(Token![static]), "a static"),
        (is_const_item, "a constant"),
    ];
    let Some((_, what)) = others.iter().find(|(is_it, _)| *is_it) else {
        return Ok(());
    };
    Err(input.error(format_args!(
        "`#[db_handler]` goes on an `async fn`, not on {what}"
    )))
}

impl Param {
    fn new(arg: FnArg) -> Self {
        match arg {
            FnArg::Receiver(mut receiver) => {
                let attrs = std::mem::take(&mut receiver.attrs);
                Self::sorted(attrs, Kind::Receiver(receiver))
            }
            FnArg::Typed(typed) => {
                let (pat, ty) = (*typed.pat, *typed.ty);
                let kind = match ungrouped(&ty) {
                    Type::Reference(reference) => Kind::Resource {
                        pat,
                        reference: reference.clone(),
                        ty,
                    },
                    _ => Kind::Event { pat, ty },
                };
                Self::sorted(typed.attrs, kind)
            }
        }
    }

    fn sorted(attrs: Vec<Attribute>, kind: Kind) -> Self {
        let (db, attrs) = attrs
            .into_iter()
            .partition(|attr| attr.path().is_ident("db"));
        Self { attrs, db, kind }
    }

    /// The attributes that decide whether the parameter exists.
    pub(crate) fn cfgs(&self) -> impl Iterator<Item = &Attribute> {
        self.attrs
            .iter()
            .filter(|attr| attr.path().is_ident("cfg") || attr.path().is_ident("cfg_attr"))
    }
}

impl ToTokens for Kind {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        match self {
            Kind::Receiver(receiver) => receiver.to_tokens(tokens),
            Kind::Event { pat, ty } | Kind::Resource { pat, ty, .. } => {
                pat.to_tokens(tokens);
                <Token![:]>::default().to_tokens(tokens);
                ty.to_tokens(tokens);
            }
        }
    }
}

/// Removes parentheses and the invisible groups of `macro_rules!` from a type.
pub(crate) fn ungrouped(mut ty: &Type) -> &Type {
    loop {
        ty = match ty {
            Type::Group(group) => &group.elem,
            Type::Paren(paren) => &paren.elem,
            _ => return ty,
        };
    }
}
