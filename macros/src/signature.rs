//! The rules for a handler's signature.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{GenericParam, ReturnType, Type};

use crate::diag::Diagnostics;
use crate::item::{HandlerFn, Kind, Param, ungrouped};
use crate::types::text;

/// The runtime implements its trait for up to 8.
const MOST_RESOURCES: usize = 8;
const RESULT: &str = "`-> Result<Receipt, db_handler::Error>`";

pub(crate) fn check(function: &HandlerFn, diag: &mut Diagnostics) {
    check_qualifiers(function, diag);
    check_output(function, diag);
    check_events(function, diag);
    check_resources(function, diag);
}

/// Whether an item inside the function can name the resources. It cannot name the type of `self`, nor the generics of
/// the function or of the surrounding `impl` block.
pub(crate) fn can_be_registered(function: &HandlerFn) -> bool {
    let is_generic = function
        .sig
        .generics
        .params
        .iter()
        .any(|param| !matches!(param, GenericParam::Lifetime(_)));
    !is_generic
        && function.params.iter().all(|param| match &param.kind {
            Kind::Receiver(_) => false,
            Kind::Event { .. } => true,
            Kind::Resource { reference, .. } => {
                !mentions_generics(reference.elem.to_token_stream())
            }
        })
}

/// Whether the tokens contain `Self`, or an uppercase name, which may be a type parameter: the macro does not see the
/// surrounding block.
fn mentions_generics(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => {
            let name = ident.to_string();
            name == "Self"
                || (name.contains(char::is_uppercase) && !name.contains(char::is_lowercase))
        }
        TokenTree::Group(group) => mentions_generics(group.stream()),
        _ => false,
    })
}

fn check_qualifiers(function: &HandlerFn, diag: &mut Diagnostics) {
    let sig = &function.sig;
    if let Some(token) = &sig.constness {
        diag.error(
            token,
            "a handler waits for its database, which `const` cannot: remove `const`",
        );
    }
    if sig.asyncness.is_none() {
        diag.error(
            &sig.fn_token,
            format_args!("a handler must be `async`: write `async fn {}`", sig.ident),
        );
    }
    if let Some(abi) = &sig.abi {
        diag.error(abi, "a handler is called by Rust only: remove the `extern`");
    }
    if let Some(variadic) = &sig.variadic {
        diag.error(
            variadic,
            "a handler has one event and its resources: remove the `...`",
        );
    }
}

fn check_output(function: &HandlerFn, diag: &mut Diagnostics) {
    let sig = &function.sig;
    match &sig.output {
        ReturnType::Default => diag.error(
            &sig.ident,
            format_args!(
                "a handler returns a `Result`, because its database may fail: add e.g. {RESULT}"
            ),
        ),
        ReturnType::Type(_, ty) => match ungrouped(ty) {
            Type::Never(_) => {
                diag.error(ty, format_args!("a handler returns: write e.g. {RESULT}"));
            }
            Type::Tuple(tuple) if tuple.elems.is_empty() => diag.error(
                ty,
                format_args!(
                    "a handler returns a `Result`, because its database may fail: write e.g. {RESULT}"
                ),
            ),
            _ => {}
        },
    }
}

fn check_events(function: &HandlerFn, diag: &mut Diagnostics) {
    let events: Vec<(usize, &Param)> = function
        .params
        .iter()
        .enumerate()
        .filter(|(_, param)| matches!(param.kind, Kind::Event { .. }))
        .collect();
    if events.is_empty() {
        diag.error(
            &function.sig.ident,
            "a handler has an event: add a parameter taken by value, e.g. `event: LambdaEvent<NewOrder>`",
        );
    }
    // If they are adjacent, it does not matter which one `#[cfg]` leaves.
    let one_of_them = events.windows(2).all(|pair| match pair {
        [(last, other), (position, param)] => {
            last + 1 == *position && other.cfgs().next().is_some() && param.cfgs().next().is_some()
        }
        _ => true,
    });
    if one_of_them {
        return;
    }
    // The one named `LambdaEvent`, or else the first.
    let event = events
        .iter()
        .position(|(_, param)| is_lambda_event(param))
        .unwrap_or_default();
    for (index, (_, param)) in events.iter().enumerate() {
        if index != event {
            diag.error(
                &param.kind,
                "a handler has one event, and every parameter taken by value is one: take this one by reference \
                 if it is a resource, e.g. `db: &PgPool`",
            );
        }
    }
}

/// Whether the type is called `LambdaEvent`. Only used to place an error.
fn is_lambda_event(param: &Param) -> bool {
    let Kind::Event { ty, .. } = &param.kind else {
        return false;
    };
    match ungrouped(ty) {
        Type::Path(path) => path
            .path
            .segments
            .last()
            .is_some_and(|segment| segment.ident == "LambdaEvent"),
        _ => false,
    }
}

fn check_resources(function: &HandlerFn, diag: &mut Diagnostics) {
    let mut count = 0;
    for param in &function.params {
        let Kind::Resource { reference, .. } = &param.kind else {
            continue;
        };
        count += 1;
        if count == MOST_RESOURCES + 1 {
            diag.error(
                &param.kind,
                format_args!(
                    "a handler has at most {MOST_RESOURCES} resources: this one is too many"
                ),
            );
        }
        let mutability = reference.mutability.map_or("", |_| "mut ");
        let ty = text(reference.elem.to_token_stream());
        if let Some(lifetime) = reference.lifetime.as_ref().filter(|it| it.ident != "_") {
            diag.error(
                lifetime,
                format_args!(
                    "resources are injected for one invocation: write `&{mutability}{ty}`, without `{lifetime}`"
                ),
            );
        }
        match ungrouped(&reference.elem) {
            Type::ImplTrait(_) | Type::TraitObject(_) | Type::Infer(_) => diag.error(
                &reference.elem,
                "the type chooses what is injected, so it must be a concrete one, e.g. `&PgPool`",
            ),
            _ => {}
        }
        for attr in param.cfgs() {
            diag.error(
                attr,
                "a resource is always there or never: write two versions of the function, each with its own `#[cfg]`",
            );
        }
    }
    if count == 0 {
        diag.error(
            &function.sig.ident,
            "a handler has a resource: add a parameter taken by reference, e.g. `db: &PgPool`",
        );
    }
}
