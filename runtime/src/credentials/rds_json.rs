//! The JSON format of AWS for secrets of RDS, Aurora and Redshift.

use super::{
    file::without_mark,
    secret::{Engine, Secret},
    unavailable,
};
use crate::error::Error;
use serde_json::{Map, Value};

impl Secret {
    /// Parses the JSON that AWS Secrets Manager stores for a database: `username` and `password`, and
    /// optionally `host`, `port`, `dbname` and `engine`. Other fields are ignored.
    ///
    /// ```
    /// use db_handler::credentials::Secret;
    ///
    /// let secret = Secret::from_rds_json(
    ///     r#"{ "engine": "postgres", "host": "db.internal", "port": 5432, "username": "app", "password": "hunter2" }"#,
    /// )?;
    /// assert_eq!(format!("{secret:?}"), "Secret(password, user, host, port)");
    /// # Ok::<_, db_handler::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Credentials`](crate::ErrorKind::Credentials), with the field that is missing or malformed,
    /// but never its value.
    pub fn from_rds_json(json: &str) -> Result<Self, Error> {
        let json = without_mark(json);
        // serde's message may quote the value.
        let value: Value = serde_json::from_str(json).map_err(|error| {
            unavailable(format_args!(
                "the secret is not valid JSON (line {}, column {}): expected an object with the fields `username` and `password`",
                error.line(),
                error.column()
            ))
        })?;
        let Value::Object(fields) = value else {
            return Err(unavailable(
                "the secret is not a JSON object with the fields `username` and `password`",
            ));
        };
        let needed = |name| text(&fields, name)?.ok_or_else(|| missing(name));
        let mut secret = Self::new(needed("password")?).user(needed("username")?);
        secret.host = text(&fields, "host")?;
        secret.port = port(&fields)?;
        secret.database = text(&fields, "dbname")?;
        secret.engine = text(&fields, "engine")?.map(|name| engine(&name));
        Ok(secret)
    }
}

fn missing(field: &str) -> Error {
    unavailable(format_args!(
        "the secret has no field `{field}`, or an empty one"
    ))
}

fn text(fields: &Map<String, Value>, name: &str) -> Result<Option<String>, Error> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(unavailable(format_args!(
            "the secret's field `{name}` must be a string"
        ))),
    }
}

/// Reads the port from a number or a string: AWS has written both.
fn port(fields: &Map<String, Value>) -> Result<Option<u16>, Error> {
    let number = match fields.get("port") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_u64().and_then(|port| port.try_into().ok()),
        Some(Value::String(text)) => text.parse().ok(),
        Some(_) => None,
    };
    number
        .filter(|port| *port > 0)
        .map(Some)
        .ok_or_else(|| unavailable("the secret's field `port` must be an integer from 1 to 65535"))
}

fn engine(name: &str) -> Engine {
    match name.to_ascii_lowercase().as_str() {
        // Redshift speaks PostgreSQL's protocol.
        "postgres" | "postgresql" | "aurora-postgresql" | "redshift" => Engine::Postgres,
        "mysql" | "mariadb" | "aurora" | "aurora-mysql" => Engine::MySql,
        _ => Engine::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_aws_writes_is_read() {
        let secret = Secret::from_rds_json(
            r#"{ "engine": "aurora-postgresql", "host": "db.internal", "port": "5433", "username": "app",
                 "password": "p\"ss/wo:rd", "dbname": "shop", "dbInstanceIdentifier": "shop-1", "masterarn": "arn" }"#,
        )
        .expect("the format of RDS");
        assert_eq!(secret.password(), "p\"ss/wo:rd");
        assert_eq!(secret.user.as_deref(), Some("app"));
        assert_eq!(secret.host.as_deref(), Some("db.internal"));
        assert_eq!(secret.port, Some(5_433));
        assert_eq!(secret.database.as_deref(), Some("shop"));
        assert_eq!(secret.engine, Some(Engine::Postgres));
    }

    #[test]
    fn engines_are_known_in_any_case() {
        for (name, engine) in [
            ("Postgres", Engine::Postgres),
            ("redshift", Engine::Postgres),
            ("Aurora-MySQL", Engine::MySql),
            ("oracle-ee", Engine::Other),
        ] {
            let json = format!(r#"{{"engine":"{name}","username":"app","password":"x"}}"#);
            let secret = Secret::from_rds_json(&json).expect("complete");
            assert_eq!(secret.engine, Some(engine), "{name}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_passed_over() {
        let json = "\u{feff}{\"username\":\"app\",\"password\":\"x\"}";
        assert!(Secret::from_rds_json(json).is_ok());
    }

    #[test]
    fn the_secret_of_a_managed_master_user_has_two_fields() {
        let secret =
            Secret::from_rds_json(r#"{"username":"postgres","password":"x"}"#).expect("both");
        assert_eq!((secret.host, secret.port), (None, None));
    }

    #[test]
    fn what_is_wrong_is_named_and_never_shown() {
        for (json, named) in [
            (r#"{"username":"hunter2"}"#, "`password`"),
            (r#"{"password":"hunter2"}"#, "`username`"),
            (r#"{"username":"app","password":""}"#, "`password`"),
            (
                r#"{"username":"app","password":["hunter2"]}"#,
                "`password` must be a string",
            ),
            (
                r#"{"username":"app","password":"hunter2","port":"hunter2"}"#,
                "`port` must be an integer",
            ),
            (
                r#"{"username":"app","password":"hunter2","port":70000}"#,
                "`port` must be an integer",
            ),
            (
                r#"{"username":"app","password":"hunter2","port":0}"#,
                "`port` must be an integer",
            ),
            (
                r#"{"username":"app","password":"hunter2","host":5}"#,
                "`host` must be a string",
            ),
            (
                r#"{"username":"app","password":"hunter2""#,
                "is not valid JSON (line 1",
            ),
            ("hunter2", "is not valid JSON (line 1, column 1)"),
            (r#""hunter2""#, "is not a JSON object"),
            ("", "is not valid JSON"),
        ] {
            let error = Secret::from_rds_json(json).expect_err(json);
            let text = format!("{error:?}");
            assert!(text.contains(named), "{json}: {text}");
            assert!(!text.contains("hunter"), "{json}: {text}");
            assert_eq!(error.error_type(), "Credentials");
        }
    }
}
