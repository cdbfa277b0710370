//! The label of a connection on the server. It shows which function holds the connection.

use std::{env, sync::OnceLock};

/// PostgreSQL truncates an `application_name` to 63 bytes (`NAMEDATALEN - 1`). A space, a `#` and 8 digits are reserved
/// for the number that distinguishes connections.
const LONGEST: usize = 63 - 10;

/// Function and version: `create-order:42`.
pub(super) fn function_name() -> &'static str {
    static LABEL: OnceLock<String> = OnceLock::new();
    LABEL.get_or_init(|| label_of(|variable| env::var(variable).ok(), executable().as_deref()))
}

fn executable() -> Option<String> {
    let path = env::current_exe().ok()?;
    Some(path.file_name()?.to_string_lossy().into_owned())
}

/// The function's name if the platform provides it, otherwise the executable's.
fn label_of(read: impl Fn(&str) -> Option<String>, executable: Option<&str>) -> String {
    let set = |variable| read(variable).filter(|value| !value.is_empty());
    let (name, version) = if let Some(name) = set("AWS_LAMBDA_FUNCTION_NAME") {
        (name, set("AWS_LAMBDA_FUNCTION_VERSION"))
    } else if let Some(name) = set("SCF_FUNCTIONNAME") {
        (name, set("SCF_FUNCTIONVERSION"))
    } else {
        (executable.unwrap_or("db-handler").to_owned(), None)
    };
    let version = version.map_or_else(String::new, |version| format!(":{version}"));
    let version: String = version.chars().map(sanitize).take(LONGEST).collect();
    let name = name.chars().map(sanitize).take(LONGEST - version.len());
    name.chain(version.chars()).collect()
}

/// Replaces characters that take more than one byte, or need escaping in a URL's value or in SQL.
fn sanitize(character: char) -> char {
    match character {
        '\'' | '"' | '\\' | '`' | '?' | ';' => '_',
        ' '..='~' => character,
        _ => '_',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(set: &[(&str, &str)], executable: Option<&str>) -> String {
        let read = |variable: &str| {
            let (_, value) = set.iter().find(|(name, _)| *name == variable)?;
            Some((*value).to_owned())
        };
        label_of(read, executable)
    }

    #[test]
    fn the_platform_says_which_function_this_is() {
        let lambda = [
            ("AWS_LAMBDA_FUNCTION_NAME", "create-order"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
        ];
        assert_eq!(with(&lambda, Some("bootstrap")), "create-order:$LATEST");
        let scf = [
            ("SCF_FUNCTIONNAME", "create-order"),
            ("SCF_FUNCTIONVERSION", "42"),
        ];
        assert_eq!(with(&scf, Some("bootstrap")), "create-order:42");
        assert_eq!(with(&[], Some("orders")), "orders");
        assert_eq!(with(&[("SCF_FUNCTIONNAME", "")], None), "db-handler");
    }

    #[test]
    fn a_long_name_is_cut_and_the_version_stays() {
        let name = "n".repeat(64);
        let label = with(
            &[
                ("AWS_LAMBDA_FUNCTION_NAME", &name),
                ("AWS_LAMBDA_FUNCTION_VERSION", "42"),
            ],
            None,
        );
        assert_eq!(label.len(), LONGEST);
        assert!(label.ends_with("n:42"), "{label}");
        let version = "9".repeat(90);
        let label = with(
            &[
                ("AWS_LAMBDA_FUNCTION_NAME", "n"),
                ("AWS_LAMBDA_FUNCTION_VERSION", &version),
            ],
            None,
        );
        assert_eq!(label.len(), LONGEST);
    }

    #[test]
    fn what_sql_or_a_server_could_misread_is_replaced() {
        assert_eq!(
            with(&[], Some("caf\u{e9}'; --\\\"\n")),
            "caf__ --___"[..4].to_owned() + "__ --___"
        );
    }
}
