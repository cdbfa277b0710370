#![doc = include_str!("../docs/crate.md")]

mod args;
mod budget;
mod choice;
mod diag;
mod expand;
mod fallback;
mod item;
mod keys;
mod model;
mod number;
mod path;
mod provider;
mod settings;
mod signature;
mod types;
mod value;
mod wrapper;

#[cfg(test)]
mod tests;

use proc_macro2::TokenStream;

#[doc = include_str!("../docs/db_handler.md")]
#[proc_macro_attribute]
pub fn db_handler(
    args: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    transform(args.into(), &item.into()).into()
}

fn transform(args: TokenStream, item: &TokenStream) -> TokenStream {
    let mut diag = diag::Diagnostics::default();
    let function = match syn::parse2::<item::HandlerFn>(item.clone()) {
        Ok(function) => function,
        Err(error) => return fallback::unread(item, &error),
    };
    let model = model::Model::new(args, &function, &mut diag);
    match diag.finish() {
        Ok(()) => expand::handler(&model, &function),
        Err(errors) => fallback::handler(&function, &errors),
    }
}
