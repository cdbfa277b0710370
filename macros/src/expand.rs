//! The expansion: a thin shim around the user's function. Everything that can be decided at run time is decided in the
//! runtime crate. This is the only file that names its paths.
//!
//! ```text
//! // in
//! pub async fn create(&self, LambdaEvent { payload, .. }: LambdaEvent<New>, db: &PgPool) -> Result<Id, Error> { BODY }
//!
//! // out
//! pub async fn create(&self, event: LambdaEvent<New>) -> Result<Id, Error> {
//!     static __DB_HANDLER_SITE: Site = Site::new(module_path!(), "create", &[Config::new().max(2)]);
//!     return handle::<(Ref<PgPool>,), Result<Id, Error>, LambdaEvent<New>, _, _>(
//!         &__DB_HANDLER_SITE,
//!         event,
//!         move |__dbh_event, (__dbh_0,)| async move {
//!             let __dbh_once = None::<&mut ()>;
//!             identity(async move |LambdaEvent { payload, .. }: LambdaEvent<New>, db: &PgPool| -> Result<Id, Error> {
//!                 if false { drop(__dbh_once); let output: Result<Id, Error> = loop {}; return output; }
//!                 BODY
//!             })(__dbh_event, &*__dbh_0).await
//!         },
//!     ).await;
//! }
//! ```

use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::Type;
use syn::spanned::Spanned;

use crate::budget::BudgetCheck;
use crate::item::{HandlerFn, Kind};
use crate::model::Model;
use crate::path::RuntimePath;
use crate::settings::{DEFAULT_MAX, MinCheck, ProxyCheck, Settings};
use crate::types::without_impl_trait;
use crate::value::KeyValue;
use crate::wrapper::{
    InnerFunction, event_name, inner_function, outer_signature, output, output_span,
};

pub(crate) fn handler(model: &Model, function: &HandlerFn) -> TokenStream {
    let span = output_span(function);
    let k = model.runtime.at(span);
    let signature = outer_signature(function);
    let site = site(model, function);
    let checks = checks(model, function);
    let resources = resources(&model.runtime, function, span);
    let registration = model.registered.then(|| {
        quote_spanned! {span=>
            #k::__private::inventory::submit! {
                #k::__private::Registered::new::<#resources>(&__DB_HANDLER_SITE)
            }
        }
    });
    let output = without_impl_trait(&output(function));
    let (event, event_ty) = event(function);
    let (guards, injected) = guards(function, span);
    let InnerFunction { once, callee } = inner_function(function);
    // With `return`: lints that ask for it would point at `#[db_handler]`.
    let body = quote_spanned! {span=>
        static __DB_HANDLER_SITE: #k::__private::Site = #site;
        #checks
        #registration
        return #k::__private::handle::<#resources, _, _, _, _>(
            &__DB_HANDLER_SITE,
            #k::__private::signature::<#event_ty, #output>(),
            #event,
            move |__dbh_event, (#(#guards,)*)| async move {
                #once
                #callee(#(#injected),*).await
            },
        ).await;
    };
    let mut tokens = signature;
    // The user's own braces: with generated ones the function would count as generated code, and lints such as
    // `dead_code` would skip it.
    function
        .brace
        .surround(&mut tokens, |tokens| body.to_tokens(tokens));
    tokens
}

fn site(model: &Model, function: &HandlerFn) -> TokenStream {
    let span = output_span(function);
    let k = model.runtime.at(span);
    let name = function.sig.ident.to_string();
    let name = name.trim_start_matches("r#");
    let configs = model
        .settings
        .iter()
        .map(|settings| config(&model.runtime, settings, span));
    quote_spanned! {span=>
        #k::__private::Site::new(::core::module_path!(), #name, &[#(#configs),*])
    }
}

/// `Config::new().max(2)`: only the settings that were written. The runtime has the defaults.
fn config(runtime: &RuntimePath, settings: &Settings, span: Span) -> TokenStream {
    let Settings {
        env,
        max,
        min,
        idle_ms,
        acquire_ms,
        lifetime_ms,
        credentials,
        trust_ms,
        ping_ms,
        reserve_ms,
        close,
        connect,
        instances,
        share,
        proxy,
        background,
    } = settings;
    let numbers = [
        ("max", max),
        ("min", min),
        ("idle_ms", idle_ms),
        ("acquire_ms", acquire_ms),
        ("lifetime_ms", lifetime_ms),
        ("trust_ms", trust_ms),
        ("ping_ms", ping_ms),
        ("reserve_ms", reserve_ms),
    ];
    // The compiler reports a constant out of range on the constant.
    let constant = numbers.iter().find_map(|(_, number)| match number {
        Some(KeyValue::Constant(tokens)) => Some(tokens.span()),
        _ => None,
    });
    let span = constant.map_or(span, |constant| span.located_at(constant));
    let k = runtime.at(span);
    let env = env.iter().map(|env| quote_spanned!(span=> .env(#env)));
    let numbers = numbers.into_iter().filter_map(|(name, number)| {
        let value = number.as_ref()?.tokens()?;
        let method = Ident::new(name, span);
        Some(quote_spanned!(span=> .#method(#value)))
    });
    let words = [
        ("close", "Close", close),
        ("connect", "Connect", connect),
        ("proxy", "Proxy", proxy),
        ("background", "BackgroundPolicy", background),
    ];
    let words = words.into_iter().filter_map(|(method, ty, variant)| {
        let variant = Ident::new(variant.as_ref().and_then(KeyValue::known)?, span);
        let (method, ty) = (Ident::new(method, span), Ident::new(ty, span));
        Some(quote_spanned!(span=> .#method(#k::__private::#ty::#variant)))
    });
    let instances = instances.iter().map(|instances| {
        let span = span.located_at(instances.span());
        quote_spanned!(span=> .instances(#instances))
    });
    let share = share.iter().map(|share| {
        // A constant out of range is reported on the constant.
        let span = span.located_at(share.span());
        quote_spanned!(span=> .share(#share))
    });
    let credentials = credentials.iter().map(|provider| {
        // A value that is not a provider is reported on its path.
        let at = span.located_at(provider.span());
        let k = runtime.at(at);
        let source = quote_spanned!(at=> #k::__private::Source::new(&#provider));
        quote_spanned!(span=> .credentials(#source))
    });
    quote_spanned!(span=> #k::__private::Config::new()#(#env)*#(#numbers)*#(#credentials)*#(#instances)*#(#share)*#(#words)*)
}

/// Checks for constants that only the compiler can evaluate.
fn checks(model: &Model, function: &HandlerFn) -> TokenStream {
    let default_max = Literal::u64_unsuffixed(DEFAULT_MAX).into_token_stream();
    let min = model.min_checks.iter().map(|(parameter, check)| {
        let MinCheck { min, max, close } = check;
        let max = max.as_ref().unwrap_or(&default_max);
        let span = Span::mixed_site().located_at(min.span());
        let k = model.runtime.at(span);
        if let Some(close) = close {
            let close = Ident::new(close, span);
            return quote_spanned! {span=>
                const _: () = #k::__private::check_min(#min, #max, #k::__private::Close::#close);
            };
        }
        let param = resource_types(&model.runtime, function, span).nth(*parameter);
        let check = quote_spanned! {span=>
            #k::__private::check_min_by_default(#min, #max, #k::__private::default_close::<#param>())
        };
        if model.registered {
            quote_spanned!(span=> const _: () = #check;)
        } else {
            // An item cannot name the generics of the function around it.
            quote_spanned!(span=> const { #check };)
        }
    });
    let budget = model.budget_checks.iter().map(|check| {
        let BudgetCheck {
            key,
            max,
            instances,
            connections,
            share,
        } = check;
        let span = Span::mixed_site().located_at(key.span());
        let k = model.runtime.at(span);
        let max = max
            .iter()
            .map(|max| max.as_ref().unwrap_or(&default_max).clone())
            .reduce(|a, b| quote_spanned!(span=> ::core::primitive::u32::saturating_add(#a, #b)));
        quote_spanned! {span=>
            const _: () = #k::__private::check_budget(#max, #instances, #connections, #share);
        }
    });
    let proxy = model.proxy_checks.iter().map(|(parameter, check)| {
        let check = match check {
            ProxyCheck::RdsProxySafe => "rds_proxy_safe",
            ProxyCheck::TransactionPoolingSafe => "transaction_pooling_safe",
        };
        let ty = lent_types(function).nth(*parameter);
        let span = Span::mixed_site().located_at(ty.span());
        let k = model.runtime.at(span);
        let check = Ident::new(check, span);
        quote_spanned!(span=> #k::__private::#check::<#ty>();)
    });
    quote!(#(#min)* #(#budget)* #(#proxy)*)
}

/// The types that the resource parameters refer to.
fn lent_types(function: &HandlerFn) -> impl Iterator<Item = &Type> {
    function
        .params
        .iter()
        .filter_map(|param| match &param.kind {
            Kind::Resource { reference, .. } => Some(&*reference.elem),
            _ => None,
        })
}

/// `(Ref<PgPool>, RefMut<PgConnection>,)`, each with the span of the parameter's type.
fn resources(runtime: &RuntimePath, function: &HandlerFn, span: Span) -> TokenStream {
    let each = resource_types(runtime, function, span);
    quote_spanned!(span=> (#(#each,)*))
}

fn resource_types<'a>(
    runtime: &'a RuntimePath,
    function: &'a HandlerFn,
    span: Span,
) -> impl Iterator<Item = TokenStream> + 'a {
    function
        .params
        .iter()
        .filter_map(move |param| match &param.kind {
            Kind::Resource { reference, .. } => {
                let ty = &reference.elem;
                let span = span.located_at(ty.span());
                let k = runtime.at(span);
                Some(if reference.mutability.is_some() {
                    quote_spanned!(span=> #k::__private::RefMut<#ty>)
                } else {
                    quote_spanned!(span=> #k::__private::Ref<#ty>)
                })
            }
            _ => None,
        })
}

/// The event's name, and its type where that can be named: an unmet bound of the runtime is reported there.
fn event(function: &HandlerFn) -> (Ident, TokenStream) {
    let mut name = Ident::new("event", Span::mixed_site());
    let mut named = Vec::new();
    for param in &function.params {
        if let Kind::Event { pat, ty } = &param.kind {
            name = event_name(pat);
            named.push(ty);
        }
    }
    match named.as_slice() {
        [ty] => (name, ty.to_token_stream()),
        // Several events, of which `#[cfg]` leaves one.
        _ => (name, quote!(_)),
    }
}

/// The patterns that bind the guards, and the arguments of the function.
fn guards(function: &HandlerFn, span: Span) -> (Vec<TokenStream>, Vec<TokenStream>) {
    let mut guards = Vec::new();
    let mut arguments = Vec::new();
    let mut has_event = false;
    for param in &function.params {
        match &param.kind {
            Kind::Receiver(_) => {}
            Kind::Event { .. } => {
                if !has_event {
                    arguments.push(quote_spanned!(span=> __dbh_event));
                }
                has_event = true;
            }
            Kind::Resource { reference, .. } => {
                let guard = format_ident!("__dbh_{}", guards.len(), span = span);
                if reference.mutability.is_some() {
                    guards.push(quote_spanned!(span=> mut #guard));
                    arguments.push(quote_spanned!(span=> &mut *#guard));
                } else {
                    guards.push(guard.to_token_stream());
                    arguments.push(quote_spanned!(span=> &*#guard));
                }
            }
        }
    }
    (guards, arguments)
}
