//! Who holds a connection, as a DBA sees it.

use std::env;

/// Function and version, as the platform names them.
pub(super) fn label() -> String {
    match env::var("AWS_LAMBDA_FUNCTION_NAME") {
        Ok(name) if !name.is_empty() => name,
        _ => "db-handler".to_owned(),
    }
}
