//! From an environment variable to connect options, with a clear word on what is wrong with it.

use super::driver::Driver;
use crate::{
    error::{Error, ErrorKind},
    resource::Acquire,
};

/// A scheme, the feature that it needs, and whether that is on.
type Scheme = (&'static str, &'static str, bool);

/// Every scheme that means a database here.
const SCHEMES: [Scheme; 5] = [
    ("postgres", "postgres", cfg!(feature = "postgres")),
    ("postgresql", "postgres", cfg!(feature = "postgres")),
    ("mysql", "mysql", cfg!(feature = "mysql")),
    ("mariadb", "mysql", cfg!(feature = "mysql")),
    ("sqlite", "sqlite", cfg!(feature = "sqlite")),
];

/// The options in `url`, which is that of this parameter, and the greeting that goes with them.
pub(super) fn options_of<DB: Driver>(
    acquire: &Acquire,
    url: &str,
) -> Result<(DB::Options, String), Error> {
    let variable = acquire.settings().env.unwrap_or_default();
    check_scheme::<DB>(url, variable, &SCHEMES)?;
    if hides_a_password(url) {
        return Err(unreadable::<DB>(
            variable,
            "a special character in the password ends its host part too early",
        ));
    }
    let proxy = acquire.settings().proxy;
    let read = || Ok((DB::options(url)?, DB::greeting(url, proxy)?));
    let (options, greeting) =
        read().map_err(|error: sqlx::Error| unreadable::<DB>(variable, &error.to_string()))?;
    if proxy.is_none() {
        return Ok((options, greeting));
    }
    match DB::behind_a_proxy(options) {
        Ok(options) => Ok((options, greeting)),
        Err(fix) => Err(Error::new(
            ErrorKind::InvalidUrl,
            format!("the URL in {variable} does not go with `proxy`: {fix}"),
        )),
    }
}

/// Whether an `@` stands where no user and password can end: then a `/`, `?` or `#` before it belongs
/// to a password, and what sqlx would take for the database's name is a part of it.
fn hides_a_password(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else {
        return false;
    };
    if url.starts_with("sqlite:") {
        return false;
    }
    rest.find(['/', '?', '#'])
        .is_some_and(|end| rest[end..].contains('@'))
}

fn check_scheme<DB: Driver>(url: &str, variable: &str, schemes: &[Scheme]) -> Result<(), Error> {
    let Some((scheme, _)) = url.split_once(':') else {
        return Err(unreadable::<DB>(variable, "it has no scheme"));
    };
    if DB::SCHEMES.contains(&scheme) {
        return Ok(());
    }
    let ours = DB::SCHEMES[0];
    let known = schemes.iter().find(|(known, ..)| *known == scheme);
    Err(match known {
        Some((_, _, true)) => Error::new(
            ErrorKind::WrongScheme,
            format!(
                "{variable} starts with `{scheme}:`, but the handler's parameter is for {}: change the parameter's type, or the URL to `{ours}://..`",
                DB::NAME
            ),
        ),
        Some((_, feature, false)) => Error::new(
            ErrorKind::FeatureOff,
            format!(
                "{variable} starts with `{scheme}:`, which needs db-handler's feature `{feature}`, and that is off; the handler's parameter is for {} (`{ours}:`)",
                DB::NAME
            ),
        ),
        // A password with a colon in front would end up here: do not repeat it.
        None => Error::new(
            ErrorKind::UnknownScheme,
            format!(
                "{variable} starts with no scheme that is known here: expected `{ours}://..` for {}",
                DB::NAME
            ),
        ),
    })
}

fn unreadable<DB: Driver>(variable: &str, reason: &str) -> Error {
    // A reason that quotes may quote the password.
    let reason = if reason.contains(['"', '`', '\'']) {
        String::new()
    } else {
        format!(" ({reason})")
    };
    Error::new(
        ErrorKind::InvalidUrl,
        format!(
            "the URL in {variable} cannot be read{reason}: expected something like `{}`; percent-encode what is special in a password",
            DB::EXAMPLE
        ),
    )
}

#[cfg(all(test, feature = "postgres"))]
mod tests {
    use super::*;
    use sqlx::Postgres;

    fn refused(url: &str, schemes: &[Scheme]) -> Error {
        check_scheme::<Postgres>(url, "DATABASE_URL", schemes).expect_err("is no PostgreSQL URL")
    }

    #[test]
    fn both_names_of_postgres_are_fine() {
        for url in ["postgres://host/shop", "postgresql://host/shop"] {
            assert!(check_scheme::<Postgres>(url, "DATABASE_URL", &SCHEMES).is_ok());
        }
    }

    #[test]
    fn a_scheme_whose_feature_is_off_names_the_feature() {
        let error = refused("mysql://host/shop", &[("mysql", "mysql", false)]);
        assert_eq!(error.kind(), ErrorKind::FeatureOff);
        let text = error.to_string();
        assert!(text.contains("feature `mysql`, and that is off"), "{text}");
    }

    #[test]
    fn the_scheme_of_another_database_names_both() {
        let error = refused("mysql://host/shop", &[("mysql", "mysql", true)]);
        assert_eq!(error.kind(), ErrorKind::WrongScheme);
        let text = error.to_string();
        assert!(
            text.contains("`mysql:`") && text.contains("PostgreSQL"),
            "{text}"
        );
    }

    #[test]
    fn a_password_with_a_special_character_is_not_taken_for_a_place() {
        for url in [
            "postgres://app:12345/hunter2@host:5432/shop",
            "postgres://app:/hunter2@host/shop",
            "postgres://app:12?hunter2@host/shop",
            "postgres://app:12#hunter2@host/shop",
        ] {
            assert!(hides_a_password(url), "{url}");
        }
        for url in [
            "postgres://app:p%40ss@host/shop?sslmode=disable",
            "postgres://app:p@ss@host/shop",
            "postgres://host",
            "sqlite:///tmp/a@b.db",
        ] {
            assert!(!hides_a_password(url), "{url}");
        }
    }

    #[test]
    fn what_may_be_a_password_is_not_repeated() {
        for url in ["hunter2:x@host/shop", "hunter2"] {
            let error = refused(url, &SCHEMES);
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        let error = unreadable::<Postgres>("DATABASE_URL", "invalid value \"hunter2\"");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
