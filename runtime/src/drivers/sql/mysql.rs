//! MySQL and MariaDB: `&MySqlPool`, `&Db<MySql>` and `&mut MySqlConnection`.
//!
//! A session is reused only if the server confirms that the invocation left no state in it that another one could read:
//! by its count of the session's statements, and by its list of the session's variables. The docs of [`Db`](super::Db)
//! list the requirements.

mod session;

use self::session::MySqlSession;
use super::{
    db::{Db, inject_connection},
    driver::{
        Cancelled, Capacity, Driver, Identify, Load, NO_SOCKET, TlsMode, TlsWords, UrlParts,
        sealed::Sealed,
    },
    function_name::function_name,
    nonce::Nonce,
    tag::Tag,
    without_logging::without_logging,
};
use crate::{
    config::{Proxy, WAIT_TIMEOUT},
    credentials::{Engine, Secret, Target},
    error::ErrorKind,
    resource::{Health, RdsProxySafe},
    util::local_host::{is_local_host, with_port, without_brackets},
};
use futures_util::future::BoxFuture;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, MySql, MySqlConnection, MySqlPool, MySqlTransaction,
    Row,
    error::DatabaseError,
    mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlRow, MySqlSslMode},
    raw_sql,
};
use sqlx_core::Url;
use std::{collections::BTreeMap, str::FromStr, time::Duration};

/// Resets as much as SQL can: MySQL has no `RESET ALL` that keeps prepared statements, and sqlx no
/// `COM_RESET_CONNECTION`.
const RESET: &str = "ROLLBACK; UNLOCK TABLES; DO RELEASE_ALL_LOCKS(), LAST_INSERT_ID(0)";

/// The savepoint exists as long as the transaction. After a deadlock the server rolls back the whole transaction, and a
/// handler that ignores the error continues outside of any transaction.
const BEGIN: &str = "BEGIN; SAVEPOINT db_handler";

/// Commits only the transaction of [`BEGIN`]: after the first statement that fails, the others are not run.
const COMMIT: &str = "RELEASE SAVEPOINT db_handler; COMMIT";

/// The server counts, per session, the statements whose effects cannot be reset: settings, another database, temporary
/// tables and sequences, prepared statements, handlers, roles.
const COUNTERS: &str = "SHOW SESSION STATUS WHERE Variable_name IN (\
     'Com_set_option', 'Com_change_db', 'Com_create_table', 'Com_create_temporary_table', 'Com_create_sequence', \
     'Com_prepare_sql', 'Com_ha_open', 'Com_xa_start', 'Com_set_role', 'Com_set_resource_group', \
     'Com_backup', 'Com_backup_lock', 'Com_lock_instance')";

/// Selects the number of the session's user variables, and how many of them are that of
/// [`setup_sql`](Driver::setup_sql). Without such a list, or without access to it, both are 0, and the session is not
/// reused. MariaDB executes the first comment, MySQL the second.
fn variables() -> String {
    format!(
        "CAST(COUNT(*) AS CHAR), CAST(COALESCE(SUM(VARIABLE_NAME = 'db_handler' AND VARIABLE_VALUE = '{}'), 0) AS CHAR) \
         FROM /*M!100200 information_schema.USER_VARIABLES */\
         /*!80016 performance_schema.user_variables_by_thread WHERE THREAD_ID = PS_CURRENT_THREAD_ID() */",
        function_name()
    )
}

/// `innodb_read_only` is on for Aurora's readers. A server that does not have one of them lists the other.
const READ_ONLY: &str =
    "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('read_only', 'innodb_read_only')";

/// Whether the session returns every row of [`COUNTERS`] and [`READ_ONLY`]: a handler may have limited them.
const ALL_ROWS: &str = "CAST(@@sql_select_limit = 18446744073709551615 AS CHAR)";

/// What is known about a connection's session.
#[derive(Debug, Default)]
pub struct State {
    counters: Counters,
    /// Whether the server accepted writes at the last reset.
    takes_writes: Option<bool>,
}

/// The counts of a session's statements that cannot be reset, by the counter's name.
#[derive(Debug)]
struct Counters(BTreeMap<String, String>);

/// The counters after a new session's first statement.
impl Default for Counters {
    fn default() -> Self {
        Self(BTreeMap::from([("Com_set_option".into(), "1".into())]))
    }
}

impl Counters {
    fn count(&self, name: &str) -> &str {
        self.0.get(name).map_or("0", String::as_str)
    }

    fn is_as_in(&self, other: &Self) -> bool {
        self.0
            .keys()
            .all(|name| self.count(name) == other.count(name))
    }
}

/// Whether the next reply is that to the next query.
async fn is_in_sync(connection: &mut MySqlConnection) -> bool {
    let nonce = Nonce::fresh();
    let query = AssertSqlSafe(format!("SELECT {}", nonce.literal()));
    let rows = without_logging(raw_sql(query).fetch_all(connection)).await;
    rows.is_ok_and(|rows| rows.last().is_some_and(|last| nonce.marks(last)))
}

impl Sealed for MySql {}

impl Driver for MySql {
    type Options = MySqlConnectOptions;
    type Session = MySqlSession;
    type SessionState = State;

    const POOL: &'static str = "MySQL pool";
    const CONNECTION: &'static str = "MySQL connection";
    const HANDLE: &'static str = "MySQL";
    const SCHEMES: &'static [&'static str] = &["mysql", "mariadb"];
    const EXAMPLE: &'static str = "mysql://user:password@host:3306/database";
    const PARAMETERS: &'static [&'static str] = &[
        "charset",
        "collation",
        "socket",
        "timezone",
        "time-zone",
        "statement-cache-capacity",
    ];

    fn options(url: &str) -> Result<Self::Options, sqlx::Error> {
        // `init_session` sends what sqlx would send first on a new connection: a query after it then costs no extra
        // round trip.
        let options = MySqlConnectOptions::from_str(url)?;
        // sqlx keeps a URL's brackets, and resolves them with the host.
        let host = without_brackets(options.get_host()).to_owned();
        Ok(options
            .host(&host)
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .timezone(None)
            .set_names(false))
    }

    fn setup_sql(url: &str, proxy: Option<Proxy>) -> Result<String, sqlx::Error> {
        let url = Url::parse(url).map_err(|error| sqlx::Error::Configuration(error.into()))?;
        let options = MySqlConnectOptions::from_url(&url)?;
        let time_zone = url
            .query_pairs()
            .filter(|(key, _)| matches!(&**key, "timezone" | "time-zone"))
            .last()
            .map_or_else(|| "+00:00".into(), |(_, value)| value.into_owned());
        // These values are part of a statement, and which characters end a literal depends on the server's mode.
        is_plain("timezone", &time_zone, "+-:/_")?;
        is_plain("charset", options.get_charset(), "_")?;
        is_plain("collation", options.get_collation().unwrap_or("_"), "_")?;
        let collate = options
            .get_collation()
            .map_or_else(String::new, |collation| format!(" COLLATE {collation}"));
        // A user variable would make RDS Proxy pin the session.
        let label = match proxy {
            Some(_) => String::new(),
            None => format!("@db_handler='{}',", function_name()),
        };
        Ok(format!(
            "SET sql_mode=(SELECT CONCAT(@@sql_mode, ',PIPES_AS_CONCAT,NO_ENGINE_SUBSTITUTION')),\
             time_zone='{time_zone}',{label}NAMES {}{collate}",
            options.get_charset()
        ))
    }

    fn tagged(options: &Self::Options, _: &Tag) -> Self::Options {
        options.clone()
    }

    fn unreachable_options(options: &Self::Options) -> Self::Options {
        options.clone().socket(NO_SOCKET)
    }

    fn port(options: &Self::Options) -> Option<u16> {
        options.get_socket().is_none().then(|| options.get_port())
    }

    fn target(options: &Self::Options) -> String {
        let database = options.get_database().unwrap_or("");
        let server = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => with_port(options.get_host(), options.get_port()),
        };
        format!("{server}/{database}")
    }

    fn init_session<'c>(
        connection: &'c mut MySqlConnection,
        _: &'c Self::Options,
        setup_sql: &str,
        silence: Option<Duration>,
    ) -> BoxFuture<'c, Result<Self::Session, sqlx::Error>> {
        let setup_sql = match silence {
            Some(silence) => format!("{setup_sql},{}", wait_timeout(silence)),
            None => setup_sql.to_owned(),
        };
        Box::pin(
            async move { session::init_session(connection, &setup_sql, silence.is_some()).await },
        )
    }

    fn end_session(connection: &mut MySqlConnection) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // The reply is an error: the session has been killed.
            let kill = raw_sql("KILL CONNECTION_ID()").execute(connection);
            let _ = without_logging(kill).await;
        })
    }

    fn drain(connection: &mut MySqlConnection) -> BoxFuture<'_, Result<(), sqlx::Error>> {
        Box::pin(connection.flush())
    }

    fn interrupt(_: &Self::Session) -> bool {
        false
    }

    fn cancel<'c>(
        via: &'c mut MySqlConnection,
        sessions: &'c [Self::Session],
    ) -> BoxFuture<'c, Result<Cancelled<Self::Session>, sqlx::Error>> {
        Box::pin(session::cancel(via, sessions))
    }

    fn reset<'c>(
        connection: &'c mut MySqlConnection,
        session_state: &'c mut State,
    ) -> BoxFuture<'c, Result<Health, sqlx::Error>> {
        Box::pin(without_logging(async move {
            let nonce = Nonce::fresh();
            let (nonce_literal, variables) = (nonce.literal(), variables());
            let message = format!(
                "{RESET}; {COUNTERS}; {READ_ONLY}; SELECT {nonce_literal}, {ALL_ROWS}, {variables}"
            );
            // Constant texts, and a label without quotes.
            let rows = raw_sql(AssertSqlSafe(message))
                .fetch_all(connection)
                .await?;
            let Some((last, counted)) = rows.split_last().filter(|(last, _)| nonce.marks(*last))
            else {
                return Err(Nonce::missing::<MySql>());
            };
            let (mut counters, mut takes_writes) = (BTreeMap::new(), None);
            for row in counted {
                let (name, value): (String, String) = (row.try_get(0)?, row.try_get(1)?);
                if name.ends_with("read_only") {
                    takes_writes = Some(takes_writes.unwrap_or(true) && value == "OFF");
                } else {
                    counters.insert(name, value);
                }
            }
            let now = Counters(counters);
            let all_rows: String = last.try_get(1)?;
            let (all, ours): (String, String) = (last.try_get(2)?, last.try_get(3)?);
            let is_clean = all_rows == "1"
                && !now.0.is_empty()
                && now.is_as_in(&session_state.counters)
                && all == "1"
                && ours == "1";
            *session_state = State {
                counters: now,
                takes_writes,
            };
            Ok(if is_clean {
                Health::Healthy
            } else {
                Health::Broken
            })
        }))
    }

    fn takes_writes(session_state: &State) -> Option<bool> {
        session_state.takes_writes
    }

    fn recognize(connection: &mut MySqlConnection) -> BoxFuture<'_, Result<bool, sqlx::Error>> {
        Box::pin(without_logging(async move {
            let nonce = Nonce::fresh();
            // Without `autocommit`, the next statement would begin a transaction that is never committed.
            let message = format!(
                "ROLLBACK; UNLOCK TABLES; SELECT {}, CAST(@@autocommit + 0 AS CHAR)",
                nonce.literal()
            );
            let rows = raw_sql(AssertSqlSafe(message))
                .fetch_all(connection)
                .await?;
            let Some(last) = rows.last().filter(|last| nonce.marks(*last)) else {
                return Ok(false);
            };
            Ok(last.try_get::<String, _>(1)? == "1")
        }))
    }

    const BEGIN: Option<&'static str> = Some(BEGIN);

    fn had_ended(error: &sqlx::Error) -> bool {
        // 1305: the savepoint does not exist.
        let error = error.as_database_error();
        error
            .and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>())
            .is_some_and(|error| error.number() == 1305)
    }

    fn commit_on(connection: &mut MySqlConnection) -> BoxFuture<'_, Result<(), sqlx::Error>> {
        Box::pin(async move {
            let nonce = Nonce::fresh();
            let message = format!("{COMMIT}; SELECT {}", nonce.literal());
            let rows = raw_sql(AssertSqlSafe(message))
                .fetch_all(&mut *connection)
                .await;
            let rows = match rows {
                // The error may be the reply to a dropped statement, and the server may have committed since.
                Err(error @ sqlx::Error::Database(_)) if !is_in_sync(connection).await => {
                    return Err(sqlx::Error::Protocol(error.to_string()));
                }
                rows => rows?,
            };
            match rows.last() {
                Some(last) if nonce.marks(last) => Ok(()),
                _ => Err(Nonce::missing::<MySql>()),
            }
        })
    }

    /// The numbers are those of the MySQL 8 and MariaDB error references.
    fn kind(error: &dyn DatabaseError) -> Option<ErrorKind> {
        let error = error.try_downcast_ref::<MySqlDatabaseError>()?;
        Some(match error.number() {
            // access denied for the user; host not allowed or blocked; plugin not loaded; account locked
            1045 | 1698 | 1129 | 1130 | 1524 | 3118 | 4151 => ErrorKind::Authentication,
            // access denied to the database; unknown database
            1044 | 1049 => ErrorKind::NoSuchDatabase,
            // too many connections: of the server, of the user, of the user's resources
            1040 | 1203 | 1226 => ErrorKind::TooManyConnections,
            // server shutdown in progress
            1053 => ErrorKind::ServerUnavailable,
            // connection killed (MariaDB, MySQL idle timeout), aborted
            1927 | 4031 | 1152 | 1184 => ErrorKind::ConnectionLost,
            // running in read-only mode
            1836 => ErrorKind::ReadOnly,
            // An option forbids the statement. The message names it: `--read-only`, `--super-read-only`.
            1290 if error.message().contains("read-only") => ErrorKind::ReadOnly,
            _ => return None,
        })
    }

    fn renew(connection: &mut MySqlConnection) -> BoxFuture<'_, Result<Health, sqlx::Error>> {
        Box::pin(without_logging(async move {
            // `innodb_read_only` is on for Aurora's readers.
            let writes = raw_sql(
                "SELECT CAST(@@read_only IN (0, 'OFF') AND @@innodb_read_only = 0 AS UNSIGNED)",
            );
            let row: MySqlRow = writes.fetch_one(connection).await?;
            Ok(if row.try_get::<u64, _>(0)? == 1 {
                Health::Healthy
            } else {
                Health::Broken
            })
        }))
    }

    fn is_outdated(error: &dyn DatabaseError) -> bool {
        let number = error
            .try_downcast_ref::<MySqlDatabaseError>()
            .map(MySqlDatabaseError::number);
        // unknown prepared statement; a prepared statement that has to be prepared again
        matches!(number, Some(1243 | 1615))
    }

    fn is_server_full(error: &dyn DatabaseError) -> bool {
        let Some(error) = error.try_downcast_ref::<MySqlDatabaseError>() else {
            return false;
        };
        match error.number() {
            1040 | 1203 => true,
            // The same number also means that an hourly quota is used up.
            1226 => error.message().contains("max_user_connections"),
            _ => false,
        }
    }
}

impl Identify for MySqlConnectOptions {
    const TLS: &'static TlsWords = &TlsWords {
        mode: &["ssl-mode", "sslmode"],
        modes: &[
            "DISABLED",
            "PREFERRED",
            "REQUIRED",
            "VERIFY_CA",
            "VERIFY_IDENTITY",
        ],
        disable: "DISABLED",
        verify: "VERIFY_IDENTITY",
        verify_ca: "VERIFY_CA",
        root: &["ssl-ca", "sslca"],
        client: &["ssl-cert", "sslcert", "ssl-key", "sslkey"],
    };

    fn target(&self, variable: &'static str, written: &UrlParts) -> Target {
        Target {
            variable,
            engine: Engine::MySql,
            host: written.host.then(|| self.get_host().to_owned()),
            port: Some(self.get_port()),
            user: written.user.then(|| self.get_username().to_owned()),
            database: self.get_database().map(ToOwned::to_owned),
        }
    }

    fn with_secret(self, secret: &Secret) -> Self {
        let mut options = self.password(secret.password());
        if let Some(user) = &secret.user {
            options = options.username(user);
        }
        if let Some(host) = &secret.host {
            options = options.host(without_brackets(host));
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
        options
    }

    fn is_local(&self) -> bool {
        self.get_socket().is_some() || is_local_host(self.get_host())
    }

    fn tls_mode(&self) -> TlsMode {
        match self.get_ssl_mode() {
            MySqlSslMode::Disabled => TlsMode::Disable,
            MySqlSslMode::Preferred => TlsMode::Prefer,
            MySqlSslMode::Required => TlsMode::Require,
            MySqlSslMode::VerifyCa => TlsMode::VerifyCa,
            MySqlSslMode::VerifyIdentity => TlsMode::VerifyFull,
        }
    }

    fn with_tls_mode(self, mode: TlsMode) -> Self {
        self.ssl_mode(match mode {
            TlsMode::Disable => MySqlSslMode::Disabled,
            TlsMode::Prefer => MySqlSslMode::Preferred,
            TlsMode::Require => MySqlSslMode::Required,
            TlsMode::VerifyCa => MySqlSslMode::VerifyCa,
            TlsMode::VerifyFull => MySqlSslMode::VerifyIdentity,
        })
    }

    fn revealing_password(self) -> Self {
        self.enable_cleartext_plugin(true)
    }
}

/// The server's extra connection for an administrator is not part of `max_connections`.
const LOAD: &str = "SHOW GLOBAL STATUS LIKE 'Threads_connected'; SELECT @@GLOBAL.max_connections";

impl Capacity for MySql {
    async fn load(connection: &mut MySqlConnection) -> Result<Option<Load>, sqlx::Error> {
        let rows = raw_sql(LOAD).fetch_all(connection).await?;
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

/// Assigns how long a session may idle until the server ends it, which releases the locks of a client that has
/// vanished. A shorter timeout of the server remains.
fn wait_timeout(silence: Duration) -> String {
    let seconds = (WAIT_TIMEOUT + silence).as_secs();
    format!("wait_timeout=LEAST(@@wait_timeout,{seconds})")
}

/// Rejects a `value` that is empty or has characters other than letters, digits and `others`.
fn is_plain(parameter: &str, value: &str, others: &str) -> Result<(), sqlx::Error> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || others.as_bytes().contains(&byte);
    if !value.is_empty() && value.bytes().all(is_plain) {
        return Ok(());
    }
    let text = format!("{parameter} has a character that none has, or is empty");
    Err(sqlx::Error::Configuration(text.into()))
}

inject_connection!(MySqlConnection, MySql);

impl RdsProxySafe for MySqlPool {}
impl RdsProxySafe for Db<MySql> {}
impl RdsProxySafe for MySqlConnection {}
impl RdsProxySafe for MySqlTransaction<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_url_ends_the_literal_or_the_statement_that_it_stands_in() {
        let setup_sql = |query| MySql::setup_sql(&format!("mysql://app@host/shop?{query}"), None);
        for query in [
            r"timezone=\',sql_mode=''%23",
            "time-zone='",
            "timezone=",
            "charset=utf8mb4;drop",
            "collation=utf8mb4_bin,@a:=1",
        ] {
            let error = setup_sql(query).expect_err(query).to_string();
            assert!(error.contains("a character that none has"), "{error}");
        }
        for query in [
            "timezone=SYSTEM",
            "timezone=%2B02:00",
            "timezone=-03:00",
            "timezone=America/Port-au-Prince",
            "timezone=Etc/GMT%2B5",
            "collation=utf8mb4_unicode_520_ci&charset=utf8mb4",
        ] {
            assert!(setup_sql(query).is_ok(), "{query}");
        }
    }

    #[test]
    fn behind_a_proxy_no_variable_of_the_users_own_is_set() {
        let setup_sql = |proxy| MySql::setup_sql("mysql://app@host/shop", proxy).expect("a URL");
        assert!(setup_sql(None).contains("@db_handler="));
        let behind = setup_sql(Some(Proxy::Rds));
        assert!(!behind.contains("db_handler"), "{behind}");
        assert!(
            behind.contains("time_zone='+00:00',NAMES utf8mb4"),
            "{behind}"
        );
    }
}
