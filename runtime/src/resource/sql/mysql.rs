//! MySQL and MariaDB: `&MySqlPool` and `&mut MySqlConnection`.

use super::{
    connections::lend_connection,
    driver::{Driver, NO_SOCKET, sealed::Sealed},
};
use crate::error::ErrorKind;
use sqlx::{
    MySql, MySqlConnection,
    error::DatabaseError,
    mysql::{MySqlConnectOptions, MySqlDatabaseError},
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
}

lend_connection!(MySqlConnection, MySql);
