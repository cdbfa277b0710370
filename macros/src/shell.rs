//! What the expansion and the fallback have in common: the signature that is left for callers, and
//! the user's own function as an async closure inside it.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{FnArg, Pat, ReturnType, Type, parse_quote, parse_str};

use crate::item::{HandlerFn, Kind, Param};
use crate::types::without_impl_trait;

/// `pub async fn name(&self, event: Event) -> Output`, with all attributes.
pub(crate) fn outer_signature(function: &HandlerFn) -> TokenStream {
    let HandlerFn {
        attrs, vis, sig, ..
    } = function;
    let mut sig = sig.clone();
    // A handler that has got this far has neither; the fallback keeps callers compiling.
    sig.constness = None;
    sig.abi = None;
    sig.variadic = None;
    sig.asyncness.get_or_insert_default();
    sig.inputs = function.params.iter().filter_map(outer_param).collect();
    // The attributes of the body have become the function's.
    let attrs = attrs.iter().map(|attr| {
        let mut attr = attr.clone();
        attr.style = syn::AttrStyle::Outer;
        attr
    });
    quote!(#(#attrs)* #vis #sig)
}

fn outer_param(param: &Param) -> Option<FnArg> {
    match &param.kind {
        Kind::Receiver(receiver) => {
            let mut receiver = receiver.clone();
            receiver.attrs.clone_from(&param.attrs);
            Some(FnArg::Receiver(receiver))
        }
        Kind::Event { pat, ty } => {
            let cfgs = param.cfgs();
            let name = event_name(pat);
            Some(parse_quote!(#(#cfgs)* #name: #ty))
        }
        Kind::Resource { .. } => None,
    }
}

/// The outer name of the event. The user's own, so that attributes such as `#[instrument]` find it,
/// although the inner one is the same then. The expansion uses it, hence no underscore in front.
pub(crate) fn event_name(pat: &Pat) -> Ident {
    if let Pat::Ident(pat) = pat
        && let Ok(mut name) = parse_str::<Ident>(pat.ident.to_string().trim_start_matches('_'))
    {
        name.set_span(pat.ident.span());
        return name;
    }
    Ident::new("event", Span::mixed_site().located_at(pat.span()))
}

/// `let __dbh_once = ...; identity(async move |parameters| -> Output { body })`: the function as it
/// was written, so that types, borrows, drop order and lints are those of a plain `async fn`.
///
/// `identity` makes the closure a temporary: a variable would have to be `mut`, or must not be,
/// depending on what the body does with `self`. Called where it is written, it would be a lint.
pub(crate) fn inner_function(function: &HandlerFn) -> InnerFunction {
    let span = output_span(function);
    let params = function.params.iter().filter_map(inner_param);
    let output = without_impl_trait(&output(function));
    let before = before_body(function);
    let mut closure = quote_spanned!(span=> async move |#(#params),*| -> #output);
    // In the braces of the body, because a block in a block is a lint.
    function.brace.surround(&mut closure, |tokens| {
        before.to_tokens(tokens);
        function.body.to_tokens(tokens);
    });
    InnerFunction {
        once: quote_spanned!(span=> let __dbh_once = ::core::option::Option::None::<&mut ()>;),
        callee: quote_spanned!(span=> ::core::convert::identity(#closure)),
    }
}

pub(crate) struct InnerFunction {
    /// A statement in front of the call.
    pub(crate) once: TokenStream,
    pub(crate) callee: TokenStream,
}

fn inner_param(param: &Param) -> Option<TokenStream> {
    let attrs = &param.attrs;
    match &param.kind {
        Kind::Receiver(_) => None,
        Kind::Event { pat, ty } => {
            // `event_name` says why.
            let has_outer_name = matches!(pat, Pat::Ident(inner) if inner.ident == event_name(pat));
            let span = Span::mixed_site().located_at(pat.span());
            let allow =
                has_outer_name.then(|| quote_spanned!(span=> #[allow(clippy::shadow_unrelated)]));
            Some(quote!(#allow #(#attrs)* #pat: #ty))
        }
        Kind::Resource { pat, ty, .. } => {
            let stand_in = stand_in(param);
            Some(quote!(#(#attrs)* #pat: #ty #stand_in))
        }
    }
}

/// A parameter in the place of one that `#[cfg]` removes, so that the number of arguments is right. The `#[cfg]` is an
/// error by itself, and should be the only one.
fn stand_in(param: &Param) -> Option<TokenStream> {
    let conditions: Vec<_> = param
        .cfgs()
        .filter(|attr| attr.path().is_ident("cfg"))
        .filter_map(|attr| Some(&attr.meta.require_list().ok()?.tokens))
        .collect();
    (!conditions.is_empty()).then(|| quote!(, #[cfg(not(all(#(#conditions),*)))] _: ()))
}

/// Two things that the compiler should know, in code that never runs.
///
/// The declared type, before it sees the body: mismatches are then reported in the words and places
/// of a plain `async fn`. And that the closure is called only once, because it gives `__dbh_once`
/// away: otherwise the body could not return what it borrows through `&mut self`.
fn before_body(function: &HandlerFn) -> TokenStream {
    let span = output_span(function);
    let ty = without_impl_trait(&output(function));
    // `!` may not be the type of a variable.
    let edge = (!matches!(ty, Type::Never(_))).then(|| {
        quote_spanned! {ty.span()=>
            let __dbh_output: #ty = loop {};
            return __dbh_output;
        }
    });
    quote_spanned! {span=>
        #[allow(unreachable_code, clippy::all)]
        if false {
            ::core::mem::drop(__dbh_once);
            #edge
        }
    }
}

/// What the handler returns; `()` if that is missing.
pub(crate) fn output(function: &HandlerFn) -> Type {
    match &function.sig.output {
        ReturnType::Type(_, ty) => (**ty).clone(),
        ReturnType::Default => parse_quote!(()),
    }
}

/// Generated tokens are placed on the return type: what is wrong with the handler as a whole is
/// reported there and not on `#[db_handler]`.
pub(crate) fn output_span(function: &HandlerFn) -> Span {
    let place = match &function.sig.output {
        ReturnType::Default => function.sig.ident.span(),
        ReturnType::Type(_, ty) => ty.span(),
    };
    Span::mixed_site().located_at(place)
}
