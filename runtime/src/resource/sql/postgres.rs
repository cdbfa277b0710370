//! PostgreSQL: `&PgPool` and `&mut PgConnection`.

use super::{
    advice::is_here,
    connections::lend_connection,
    driver::{Driver, NO_SOCKET, sealed::Sealed},
    login::{Identify, Written},
    pressure::{Load, Pressured},
};
use crate::{
    credentials::{Engine, Secret, Target},
    error::ErrorKind,
};
use sqlx::{
    PgConnection, Postgres, Row,
    error::DatabaseError,
    postgres::{PgConnectOptions, PgSslMode},
};
use std::str::FromStr;

impl Sealed for Postgres {}

impl Driver for Postgres {
    type Options = PgConnectOptions;

    const POOL: &'static str = "PostgreSQL pool";
    const CONNECTION: &'static str = "PostgreSQL connection";
    const SCHEMES: &'static [&'static str] = &["postgres", "postgresql"];
    const EXAMPLE: &'static str = "postgres://user:password@host:5432/database";

    fn options(url: &str) -> Result<Self::Options, sqlx::Error> {
        PgConnectOptions::from_str(url)
    }

    fn nowhere(options: &Self::Options) -> Self::Options {
        options.clone().socket(NO_SOCKET)
    }

    fn target(options: &Self::Options) -> String {
        let database = options.get_database().unwrap_or(options.get_username());
        match options.get_socket() {
            Some(socket) => format!("{}/{database}", socket.display()),
            None => format!("{}:{}/{database}", options.get_host(), options.get_port()),
        }
    }

    /// The codes are those of PostgreSQL's documentation, appendix A, "Error Codes".
    fn kind(error: &dyn DatabaseError) -> Option<ErrorKind> {
        Some(match error.code()?.as_ref() {
            // invalid_password, invalid_authorization_specification
            "28P01" | "28000" => ErrorKind::Authentication,
            // invalid_catalog_name
            "3D000" => ErrorKind::NoSuchDatabase,
            // too_many_connections, configuration_limit_exceeded
            "53300" | "53400" => ErrorKind::TooManyConnections,
            // cannot_connect_now
            "57P03" => ErrorKind::Unavailable,
            // admin_shutdown, crash_shutdown, idle_session_timeout, and all of class 08
            "57P01" | "57P02" | "57P05" => ErrorKind::ConnectionLost,
            code if code.starts_with("08") => ErrorKind::ConnectionLost,
            _ => return None,
        })
    }

    fn has_no_room(error: &dyn DatabaseError) -> bool {
        match error.code().as_deref() {
            Some("53300" | "53400" | "57P03") => true,
            // PgBouncer has one code for all that it refuses.
            Some("08P01") => error.message().starts_with("no more connections allowed"),
            _ => false,
        }
    }
}

impl Identify for PgConnectOptions {
    fn target(&self, variable: &'static str, written: &Written) -> Target {
        Target {
            variable,
            engine: Engine::Postgres,
            host: written.host.then(|| self.get_host().to_owned()),
            port: Some(self.get_port()),
            user: written.user.then(|| self.get_username().to_owned()),
            database: self.get_database().map(ToOwned::to_owned),
        }
    }

    fn identified_by(self, secret: &Secret, verify: bool) -> Self {
        let mut options = self.password(secret.password());
        if let Some(user) = &secret.user {
            options = options.username(user);
        }
        if let Some(host) = &secret.host {
            options = options.host(host);
        }
        if let Some(port) = secret.port {
            options = options.port(port);
        }
        if let Some(database) = &secret.database {
            options = options.database(database);
        }
        if let Some(pem) = &secret.root_certificate {
            options = options.ssl_root_cert_from_pem(pem.to_vec());
        }
        if verify {
            options = options.ssl_mode(PgSslMode::VerifyFull);
        }
        options
    }

    fn trusts_anybody(&self) -> bool {
        let verifies = matches!(
            self.get_ssl_mode(),
            PgSslMode::VerifyCa | PgSslMode::VerifyFull
        );
        !verifies && self.get_socket().is_none() && !is_here(self.get_host())
    }

    fn labelled(self, label: &str, written: &Written) -> Self {
        if written.label {
            self
        } else {
            self.application_name(label)
        }
    }
}

/// Of other users' sessions only some columns can be seen: one with a database and a user is a client's.
/// `reserved_connections` is there from PostgreSQL 16 on, the last one on RDS.
const LOAD: &str = "
    select count(*) filter (where datid is not null and usesysid is not null
            and coalesce(backend_type, 'client backend') = 'client backend'),
        current_setting('max_connections')::int8 - current_setting('superuser_reserved_connections')::int8
            - coalesce(current_setting('reserved_connections', true)::int8, 0)
            - coalesce(current_setting('rds.rds_superuser_reserved_connections', true)::int8, 0)
    from pg_stat_activity";

impl Pressured for Postgres {
    async fn load(connection: &mut PgConnection) -> Result<Option<Load>, sqlx::Error> {
        // Not prepared: a statement that is asked for so rarely is not worth a place in the cache.
        let row = sqlx::raw_sql(LOAD).fetch_one(connection).await?;
        let number = |index| {
            let number: i64 = row.try_get(index)?;
            Ok::<_, sqlx::Error>(u32::try_from(number).unwrap_or(0))
        };
        Ok(Some(Load {
            used: number(0)?,
            room: number(1)?,
        }))
    }
}

lend_connection!(PgConnection, Postgres);
