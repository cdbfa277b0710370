//! SQLite, in the function's own process: `&SqlitePool` and `&mut SqliteConnection`.

use super::{
    connections::lend_connection,
    driver::{Driver, sealed::Sealed},
    login::{Identify, Written},
    pressure::{Load, Pressured},
};
use crate::{
    credentials::{Engine, Secret, Target},
    error::ErrorKind,
};
use sqlx::{Sqlite, SqliteConnection, error::DatabaseError, sqlite::SqliteConnectOptions};
use std::str::FromStr;

impl Sealed for Sqlite {}

impl Driver for Sqlite {
    type Options = SqliteConnectOptions;

    const POOL: &'static str = "SQLite pool";
    const CONNECTION: &'static str = "SQLite connection";
    const SCHEMES: &'static [&'static str] = &["sqlite"];
    const EXAMPLE: &'static str = "sqlite:///tmp/orders.db?mode=rwc";

    fn options(url: &str) -> Result<Self::Options, sqlx::Error> {
        SqliteConnectOptions::from_str(url)
    }

    fn nowhere(options: &Self::Options) -> Self::Options {
        // sqlx's pool retries no failure of SQLite's.
        options.clone()
    }

    fn target(options: &Self::Options) -> String {
        options.get_filename().display().to_string()
    }

    /// The codes are SQLite's primary result codes; an extended one has its primary in the low byte.
    fn kind(error: &dyn DatabaseError) -> Option<ErrorKind> {
        let extended: u32 = error.code()?.parse().ok()?;
        Some(match extended & 0xff {
            // SQLITE_PERM, SQLITE_AUTH
            3 | 23 => ErrorKind::Authentication,
            // SQLITE_CANTOPEN, SQLITE_NOTADB
            14 | 26 => ErrorKind::NoSuchDatabase,
            _ => return None,
        })
    }

    fn has_no_room(_: &dyn DatabaseError) -> bool {
        false
    }
}

/// A file has nobody who would want to know who opens it.
impl Identify for SqliteConnectOptions {
    fn target(&self, variable: &'static str, _: &Written) -> Target {
        Target {
            variable,
            engine: Engine::Other,
            host: None,
            port: None,
            user: None,
            database: None,
        }
    }

    fn identified_by(self, _: &Secret, _: bool) -> Self {
        self
    }

    fn trusts_anybody(&self) -> bool {
        false
    }

    fn labelled(self, _: &str, _: &Written) -> Self {
        self
    }
}

impl Pressured for Sqlite {
    async fn load(_: &mut SqliteConnection) -> Result<Option<Load>, sqlx::Error> {
        Ok(None)
    }
}

lend_connection!(SqliteConnection, Sqlite);
