//! The errors and their order. `tests/ui` tests how they look.

use crate::keys::{Key, Place};
use crate::tests::{errors, errors_of};

/// Every key of the table, with the tokens around it.
fn every_key() -> Vec<(&'static Key, String, &'static str)> {
    let mut keys = Vec::new();
    for key in Place::Attribute.keys() {
        keys.push((key, String::new(), ""));
        for nested in Place::Nested(key).keys() {
            keys.push((nested, format!("{}(", key.name), ")"));
        }
    }
    keys
}

fn assert_one_error(args: &str, expected: &str) {
    let errors = errors_of(args);
    assert!(
        errors.len() == 1 && errors.iter().all(|error| error.contains(expected)),
        "`{args}`: {errors:#?} instead of `{expected}`"
    );
}

#[test]
fn every_key_given_twice_is_a_duplicate() {
    for (key, open, close) in every_key() {
        let example = key.example;
        // `min` needs a pool that is reused, `budget` all of its keys.
        let rest = match (key.name, open.as_str()) {
            ("close", _) => "",
            (_, "") => ", close = \"never\"",
            (_, "budget(") if key.name == "share" => ", instances = 1, connections = 100",
            (_, "budget(") if key.name == "instances" => ", connections = 100",
            (_, "budget(") => ", instances = 1",
            _ => "",
        };
        let after = if open == "pool(" {
            ", close = \"never\""
        } else {
            ""
        };
        let args = format!("{open}{example}, {example}{rest}{close}{after}");
        assert_one_error(&args, &format!("duplicate key `{}`", key.name));
    }
}

#[test]
fn every_example_of_the_table_is_accepted() {
    for (key, open, close) in every_key() {
        if open == "budget(" {
            continue;
        }
        let after = if key.name == "close" {
            ""
        } else {
            ", close = \"never\""
        };
        let errors = errors_of(&format!("{open}{}{close}{after}", key.example));
        assert_eq!(errors, Vec::<String>::new(), "{}", key.name);
    }
}

#[test]
fn every_key_with_a_typing_error_is_suggested() {
    for (key, open, close) in every_key() {
        let mut wrong = key.name.to_owned();
        wrong.push('x');
        let example = key.example.replacen(key.name, &wrong, 1);
        let errors = errors_of(&format!("{open}{example}{close}"));
        assert!(
            errors
                .iter()
                .any(|error| error.contains(&format!("(did you mean `{}`?)", key.name))),
            "{wrong}: {errors:#?}"
        );
    }
}

#[test]
fn what_is_far_from_every_key_gets_no_suggestion() {
    for args in ["timeout = 3", "zzz = 1", "a = 1"] {
        let errors = errors_of(args);
        assert!(errors.iter().all(|error| !error.contains("did you mean")));
        assert_one_error(args, "expected one of `env`, `pool`, `close`");
    }
}

#[test]
fn a_key_without_a_value_is_no_missing_key() {
    assert_one_error(
        "budget(instances = , connections = 100)",
        "`instances` has no value",
    );
    assert_one_error(
        "pool(max = , min = 3), close = \"never\"",
        "`max` has no value",
    );
}

#[test]
fn a_mistake_of_the_attribute_is_told_once_for_all_parameters() {
    let errors = errors(
        "pool(min = 3, max = 2), close = \"never\"",
        "async fn handler(event: E, a: &PgPool, b: &PgPool) -> Result<(), Error> { Ok(()) }",
    );
    assert_eq!(
        errors,
        ["`min` 3 is greater than `max` 2: lower `min`, or raise `max` to 3"]
    );
}

#[test]
fn all_mistakes_are_reported_in_source_order() {
    let found = errors(
        "polo(max = 2), pool(max = 0, acquire_ms = \"3000\", max = 1), close = \"alwys\"",
        "\nfn handler(event: E, #[db(env = \"\", crate = ::x)] db: &'static PgPool, #[cfg(x)] c: &PgPool) {}",
    );
    let starts = [
        "unknown key `polo`",
        "`max` must be between 1 and 65535",
        "expected an integer: write `acquire_ms = 3000`",
        "duplicate key `max`: it is already given as `max = 0`",
        "unknown value `\"alwys\"` for `close`",
        "a handler must be `async`",
        "a handler returns a `Result`",
        "`env` names no variable",
        "`crate` is not a key of a parameter",
        "resources are injected for one invocation",
        "a resource is always there or never",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (error, start) in found.iter().zip(starts) {
        assert!(error.starts_with(start), "{error} instead of {start}");
    }
}

#[test]
fn a_budget_names_every_change_that_would_make_it_fit() {
    let budget = |args: &str| errors_of(args).join("\n");
    assert_eq!(
        budget("budget(instances = 60, connections = 100)"),
        "budget does not fit: `max` 2 x 60 instances = 120 connections, but it must stay under 0.8 x 100 = 80: \
         lower `max` to 1, or `instances` to 39, or raise `connections` to 151"
    );
    // Not even one connection per instance fits, and `max = 0` is not valid.
    assert_eq!(
        budget("budget(instances = 60, connections = 50, share = 0.75)"),
        "budget does not fit: `max` 2 x 60 instances = 120 connections, but it must stay under 0.75 x 50 = 37.5: \
         lower `instances` to 18, or raise `connections` to 161"
    );
    // In floating point, 0.07 x 100 is a little more than 7.
    assert!(
        budget("pool(max = 7), budget(instances = 1, connections = 100, share = 0.07)")
            .contains("= 7:")
    );
    assert_eq!(budget("budget(instances = 39, connections = 100)"), "");
    assert_eq!(
        budget("pool(max = 1), budget(instances = 79, connections = 100)"),
        ""
    );
    assert!(
        budget("pool(max = 65535), budget(instances = 4294967295, connections = 4294967295)")
            .contains("281470681677825")
    );
}

#[test]
fn a_budget_counts_the_parameters_of_its_database() {
    let sum = |item: &str| errors("budget(instances = 30, connections = 100)", item).len();
    assert_eq!(
        sum("async fn f(event: E, a: &A) -> Result<(), Error> {}"),
        0
    );
    assert_eq!(
        sum("async fn f(event: E, a: &A, b: &B) -> Result<(), Error> {}"),
        1
    );
    assert_eq!(
        sum("async fn f(event: E, a: &A, #[db(env = \"B\")] b: &B) -> Result<(), Error> {}"),
        0
    );
    assert_eq!(
        sum("async fn f(event: E, #[db(pool(max = 9))] a: &A) -> Result<(), Error> {}"),
        1
    );
}

#[test]
fn pressure_behind_a_proxy_is_one_mistake() {
    let pressure = "`close = \"pressure\"` asks how full the server is";
    assert_one_error("proxy = \"rds\", close = \"pressure\"", pressure);
    let of_a_parameter = |item: &str| errors("close = \"pressure\"", item);
    let item = "async fn f(event: E, a: &A, #[db(proxy = \"rds\")] b: &B) -> Result<(), Error> {}";
    let found = of_a_parameter(item);
    assert!(
        found.len() == 1 && found[0].starts_with(pressure),
        "{found:#?}"
    );
    let item = "async fn f(event: E, a: &A, #[db(proxy = \"rds\", close = \"never\")] b: &B) -> Result<(), Error> {}";
    assert!(of_a_parameter(item).is_empty());
}

#[test]
fn literals_may_come_in_invisible_groups() {
    use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
    let group = |text: &str| {
        TokenStream::from(TokenTree::from(Group::new(
            Delimiter::None,
            crate::tests::tokens(text),
        )))
    };
    let (max, close) = (group("0"), group("\"alwys\""));
    let resource = group("&PgPool");
    let output = crate::transform(
        quote::quote!(pool(max = #max), close = #close),
        &quote::quote!(async fn f(event: E, db: #resource) -> Result<(), Error> {}),
    )
    .to_string();
    assert!(output.contains("`max` must be between"), "{output}");
    assert!(output.contains("unknown value `\\\"alwys\\\"`"), "{output}");
    assert!(!output.contains("has a resource"), "{output}");
}

#[test]
fn resource_that_cfg_removes_leaves_a_stand_in() {
    let item = "async fn f(e: LambdaEvent<()>, #[cfg(any())] db: &PgPool) -> Result<(), Error> {}";
    let output = crate::tests::expand("", item);
    assert!(output.contains("#[cfg(not(all(any())))]"), "{output}");
    assert_eq!(errors("", item).len(), 1);
}

#[test]
fn types_are_shown_as_people_write_them() {
    let item = "async fn f<'a>(e: LambdaEvent<()>, db: &'a Db<Postgres>) -> Result<(), Error> {}";
    let [error] = errors("", item).try_into().expect("one error");
    assert!(error.contains("write `&Db<Postgres>`"), "{error}");
}
