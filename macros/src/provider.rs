//! The path of a credentials provider.

use syn::{Expr, ExprPath};

use crate::args::{Args, Value};
use crate::diag::Diagnostics;

/// Reads `credentials = PATH`.
pub(crate) fn provider(args: &Args, diag: &mut Diagnostics) -> Option<ExprPath> {
    let entry = args.get("credentials")?;
    let Value::Expr(value) = &entry.value else {
        return None;
    };
    let mut value = &**value;
    // `macro_rules!` wraps its fragments in invisible groups.
    while let Expr::Group(group) = value {
        value = &group.expr;
    }
    if let Expr::Path(path) = value {
        return Some(path.clone());
    }
    diag.error(
        value,
        format_args!(
            "`credentials` takes the path of a provider, which lives as long as the process does: write `static \
             DB_SECRET: SecretFile = SecretFile::password(\"/run/secrets/db\");` beside the handler, and `{}`; or name \
             an `async fn` that returns a `Secret`",
            entry.key.example
        ),
    );
    None
}
