//! PostgreSQL: `&PgPool`, `&Db<Postgres>` and `&mut PgConnection`.

mod monitor;
mod session;

use self::session::{Backend, PgSession};
use super::{
    advice::is_here,
    db::lend_connection,
    driver::{Cancelled, Driver, NO_SOCKET, sealed::Sealed},
    label::label,
    login::{Identify, Written},
    pressure::{Load, Pressured},
    silent::silently,
    tag::Tag,
};
use crate::{
    config::STOP_AGAIN,
    credentials::{Engine, Secret, Target},
    error::ErrorKind,
    resource::Fitness,
};
use futures_util::future::{BoxFuture, ready};
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, PgTransaction, Postgres, Row,
    error::DatabaseError,
    postgres::{PgConnectOptions, PgRow, PgSslMode},
    raw_sql,
};
use std::{str::FromStr, time::Duration};
use tokio::time::sleep;

/// The longest `application_name`: PostgreSQL's `NAMEDATALEN` less one.
const LONGEST_NAME: usize = 63;

/// What is known about the session of a connection.
#[derive(Debug, Default)]
pub struct Knowledge {
    /// sqlx has asked for the database's own types.
    pub(super) types: bool,
    /// Which process of the server it is.
    backend: Option<Backend>,
}

/// One message, one answer. Everything of `DISCARD ALL` except for the prepared statements, which sqlx
/// goes on using. It begins with what an aborted transaction would refuse everything else for.
const RESET: &str = "ROLLBACK; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *; \
     SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";

/// PostgreSQL answers a `COMMIT` after a failed statement with a rollback, and calls that a success: the `SELECT`
/// is refused then.
pub(super) const COMMIT: &str = "SELECT 1; COMMIT";

/// sqlx has to be left something to roll back: of a `COMMIT` that is not its own it knows nothing.
const COMMIT_AND_BEGIN: &str = "SELECT 1; COMMIT; BEGIN";

impl Sealed for Postgres {}

impl Driver for Postgres {
    type Options = PgConnectOptions;
    type Session = PgSession;
    type Memory = Knowledge;

    const POOL: &'static str = "PostgreSQL pool";
    const CONNECTION: &'static str = "PostgreSQL connection";
    const HANDLE: &'static str = "PostgreSQL";
    const SCHEMES: &'static [&'static str] = &["postgres", "postgresql"];
    const EXAMPLE: &'static str = "postgres://user:password@host:5432/database";

    fn options(url: &str) -> Result<Self::Options, sqlx::Error> {
        PgConnectOptions::from_str(url)
    }

    fn tagged(options: &Self::Options, tag: &Tag) -> Self::Options {
        let name = match options.get_application_name() {
            Some(users) => tag.after(users, LONGEST_NAME),
            None => tag.after(label(), LONGEST_NAME),
        };
        options.clone().application_name(&name)
    }

    fn untagged(options: &Self::Options) -> Self::Options {
        let name = options.get_application_name().unwrap_or_default();
        let (label, _) = name.rsplit_once(" #").unwrap_or((name, ""));
        options.clone().application_name(label)
    }

    fn behind_a_proxy(options: Self::Options) -> Result<Self::Options, &'static str> {
        if options.get_options().is_some() {
            return Err(
                "a proxy lets no startup `options` through: take `options=..` out of it (or unset PGOPTIONS), and                  write `ALTER ROLE .. SET ..` on the server, or `SET LOCAL ..` in the transaction",
            );
        }
        // PgBouncer turns away whoever sends a startup parameter that it does not track.
        Ok(options.extra_float_digits(None))
    }

    fn nowhere(options: &Self::Options) -> Self::Options {
        options.clone().socket(NO_SOCKET)
    }

    fn port(options: &Self::Options) -> Option<u16> {
        options.get_socket().is_none().then(|| options.get_port())
    }

    fn target(options: &Self::Options) -> String {
        let database = options.get_database().unwrap_or(options.get_username());
        match options.get_socket() {
            Some(socket) => format!("{}/{database}", socket.display()),
            None => format!("{}:{}/{database}", options.get_host(), options.get_port()),
        }
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
        // Nothing but numbers.
        let setting = raw_sql(AssertSqlSafe(sql));
        Box::pin(silently(async move {
            setting.execute(connection).await.map(drop)
        }))
    }

    fn introduce<'c>(
        _: &'c mut PgConnection,
        options: &'c Self::Options,
        _: &str,
        _: Option<Duration>,
    ) -> BoxFuture<'c, Result<Self::Session, sqlx::Error>> {
        let name = options.get_application_name().unwrap_or_default();
        Box::pin(ready(Ok(PgSession::named(name))))
    }

    fn identified(session: &Self::Session, memory: &Knowledge) -> Option<Self::Session> {
        let backend = memory.backend?;
        (!session.is(backend)).then(|| session.with(backend))
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
        // The name is that of one transaction, and nobody ends that any more: what runs under it is ours for as
        // long as it runs, and the pooler gives its connection to nobody else.
        let cancel = format!(
            "SELECT CASE state WHEN 'active' THEN pg_cancel_backend(pid) END              FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND application_name IN ({})",
            names.join(", ")
        );
        Box::pin(silently(async move {
            loop {
                // The names are ours, and quoted.
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
        memory: &'c mut Knowledge,
    ) -> BoxFuture<'c, Result<Fitness, sqlx::Error>> {
        // Where no transaction is open, the server says so in a warning, which sqlx would log.
        Box::pin(silently(async move {
            if memory.backend.is_some() {
                raw_sql(RESET).execute(connection).await?;
            } else {
                // A session can be renamed, and its name be copied: from now on it is known for what it is.
                let sql = AssertSqlSafe(format!("{RESET}; SELECT {}", session::BACKEND));
                let rows = raw_sql(sql).fetch_all(connection).await?;
                let last = rows.last().ok_or(sqlx::Error::RowNotFound)?;
                memory.backend = Some(Backend::read(last, 0)?);
            }
            Ok(Fitness::Fit)
        }))
    }

    fn commit(
        mut transaction: PgTransaction<'static>,
    ) -> BoxFuture<'static, Result<(), sqlx::Error>> {
        Box::pin(async move {
            raw_sql(COMMIT_AND_BEGIN)
                .execute(&mut *transaction)
                .await
                .map(drop)
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

/// A string in SQL, whatever `standard_conforming_strings` says.
pub(super) fn literal(text: &str) -> String {
    format!(" E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

lend_connection!(PgConnection, Postgres);

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
        let fix = Postgres::behind_a_proxy(options).expect_err("refused");
        assert!(fix.contains("`options=..`"), "{fix}");
    }

    #[test]
    fn a_name_cannot_end_its_literal() {
        assert_eq!(literal(r"it's a \ name"), r" E'it''s a \\ name'");
    }
}
