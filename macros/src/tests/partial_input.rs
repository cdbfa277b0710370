//! The input while an editor's user types: nothing panics, and the function is always in the output.

use crate::tests::{expand, tokens};
use crate::transform;

const HANDLER: &str =
    "async fn handler(event: LambdaEvent<()>, db: &PgPool) -> Result<(), Error> { db.query() }";

#[test]
fn unfinished_arguments_keep_the_function() {
    let unfinished = [
        "p",
        "pool",
        "pool()",
        "pool(m)",
        "pool(max)",
        "pool(max =)",
        "pool(max = ,)",
        "pool(max = 2 min)",
        "pool(,)",
        ",",
        ",,",
        "close =",
        "close = \"",
        "close = \"\"",
        "= 2",
        "pool =",
        "pool(max = 2",
        "budget(",
        "crate",
        "crate =",
        "crate = ::",
        "pool::",
        "pool(max = LIMIT.)",
        "pool(max = f(",
        "#",
        "max: 2",
        "env = =",
    ];
    for args in unfinished {
        // Input that the lexer rejects never reaches a macro.
        let Ok(args) = args.parse() else { continue };
        let output = transform(args, &tokens(HANDLER)).to_string();
        assert!(output.contains("async fn handler"), "{output}");
        assert!(output.contains("db . query ()"), "{output}");
    }
}

#[test]
fn unfinished_bodies_come_out_as_they_are() {
    for body in [
        "db.",
        "db.query(",
        "let x =",
        "if 1",
        "match db {",
        "let",
        "?",
        "#[allow(",
        "'",
    ] {
        let text =
            format!("async fn handler(event: E, db: &PgPool) -> Result<(), Error> {{ {body} }}");
        let Ok(item) = text.parse() else { continue };
        let output = transform(tokens(""), &item).to_string();
        assert!(output.contains("async fn handler"), "{output}");
        assert!(!output.contains("compile_error"), "{output}");
    }
}

#[test]
fn unfinished_signatures_come_out_as_they_are() {
    for item in [
        "fn",
        "async fn handler",
        "async fn handler(",
        "async fn handler(db: &)",
        "pub",
        "",
        "async fn handler() ->",
    ] {
        let Ok(item) = item.parse() else { continue };
        let output = transform(tokens(""), &item).to_string();
        assert!(output.contains("compile_error"), "{output}");
        assert!(output.ends_with(&item.to_string()), "{output}");
    }
}

#[test]
fn the_fallback_has_the_signature_that_callers_know() {
    expect_test::expect![[r#"
        ::core::compile_error! {
            "unknown key `polo`; expected one of `env`, `pool`, `close`, `check`, `deadline`, `background`, `connect`, `credentials`, `proxy`, `budget`, `crate` (did you mean `pool`?)"
        }
        ::core::compile_error! {
            "a handler must be `async`: write `async fn create`"
        }
        /// Docs.
        #[allow(unused)]
        pub async fn create(&mut self, event: LambdaEvent<u8>) -> Result<u8, Error> {
            ::core::mem::drop(event);
            let __dbh_once = ::core::option::Option::None::<&mut ()>;
            #[allow(unreachable_code)]
            return ::core::convert::identity(async move |
                    LambdaEvent { payload, .. }: LambdaEvent<u8>,
                    db: &PgPool,
                | -> Result<u8, Error> {
                    #[allow(unreachable_code, clippy::all)]
                    if false {
                        ::core::mem::drop(__dbh_once);
                        let __dbh_output: Result<u8, Error> = loop {};
                        return __dbh_output;
                    }
                    db.query().await
                })(loop {}, loop {})
                .await;
        }
    "#]].assert_eq(&expand(
        "polo(max = 2)",
        "/// Docs.
        pub fn create(&mut self, LambdaEvent { payload, .. }: LambdaEvent<u8>, #[db(env = \"A\")] db: &PgPool) -> Result<u8, Error> { #![allow(unused)] db.query().await }",
    ));
}
