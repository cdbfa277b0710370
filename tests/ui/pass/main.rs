//! Handlers of every kind that compile without warnings. The two packages in `users/` compile them in editions 2021 and
//! 2024.

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
