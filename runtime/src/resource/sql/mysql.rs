//! MySQL and MariaDB: `&MySqlPool` and `&mut MySqlConnection`.

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
    MySql, MySqlConnection, Row,
    error::DatabaseError,
    mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlSslMode},
};
use std::str::FromStr;

impl Sealed for MySql {}

impl Driver for MySql {
    type Options = MySqlConnectOptions;

    const POOL: &'static str = "MySQL pool";
    const CONNECTION: &'static str = "MySQL connection";
    const SCHEMES: &'static [&'static str] = &["mysql", "mariadb"];
    const EXAMPLE: &'static str = "mysql://user:password@host:3306/database";

    fn options(url: &str) -> Result<Self::Options, sqlx::Error> {
        MySqlConnectOptions::from_str(url)
    }

    fn nowhere(options: &Self::Options) -> Self::Options {
        options.clone().socket(NO_SOCKET)
    }

    fn target(options: &Self::Options) -> String {
        let database = options.get_database().unwrap_or("");
        match options.get_socket() {
            Some(socket) => format!("{}/{database}", socket.display()),
            None => format!("{}:{}/{database}", options.get_host(), options.get_port()),
        }
    }

    /// The numbers are those of the MySQL 8 and MariaDB error references.
    fn kind(error: &dyn DatabaseError) -> Option<ErrorKind> {
        let number = error.try_downcast_ref::<MySqlDatabaseError>()?.number();
        Some(match number {
            // access denied for the user; host not allowed or blocked; plugin not loaded; account locked
            1045 | 1698 | 1129 | 1130 | 1524 | 3118 | 4151 => ErrorKind::Authentication,
            // access denied to the database; unknown database
            1044 | 1049 => ErrorKind::NoSuchDatabase,
            // too many connections: of the server, of the user, of the user's resources
            1040 | 1203 | 1226 => ErrorKind::TooManyConnections,
            // server shutdown in progress
            1053 => ErrorKind::Unavailable,
            // connection killed (MariaDB, MySQL idle timeout), aborted
            1927 | 4031 | 1152 | 1184 => ErrorKind::ConnectionLost,
            _ => return None,
        })
    }

    fn has_no_room(error: &dyn DatabaseError) -> bool {
        let Some(error) = error.try_downcast_ref::<MySqlDatabaseError>() else {
            return false;
        };
        match error.number() {
            1040 | 1203 => true,
            // The same number says that an hour's queries are used up.
            1226 => error.message().contains("max_user_connections"),
            _ => false,
        }
    }
}

impl Identify for MySqlConnectOptions {
    fn target(&self, variable: &'static str, written: &Written) -> Target {
        Target {
            variable,
            engine: Engine::MySql,
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
            options = options.ssl_ca_from_pem(pem.to_vec());
        }
        if secret.is_token {
            // The server cannot compare a token with a hash: it has to see it.
            options = options.enable_cleartext_plugin(true);
        }
        if verify {
            options = options.ssl_mode(MySqlSslMode::VerifyIdentity);
        }
        options
    }

    fn trusts_anybody(&self) -> bool {
        let verifies = matches!(
            self.get_ssl_mode(),
            MySqlSslMode::VerifyCa | MySqlSslMode::VerifyIdentity
        );
        !verifies && self.get_socket().is_none() && !is_here(self.get_host())
    }

    /// sqlx sends no connection attributes. It does send one `SET` after each handshake, and quotes
    /// the time zone in it as it is: a variable of the session's rides along without a round trip.
    fn labelled(self, label: &str, written: &Written) -> Self {
        let zone = written.timezone.as_deref().unwrap_or("+00:00");
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "+-:/_".contains(c);
        if zone.chars().all(is_plain) {
            self.timezone(Some(format!("{zone}', @db_handler = '{label}")))
        } else {
            self
        }
    }
}

/// The connection that the server keeps for an administrator comes on top of `max_connections`.
const LOAD: &str = "SHOW GLOBAL STATUS LIKE 'Threads_connected'; SELECT @@GLOBAL.max_connections";

impl Pressured for MySql {
    async fn load(connection: &mut MySqlConnection) -> Result<Option<Load>, sqlx::Error> {
        let rows = sqlx::raw_sql(LOAD).fetch_all(connection).await?;
        let [status, limit] = rows.as_slice() else {
            return Err(sqlx::Error::RowNotFound);
        };
        let used: String = status.try_get(1)?;
        let room: u64 = limit.try_get(0)?;
        Ok(Some(Load {
            used: used.parse().unwrap_or(0),
            room: u32::try_from(room).unwrap_or(u32::MAX),
        }))
    }
}

lend_connection!(MySqlConnection, MySql);
