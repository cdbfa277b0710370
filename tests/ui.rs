//! What the compiler says to a handler that is written wrong, and that it says nothing else.
//!
//! The texts are the pinned compiler's: `TRYBUILD=overwrite cargo test --test ui` renews them.

#[test]
fn every_mistake_is_named_where_it_stands() {
    trybuild::TestCases::new().compile_fail("ui/fail/*.rs");
}

#[test]
fn every_kind_of_handler_compiles() {
    trybuild::TestCases::new().pass("ui/pass/*.rs");
}
