//! SQLite in the function's own process: `&SqlitePool`, `&Db<Sqlite>` and `&mut SqliteConnection`.

use super::{
    db::inject_connection,
    driver::{
        Cancelled, Capacity, Driver, Identify, Load, TlsMode, TlsWords, UrlParts, sealed::Sealed,
    },
    tag::Tag,
    without_logging::without_logging,
};
use crate::{
    config::SQLITE_PROGRESS_STEPS,
    credentials::{Engine, Secret, Target},
    error::ErrorKind,
    resource::Health,
};
use futures_util::future::BoxFuture;
use sqlx::{
    Connection, Row, Sqlite, SqliteConnection,
    error::DatabaseError,
    raw_sql,
    sqlite::{SqliteConnectOptions, SqliteRow, SqliteTransactionManager},
};
use sqlx_core::transaction::TransactionManager;
use std::{
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Whether the database is a file: one in memory or in a temporary file has no name.
const FILE: &str = "SELECT file <> '' FROM pragma_database_list WHERE name = 'main'";

/// State that outlives a statement: objects in the temporary schema, and attached databases.
const LEFT_BEHIND: &str = "SELECT (SELECT count(*) FROM temp.sqlite_master) \
     + (SELECT count(*) FROM pragma_database_list WHERE name NOT IN ('main', 'temp'))";

/// The settings of a connection that change what a statement does, with the defaults of sqlx and SQLite: a URL cannot
/// set others.
const SETTINGS: &str = "PRAGMA query_only = 0; PRAGMA foreign_keys = 1; PRAGMA ignore_check_constraints = 0; \
     PRAGMA recursive_triggers = 0; PRAGMA reverse_unordered_selects = 0; PRAGMA read_uncommitted = 0; \
     PRAGMA writable_schema = 0; PRAGMA synchronous = 2; PRAGMA locking_mode = NORMAL; PRAGMA busy_timeout = 5000";

impl Sealed for Sqlite {}

impl Driver for Sqlite {
    type Options = SqliteConnectOptions;
    /// A flag that interrupts the running statement of the connection when it is set.
    type Session = Arc<AtomicBool>;
    type SessionState = ();

    const POOL: &'static str = "SQLite pool";
    const CONNECTION: &'static str = "SQLite connection";
    const HANDLE: &'static str = "SQLite";
    const SCHEMES: &'static [&'static str] = &["sqlite"];
    const IN_PROCESS: bool = true;
    const EXAMPLE: &'static str = "sqlite:///tmp/orders.db?mode=rwc";
    const PARAMETERS: &'static [&'static str] = &["mode", "cache", "immutable", "vfs"];

    fn options(url: &str) -> Result<Self::Options, sqlx::Error> {
        SqliteConnectOptions::from_str(url)
    }

    fn tagged(options: &Self::Options, _: &Tag) -> Self::Options {
        options.clone()
    }

    fn unreachable_options(options: &Self::Options) -> Self::Options {
        // sqlx's pool does not retry SQLite's errors.
        options.clone()
    }

    fn port(_: &Self::Options) -> Option<u16> {
        None
    }

    fn target(options: &Self::Options) -> String {
        options.get_filename().display().to_string()
    }

    fn init_session<'c>(
        connection: &'c mut SqliteConnection,
        _: &'c Self::Options,
        _: &str,
        _: Option<Duration>,
    ) -> BoxFuture<'c, Result<Self::Session, sqlx::Error>> {
        Box::pin(async move {
            let interrupted = Arc::new(AtomicBool::new(false));
            let looking = Arc::clone(&interrupted);
            connection
                .lock_handle()
                .await?
                .set_progress_handler(SQLITE_PROGRESS_STEPS, move || {
                    !looking.load(Ordering::Relaxed)
                });
            Ok(interrupted)
        })
    }

    fn drain(connection: &mut SqliteConnection) -> BoxFuture<'_, Result<(), sqlx::Error>> {
        // A reply of the connection's thread, which first finishes a dropped statement.
        Box::pin(connection.ping())
    }

    fn interrupt(session: &Self::Session) -> bool {
        session.store(true, Ordering::Relaxed);
        true
    }

    fn session_ended(session: &Self::Session) -> bool {
        // The connection itself holds the other reference.
        Arc::strong_count(session) == 1
    }

    fn cancel<'c>(
        _: &'c mut SqliteConnection,
        sessions: &'c [Self::Session],
    ) -> BoxFuture<'c, Result<Cancelled<Self::Session>, sqlx::Error>> {
        Box::pin(async move {
            for session in sessions {
                Self::interrupt(session);
            }
            Ok(Cancelled::all())
        })
    }

    fn reset<'c>(
        connection: &'c mut SqliteConnection,
        (): &'c mut (),
    ) -> BoxFuture<'c, Result<Health, sqlx::Error>> {
        Box::pin(without_logging(async move {
            // Fails if no transaction is open.
            let _ = raw_sql("ROLLBACK").execute(&mut *connection).await;
            let row: SqliteRow = raw_sql(FILE).fetch_one(&mut *connection).await?;
            if row.try_get(0)? {
                // An SQLite session has too much state to check: pragmas, hooks, functions, its last row's id. A new
                // connection costs less.
                return Ok(Health::Broken);
            }
            // An in-memory database disappears with its connection.
            raw_sql(SETTINGS).execute(&mut *connection).await?;
            let row: SqliteRow = raw_sql(LEFT_BEHIND).fetch_one(connection).await?;
            let left_behind: i64 = row.try_get(0)?;
            Ok(if left_behind == 0 {
                Health::Healthy
            } else {
                Health::Broken
            })
        }))
    }

    fn recognize(connection: &mut SqliteConnection) -> BoxFuture<'_, Result<bool, sqlx::Error>> {
        Box::pin(without_logging(async move {
            // Fails if no transaction is open. Without a protocol, sqlx cannot get out of sync.
            let _ = raw_sql("ROLLBACK").execute(&mut *connection).await;
            connection.ping().await?;
            Ok(true)
        }))
    }

    fn commit_on(connection: &mut SqliteConnection) -> BoxFuture<'_, Result<(), sqlx::Error>> {
        Box::pin(async move {
            // A leaked savepoint is released first.
            while connection.is_in_transaction() {
                SqliteTransactionManager::commit(connection).await?;
            }
            Ok(())
        })
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

    fn is_server_full(_: &dyn DatabaseError) -> bool {
        false
    }
}

impl Identify for SqliteConnectOptions {
    const TLS: &'static TlsWords = &TlsWords::NONE;

    fn target(&self, variable: &'static str, _: &UrlParts) -> Target {
        Target {
            variable,
            engine: Engine::Other,
            host: None,
            port: None,
            user: None,
            database: None,
        }
    }

    fn with_secret(self, _: &Secret) -> Self {
        self
    }

    fn is_local(&self) -> bool {
        true
    }

    fn tls_mode(&self) -> TlsMode {
        TlsMode::Disable
    }

    fn with_tls_mode(self, _: TlsMode) -> Self {
        self
    }
}

impl Capacity for Sqlite {
    async fn load(_: &mut SqliteConnection) -> Result<Option<Load>, sqlx::Error> {
        Ok(None)
    }
}

inject_connection!(SqliteConnection, Sqlite);
