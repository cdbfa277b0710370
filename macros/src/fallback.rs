//! The expansion of a handler with errors: the errors and the function itself, so that its callers compile and editors
//! still complete inside it.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};

use crate::item::{HandlerFn, Kind};
use crate::wrapper::{InnerFunction, event_name, inner_function, outer_signature, output_span};

/// The signature that callers see, around the body with all its parameters. It names nothing of the runtime crate: the
/// missing trait may be one of the runtime's.
pub(crate) fn handler(function: &HandlerFn, errors: &syn::Error) -> TokenStream {
    let errors = errors.to_compile_error();
    let signature = outer_signature(function);
    let span = output_span(function);
    let events = function.params.iter().filter_map(|param| {
        let Kind::Event { pat, .. } = &param.kind else {
            return None;
        };
        let name = event_name(pat);
        let cfgs = param.cfgs();
        Some(quote_spanned!(span=> #(#cfgs)* ::core::mem::drop(#name);))
    });
    let InnerFunction { once, callee } = inner_function(function);
    // Of several events with a `#[cfg]`, one remains.
    let mut has_one_of_several = false;
    let arguments = function.params.iter().filter_map(|param| {
        let is_there = match param.kind {
            Kind::Receiver(_) => false,
            Kind::Event { .. } if param.cfgs().next().is_some() => {
                !std::mem::replace(&mut has_one_of_several, true)
            }
            Kind::Event { .. } | Kind::Resource { .. } => true,
        };
        is_there.then(|| quote_spanned!(span=> loop {}))
    });
    let body = quote_spanned! {span=>
        #(#events)*
        #once
        #[allow(unreachable_code)]
        return #callee(#(#arguments),*).await;
    };
    let mut tokens = quote!(#errors #signature);
    function
        .brace
        .surround(&mut tokens, |tokens| body.to_tokens(tokens));
    tokens
}

/// The expansion of an item that is not a function: the item goes to the compiler unchanged.
pub(crate) fn unread(item: &TokenStream, errors: &syn::Error) -> TokenStream {
    let errors = errors.to_compile_error();
    quote!(#errors #item)
}
