//! PostgreSQL: `&PgPool`, `&Db<Postgres>` and `&mut PgConnection`.

mod monitor;
mod pgbouncer;
mod prepared;
mod session;

pub use pgbouncer::PgBouncerTransaction;

use self::{
    prepared::Prepared,
    session::{Backend, PgSession},
};
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
    config::STOP_AGAIN,
    credentials::{Engine, Secret, Target},
    error::ErrorKind,
    resource::{Health, RdsProxySafe, TransactionPoolingSafe},
    util::local_host::{is_local_host, with_port, without_brackets},
};
use futures_util::future::{BoxFuture, ready};
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, PgPool, PgTransaction, Postgres, Row,
    error::DatabaseError,
    postgres::{PgConnectOptions, PgDatabaseError, PgRow, PgSslMode},
    raw_sql,
};
use std::{str::FromStr, time::Duration};
use tokio::time::sleep;

/// The longest `application_name`: PostgreSQL's `NAMEDATALEN` minus one.
const LONGEST_NAME: usize = 63;

/// What is known about a connection's session.
#[derive(Debug, Default)]
pub struct State {
    /// The newest of the database's own types when sqlx last looked them up; see
    /// [`PgBouncerTransaction`](super::PgBouncerTransaction).
    pub(super) newest_type: Option<i64>,
    /// The server process of the session.
    backend: Option<Backend>,
    /// Whether the server accepted writes at the last reset.
    takes_writes: Option<bool>,
    prepared: Prepared,
}

/// Everything in `DISCARD ALL` except for sqlx's prepared statements, which remain in use.
const RESET: &str = "SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *; \
     SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";

/// The statements that remove what `PREPARE` in SQL has left. sqlx prepares its own statements with the protocol and
/// not with SQL.
const DEALLOCATE: &str = "(SELECT string_agg('DEALLOCATE ' || quote_ident(name), '; ') \
     FROM pg_catalog.pg_prepared_statements WHERE from_sql)";

/// Whether the session, which is reset in the same message, may write: not on a standby, nor if the server, the
/// database, the role or the URL makes it read-only. It does not ask about the transaction of this message, whose mode
/// was set before the reset.
const TAKES_WRITES: &str =
    "NOT pg_is_in_recovery() AND current_setting('default_transaction_read_only') = 'off'";

impl Sealed for Postgres {}

impl Driver for Postgres {
    type Options = PgConnectOptions;
    type Session = PgSession;
    type SessionState = State;

    const POOL: &'static str = "PostgreSQL pool";
    const CONNECTION: &'static str = "PostgreSQL connection";
    const HANDLE: &'static str = "PostgreSQL";
    const SCHEMES: &'static [&'static str] = &["postgres", "postgresql"];
    const EXAMPLE: &'static str = "postgres://user:password@host:5432/database";
    const PARAMETERS: &'static [&'static str] = &[
        "host",
        "hostaddr",
        "port",
        "dbname",
        "user",
        "password",
        "application_name",
        "options",
        "statement-cache-capacity",
    ];

    fn is_parameter(key: &str) -> bool {
        key.starts_with("options[") && key.ends_with(']')
    }

    fn options(url: &str) -> Result<Self::Options, sqlx::Error> {
        let options = PgConnectOptions::from_str(url)?;
        // sqlx keeps a URL's brackets, and resolves them with the host.
        let host = without_brackets(options.get_host()).to_owned();
        Ok(options.host(&host))
    }

    fn tagged(options: &Self::Options, tag: &Tag) -> Self::Options {
        let name = match options.get_application_name() {
            Some(users) => tag.after(users, LONGEST_NAME),
            None => tag.after(function_name(), LONGEST_NAME),
        };
        options.clone().application_name(&name)
    }

    fn untagged(options: &Self::Options) -> Self::Options {
        let name = options.get_application_name().unwrap_or_default();
        let (label, _) = name.rsplit_once(" #").unwrap_or((name, ""));
        options.clone().application_name(label)
    }

    fn for_proxy(options: Self::Options) -> Result<Self::Options, &'static str> {
        if options.get_options().is_some() {
            return Err(
                "a proxy lets no startup `options` through: take `options=..` out of it (or unset PGOPTIONS), and \
                 write `ALTER ROLE .. SET ..` on the server, or `SET LOCAL ..` in the transaction",
            );
        }
        // PgBouncer refuses a client that sends a startup parameter that it does not track.
        Ok(options.extra_float_digits(None))
    }

    fn unreachable_options(options: &Self::Options) -> Self::Options {
        options.clone().socket(NO_SOCKET)
    }

    fn port(options: &Self::Options) -> Option<u16> {
        options.get_socket().is_none().then(|| options.get_port())
    }

    fn target(options: &Self::Options) -> String {
        let database = options.get_database().unwrap_or(options.get_username());
        let server = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => with_port(options.get_host(), options.get_port()),
        };
        format!("{server}/{database}")
    }

    fn monitored(options: &Self::Options, silence: Duration) -> Option<Self::Options> {
        monitor::in_options(options, silence)
    }

    fn refuses_monitoring(error: &dyn DatabaseError) -> bool {
        monitor::is_refused(error)
    }

    fn monitor<'c>(
        connection: &'c mut PgConnection,
        options: &'c Self::Options,
        silence: Duration,
    ) -> BoxFuture<'c, Result<(), sqlx::Error>> {
        let Some(sql) = monitor::in_sql(options, silence, connection.server_version_num()) else {
            return Box::pin(ready(Ok(())));
        };
        // Only numbers.
        let setting = raw_sql(AssertSqlSafe(sql));
        Box::pin(without_logging(async move {
            setting.execute(connection).await.map(drop)
        }))
    }

    fn init_session<'c>(
        _: &'c mut PgConnection,
        options: &'c Self::Options,
        _: &str,
        _: Option<Duration>,
    ) -> BoxFuture<'c, Result<Self::Session, sqlx::Error>> {
        let name = options.get_application_name().unwrap_or_default();
        Box::pin(ready(Ok(PgSession::named(name))))
    }

    fn identified(session: &Self::Session, session_state: &State) -> Option<Self::Session> {
        let backend = session_state.backend?;
        (!session.is(backend)).then(|| session.with(backend))
    }

    fn is_identified(session: &Self::Session) -> bool {
        session.is_identified()
    }

    fn all_but(session: &Self::Session, others: &[Self::Session]) -> Self::Session {
        session.all_but(others)
    }

    fn drain(connection: &mut PgConnection) -> BoxFuture<'_, Result<(), sqlx::Error>> {
        Box::pin(connection.flush())
    }

    fn interrupt(_: &Self::Session) -> bool {
        false
    }

    fn cancel<'c>(
        via: &'c mut PgConnection,
        sessions: &'c [Self::Session],
    ) -> BoxFuture<'c, Result<Cancelled<Self::Session>, sqlx::Error>> {
        Box::pin(session::cancel(via, sessions))
    }

    fn cancel_in_transactions<'c>(
        via: &'c mut PgConnection,
        sessions: &'c [Self::Session],
    ) -> BoxFuture<'c, Result<(), sqlx::Error>> {
        let names: Vec<String> = sessions.iter().map(|one| literal(one.name())).collect();
        // Each name is that of one transaction, which no client will end. A statement under that name is one to cancel
        // while it runs, and the pooler gives its connection to no other client.
        let cancel = format!(
            "SELECT CASE state WHEN 'active' THEN pg_cancel_backend(pid) END FROM pg_stat_activity \
             WHERE pid <> pg_backend_pid() AND usename = session_user AND application_name IN ({})",
            names.join(", ")
        );
        Box::pin(without_logging(async move {
            loop {
                // The names are generated and quoted here.
                let still_there: Vec<PgRow> = raw_sql(AssertSqlSafe(cancel.clone()))
                    .fetch_all(&mut *via)
                    .await?;
                if still_there.is_empty() {
                    return Ok(());
                }
                sleep(STOP_AGAIN).await;
            }
        }))
    }

    fn reset<'c>(
        connection: &'c mut PgConnection,
        session_state: &'c mut State,
    ) -> BoxFuture<'c, Result<Health, sqlx::Error>> {
        // In an open transaction, the server warns about the `BEGIN`, and sqlx would log that.
        Box::pin(without_logging(async move {
            // A session can be renamed, and its name copied: from its first reset on, it is identified by its process.
            let backend = session_state.backend.is_none().then_some(session::BACKEND);
            let prepared = prepared::column(connection.server_version_num());
            let columns: Vec<&str> = [DEALLOCATE, TAKES_WRITES, prepared]
                .into_iter()
                .chain(backend)
                .collect();
            let last = recognized_outside(connection, RESET, &columns).await?;
            session_state.takes_writes = Some(last.try_get(2)?);
            let cached = connection.cached_statements_size();
            session_state.prepared.look(last.try_get(3)?, cached);
            if backend.is_some() {
                session_state.backend = Some(Backend::read(&last, 4)?);
            }
            if let Some(deallocate) = last.try_get::<Option<String>, _>(1)? {
                // The server itself has quoted the names.
                recognized(connection, &deallocate, &[], "").await?;
            }
            Ok(Health::Healthy)
        }))
    }

    fn revalidate<'c>(
        connection: &'c mut PgConnection,
        session_state: &'c mut State,
    ) -> BoxFuture<'c, Result<Health, sqlx::Error>> {
        Box::pin(session_state.prepared.check(connection))
    }

    fn takes_writes(session_state: &State) -> Option<bool> {
        session_state.takes_writes
    }

    fn recognize(connection: &mut PgConnection) -> BoxFuture<'_, Result<bool, sqlx::Error>> {
        Box::pin(without_logging(async move {
            recognized_outside(connection, "", &[]).await?;
            Ok(true)
        }))
    }

    fn identify<'c>(
        connection: &'c mut PgConnection,
        session_state: &'c mut State,
    ) -> BoxFuture<'c, Result<bool, sqlx::Error>> {
        Box::pin(without_logging(async move {
            let row = recognized_outside(connection, "", &[session::BACKEND]).await?;
            session_state.backend = Some(Backend::read(&row, 1)?);
            Ok(true)
        }))
    }

    fn before_commit(connection: &mut PgConnection) -> BoxFuture<'_, Result<(), sqlx::Error>> {
        // sqlx does not count the replies to a `COPY`: only a probe shows that one was dropped.
        Box::pin(without_logging(async move {
            connection.flush().await?;
            recognized(connection, "", &[], "").await.map(drop)
        }))
    }

    fn is_aborted(error: &sqlx::Error) -> bool {
        is_aborted(error)
    }

    fn commit_on(connection: &mut PgConnection) -> BoxFuture<'_, Result<(), sqlx::Error>> {
        Box::pin(async move {
            // An aborted transaction rejects the nonce. sqlx still counts the transaction as open and rolls it back
            // later: without the `BEGIN`, the server would log a warning then.
            recognized(connection, "", &[], "COMMIT; BEGIN").await?;
            Ok(())
        })
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
            "57P03" => ErrorKind::ServerUnavailable,
            // admin_shutdown, crash_shutdown, idle_session_timeout, and all of class 08
            "57P01" | "57P02" | "57P05" => ErrorKind::ConnectionLost,
            code if code.starts_with("08") => ErrorKind::ConnectionLost,
            // read_only_sql_transaction
            "25006" => ErrorKind::ReadOnly,
            _ => return None,
        })
    }

    fn renew(connection: &mut PgConnection) -> BoxFuture<'_, Result<Health, sqlx::Error>> {
        Box::pin(without_logging(async move {
            connection.clear_cached_statements().await?;
            let read_only = raw_sql("SELECT current_setting('transaction_read_only')");
            let row: PgRow = read_only.fetch_one(connection).await?;
            Ok(if row.try_get::<&str, _>(0)? == "off" {
                Health::Healthy
            } else {
                Health::Broken
            })
        }))
    }

    fn is_outdated(error: &dyn DatabaseError) -> bool {
        match error.code().as_deref() {
            // feature_not_supported. The message is translated, the name of the server's routine is not.
            Some("0A000") => {
                let error = error.try_downcast_ref::<PgDatabaseError>();
                error.and_then(PgDatabaseError::routine) == Some("RevalidateCachedQuery")
            }
            // internal_error: never translated.
            Some("XX000") => error.message().starts_with("cache lookup failed for "),
            // invalid_sql_statement_name
            Some("26000") => true,
            _ => false,
        }
    }

    fn is_server_full(error: &dyn DatabaseError) -> bool {
        match error.code().as_deref() {
            Some("53300" | "53400" | "57P03") => true,
            // PgBouncer uses one code for all refusals.
            Some("08P01") => error.message().starts_with("no more connections allowed"),
            _ => false,
        }
    }
}

impl Identify for PgConnectOptions {
    const TLS: &'static TlsWords = &TlsWords {
        mode: &["sslmode", "ssl-mode"],
        modes: &[
            "disable",
            "allow",
            "prefer",
            "require",
            "verify-ca",
            "verify-full",
        ],
        disable: "disable",
        verify: "verify-full",
        verify_ca: "verify-ca",
        root: &["sslrootcert", "ssl-root-cert", "ssl-ca"],
        client: &["sslcert", "ssl-cert", "sslkey", "ssl-key"],
    };

    fn target(&self, variable: &'static str, written: &UrlParts) -> Target {
        Target {
            variable,
            engine: Engine::Postgres,
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
            options = options.ssl_root_cert_from_pem(pem.to_vec());
        }
        options
    }

    fn is_local(&self) -> bool {
        self.get_socket().is_some() || is_local_host(self.get_host())
    }

    fn tls_mode(&self) -> TlsMode {
        match self.get_ssl_mode() {
            // sqlx never tries TLS for `allow`.
            PgSslMode::Disable | PgSslMode::Allow => TlsMode::Disable,
            PgSslMode::Prefer => TlsMode::Prefer,
            PgSslMode::Require => TlsMode::Require,
            PgSslMode::VerifyCa => TlsMode::VerifyCa,
            PgSslMode::VerifyFull => TlsMode::VerifyFull,
        }
    }

    fn with_tls_mode(self, mode: TlsMode) -> Self {
        self.ssl_mode(match mode {
            TlsMode::Disable => PgSslMode::Disable,
            TlsMode::Prefer => PgSslMode::Prefer,
            TlsMode::Require => PgSslMode::Require,
            TlsMode::VerifyCa => PgSslMode::VerifyCa,
            TlsMode::VerifyFull => PgSslMode::VerifyFull,
        })
    }
}

/// For other users' sessions, only some columns are visible: one with a database and a user is a client's.
/// `reserved_connections` exists from PostgreSQL 16 on, the last one on RDS.
const LOAD: &str = "
    select count(*) filter (where datid is not null and usesysid is not null
            and coalesce(backend_type, 'client backend') = 'client backend'),
        current_setting('max_connections')::int8 - current_setting('superuser_reserved_connections')::int8
            - coalesce(current_setting('reserved_connections', true)::int8, 0)
            - coalesce(current_setting('rds.rds_superuser_reserved_connections', true)::int8, 0)
    from pg_stat_activity";

impl Capacity for Postgres {
    async fn load(connection: &mut PgConnection) -> Result<Option<Load>, sqlx::Error> {
        // Not prepared: it runs so rarely that it is not worth a place in the cache.
        let row = raw_sql(LOAD).fetch_one(connection).await?;
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

/// Runs `before`, a query for a nonce and `columns`, and `after`, in one message. Returns the last row of the reply,
/// which has the nonce in column 0. To read more about a session, add a column.
async fn recognized(
    connection: &mut PgConnection,
    before: &str,
    columns: &[&str],
    after: &str,
) -> Result<PgRow, sqlx::Error> {
    let nonce = Nonce::fresh();
    let mut ask = format!("SELECT {}", nonce.literal());
    for column in columns {
        ask.push_str(", ");
        ask.push_str(column);
    }
    let statements = [before.trim_end_matches("; "), &ask, after];
    let message = statements
        .into_iter()
        .filter(|statement| !statement.is_empty())
        .collect::<Vec<&str>>()
        .join("; ");
    // Constant texts, and names that the server has quoted.
    let rows: Vec<PgRow> = raw_sql(AssertSqlSafe(message))
        .fetch_all(connection)
        .await?;
    rows.into_iter()
        .next_back()
        .filter(|last| nonce.marks(last))
        .ok_or_else(Nonce::missing::<Postgres>)
}

/// Like [`recognized`], but outside of any transaction: an open one is rolled back.
async fn recognized_outside(
    connection: &mut PgConnection,
    before: &str,
    columns: &[&str],
) -> Result<PgRow, sqlx::Error> {
    // For a `ROLLBACK` alone, the server would log a warning each time that no transaction is open.
    let ending = format!("BEGIN; ROLLBACK; {before}");
    match recognized(connection, &ending, columns, "").await {
        Err(error) if is_aborted(&error) => {
            let ending = format!("ROLLBACK; {before}");
            recognized(connection, &ending, columns, "").await
        }
        done => done,
    }
}

/// An aborted transaction rejects `BEGIN`: `in_failed_sql_transaction`.
fn is_aborted(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.code().as_deref() == Some("25P02"))
}

/// An SQL string literal, for either value of `standard_conforming_strings`.
pub(super) fn literal(text: &str) -> String {
    format!(" E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

inject_connection!(PgConnection, Postgres);

impl TransactionPoolingSafe for PgBouncerTransaction {}
impl RdsProxySafe for PgPool {}
impl RdsProxySafe for Db<Postgres> {}
impl RdsProxySafe for PgConnection {}
impl RdsProxySafe for PgTransaction<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_the_users_stays_in_front() {
        let tag = Tag::unique();
        let url = "postgres://app@host/shop?application_name=orders";
        let options = PgConnectOptions::from_str(url).expect("a URL");
        let tagged = Postgres::tagged(&options, &tag);
        let expected = format!("orders #{tag}");
        assert_eq!(tagged.get_application_name(), Some(expected.as_str()));
    }

    #[test]
    fn a_proxy_is_told_the_label_alone() {
        let tag = Tag::unique();
        let url = "postgres://app@host/shop?application_name=orders%20%231";
        let options = PgConnectOptions::from_str(url).expect("a URL");
        let untagged = Postgres::untagged(&Postgres::tagged(&options, &tag));
        assert_eq!(untagged.get_application_name(), Some("orders #1"));
    }

    #[test]
    fn behind_a_proxy_a_startup_option_is_an_error_that_names_it() {
        let url = "postgres://app@host/shop?options=-c%20statement_timeout%3D5s";
        let options = PgConnectOptions::from_str(url).expect("a URL");
        let fix = Postgres::for_proxy(options).expect_err("refused");
        assert!(fix.contains("`options=..`"), "{fix}");
    }

    #[test]
    fn a_name_cannot_end_its_literal() {
        assert_eq!(literal(r"it's a \ name"), r" E'it''s a \\ name'");
    }
}
