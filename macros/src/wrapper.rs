//! What the expansion and the fallback share: the signature that callers see, and the user's own function as an async
//! closure inside it.

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
    // A valid handler has none of these; the fallback keeps callers compiling.
    sig.constness = None;
    sig.abi = None;
    sig.variadic = None;
    sig.asyncness.get_or_insert_default();
    sig.inputs = function.params.iter().filter_map(outer_param).collect();
    // The body's attributes become the function's.
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

/// The outer name of the event. It is the user's own, so that attributes such as `#[instrument]` find it, although the
/// inner parameter then has the same name. The expansion uses it, so a leading underscore is removed.
pub(crate) fn event_name(pat: &Pat) -> Ident {
    if let Pat::Ident(pat) = pat
        && let Ok(mut name) = parse_str::<Ident>(pat.ident.to_string().trim_start_matches('_'))
    {
        name.set_span(pat.ident.span());
        return name;
    }
    Ident::new("event", Span::mixed_site().located_at(pat.span()))
}

/// `let __dbh_once = ...; identity(async move |parameters| -> Output { body })`: the function as written, so that
/// types, borrows, drop order and lints are those of a plain `async fn`.
///
/// `identity` makes the closure a temporary. A variable would need `mut` or must not have it, depending on how the body
/// uses `self`. Calling the closure directly would trigger a lint.
pub(crate) fn inner_function(function: &HandlerFn) -> InnerFunction {
    let span = output_span(function);
    let params = function.params.iter().filter_map(inner_param);
    let output = without_impl_trait(&output(function));
    let before = before_body(function);
    let mut closure = quote_spanned!(span=> async move |#(#params),*| -> #output);
    // Uses the body's own braces: a block in a block triggers a lint.
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
    /// A statement before the call.
    pub(crate) once: TokenStream,
    pub(crate) callee: TokenStream,
}

fn inner_param(param: &Param) -> Option<TokenStream> {
    let attrs = &param.attrs;
    match &param.kind {
        Kind::Receiver(_) => None,
        Kind::Event { pat, ty } => {
            // See `event_name`.
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

/// A parameter in place of one that `#[cfg]` removes, so that the number of arguments is right. The `#[cfg]` is an
/// error by itself, and should be the only one.
fn stand_in(param: &Param) -> Option<TokenStream> {
    let conditions: Vec<_> = param
        .cfgs()
        .filter(|attr| attr.path().is_ident("cfg"))
        .filter_map(|attr| Some(&attr.meta.require_list().ok()?.tokens))
        .collect();
    (!conditions.is_empty()).then(|| quote!(, #[cfg(not(all(#(#conditions),*)))] _: ()))
}

/// Code that never runs and tells the compiler two things.
///
/// First the declared type, before the compiler sees the body: mismatches are then reported with the words and spans of
/// a plain `async fn`. Second that the closure is called only once, because it moves `__dbh_once` out: otherwise the
/// body could not return a borrow through `&mut self`.
fn before_body(function: &HandlerFn) -> TokenStream {
    let span = output_span(function);
    let ty = without_impl_trait(&output(function));
    // A variable cannot have the type `!`.
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

/// The return type of the handler; `()` if there is none.
pub(crate) fn output(function: &HandlerFn) -> Type {
    match &function.sig.output {
        ReturnType::Type(_, ty) => (**ty).clone(),
        ReturnType::Default => parse_quote!(()),
    }
}

/// The span of generated tokens: the return type. Errors about the handler as a whole are reported there and not on
/// `#[db_handler]`.
pub(crate) fn output_span(function: &HandlerFn) -> Span {
    let place = match &function.sig.output {
        ReturnType::Default => function.sig.ident.span(),
        ReturnType::Type(_, ty) => ty.span(),
    };
    Span::mixed_site().located_at(place)
}
