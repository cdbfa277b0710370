//! Update the snapshots with `UPDATE_EXPECT=1 cargo test`.

mod errors;
mod expansion;
mod layers;
mod partial_input;

use proc_macro2::TokenStream;

use crate::transform;

fn tokens(text: &str) -> TokenStream {
    text.parse().expect("tokens")
}

/// The output for `#[db_handler(args)] item`, as a file.
fn expand(args: &str, item: &str) -> String {
    let output = transform(tokens(args), &tokens(item));
    let file = syn::parse2(output).expect("the output is made of items");
    prettyplease::unparse(&file)
}

/// The messages of the `compile_error!`s, in order.
fn errors(args: &str, item: &str) -> Vec<String> {
    let output = transform(tokens(args), &tokens(item));
    let file: syn::File = syn::parse2(output).expect("the output is made of items");
    let messages = file.items.iter().filter_map(|item| match item {
        syn::Item::Macro(item) => item.mac.parse_body::<syn::LitStr>().ok(),
        _ => None,
    });
    messages.map(|message| message.value()).collect()
}

/// The messages for an otherwise valid handler.
fn errors_of(args: &str) -> Vec<String> {
    errors(
        args,
        "async fn handler(event: LambdaEvent<()>, db: &PgPool) -> Result<(), Error> { Ok(()) }",
    )
}
