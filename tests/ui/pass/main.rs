//! Handlers of every kind, which compile without a warning: in edition 2021 and in edition 2024, by the two packages in `users/`
//! whose test this is.

mod arguments;
mod borrows;
mod credentials;
mod generics;
mod hygiene;
mod macro_rules;
mod patterns;
mod proxies;
mod receivers;
mod renamed;

fn main() {
    arguments::main();
    borrows::main();
    credentials::main();
    generics::main();
    hygiene::main();
    macro_rules::main();
    patterns::main();
    proxies::main();
    receivers::main();
    renamed::main();
}
