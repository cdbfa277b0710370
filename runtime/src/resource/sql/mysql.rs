//! MySQL and MariaDB: `&MySqlPool`, `&Db<MySql>` and `&mut MySqlConnection`.

mod session;

use self::session::MySqlSession;
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
    config::{Proxy, WAIT_TIMEOUT},
    credentials::{Engine, Secret, Target},
    error::ErrorKind,
    resource::Fitness,
};
use futures_util::future::BoxFuture;
use sqlx::{
    ConnectOptions, Connection, MySql, MySqlConnection, Row,
    error::DatabaseError,
    mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlRow, MySqlSslMode},
    raw_sql,
};
use sqlx_core::Url;
use std::{collections::BTreeMap, str::FromStr, time::Duration};

/// Ends what can be ended, and tells what cannot: MySQL has no `RESET ALL` that leaves prepared
/// statements alone, but it counts what each session has done.
const RESET: &str = "ROLLBACK; UNLOCK TABLES; DO RELEASE_ALL_LOCKS(); SHOW SESSION STATUS WHERE Variable_name IN (\
     'Com_set_option', 'Com_change_db', 'Com_create_table', 'Com_create_temporary_table', \
     'Com_ha_open', 'Com_xa_start', 'Com_set_role')";

/// How often a session has done what cannot be undone, by the name of the counter.
#[derive(Debug)]
pub struct Counters(BTreeMap<String, String>);

/// A new session has done its greeting.
impl Default for Counters {
    fn default() -> Self {
        Self(BTreeMap::from([("Com_set_option".into(), "1".into())]))
    }
}

impl Counters {
    fn count(&self, name: &str) -> &str {
        self.0.get(name).map_or("0", String::as_str)
    }
}

impl Sealed for MySql {}

impl Driver for MySql {
    type Options = MySqlConnectOptions;
    type Session = MySqlSession;
    type Memory = Counters;

    const POOL: &'static str = "MySQL pool";
    const CONNECTION: &'static str = "MySQL connection";
    const HANDLE: &'static str = "MySQL";
    const SCHEMES: &'static [&'static str] = &["mysql", "mariadb"];
    const EXAMPLE: &'static str = "mysql://user:password@host:3306/database";

    fn options(url: &str) -> Result<Self::Options, sqlx::Error> {
        // What sqlx would say first on a new connection is said in `introduce` instead, where a question
        // behind it costs no round trip of its own.
        Ok(MySqlConnectOptions::from_str(url)?
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .timezone(None)
            .set_names(false))
    }

    fn greeting(url: &str, proxy: Option<Proxy>) -> Result<String, sqlx::Error> {
        let url = Url::parse(url).map_err(|error| sqlx::Error::Configuration(error.into()))?;
        let options = MySqlConnectOptions::from_url(&url)?;
        let time_zone = url
            .query_pairs()
            .filter(|(key, _)| matches!(&**key, "timezone" | "time-zone"))
            .last()
            .map_or_else(|| "+00:00".into(), |(_, value)| value.replace('\'', "''"));
        let collate = options
            .get_collation()
            .map_or_else(String::new, |collation| format!(" COLLATE {collation}"));
        // A variable of the user's own is what RDS Proxy pins a session for.
        let label = match proxy {
            Some(_) => String::new(),
            None => format!("@db_handler='{}',", label()),
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

    fn nowhere(options: &Self::Options) -> Self::Options {
        options.clone().socket(NO_SOCKET)
    }

    fn port(options: &Self::Options) -> Option<u16> {
        options.get_socket().is_none().then(|| options.get_port())
    }

    fn target(options: &Self::Options) -> String {
        let database = options.get_database().unwrap_or("");
        match options.get_socket() {
            Some(socket) => format!("{}/{database}", socket.display()),
            None => format!("{}:{}/{database}", options.get_host(), options.get_port()),
        }
    }

    fn introduce<'c>(
        connection: &'c mut MySqlConnection,
        _: &'c Self::Options,
        greeting: &str,
        silence: Option<Duration>,
    ) -> BoxFuture<'c, Result<Self::Session, sqlx::Error>> {
        let greeting = match silence {
            Some(silence) => format!("{greeting},{}", wait_timeout(silence)),
            None => greeting.to_owned(),
        };
        Box::pin(async move { session::introduce(connection, &greeting, silence.is_some()).await })
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
        memory: &'c mut Counters,
    ) -> BoxFuture<'c, Result<Fitness, sqlx::Error>> {
        Box::pin(silently(async move {
            let rows: Vec<MySqlRow> = raw_sql(RESET).fetch_all(connection).await?;
            let mut counters = BTreeMap::new();
            for row in rows {
                counters.insert(row.try_get(0)?, row.try_get(1)?);
            }
            let now = Counters(counters);
            // An answer without them is somebody else's: sqlx has lost its place.
            let is_ours = !now.0.is_empty();
            let untouched = now
                .0
                .keys()
                .all(|name| now.count(name) == memory.count(name));
            *memory = now;
            Ok(if is_ours && untouched {
                Fitness::Fit
            } else {
                Fitness::Unfit
            })
        }))
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
}

/// The connection that the server keeps for an administrator comes on top of `max_connections`.
const LOAD: &str = "SHOW GLOBAL STATUS LIKE 'Threads_connected'; SELECT @@GLOBAL.max_connections";

impl Pressured for MySql {
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

/// An assignment for how long a session may idle before the server ends it, which gives back the locks of a
/// client that has vanished. A shorter time of the server's own stays.
fn wait_timeout(silence: Duration) -> String {
    let seconds = (WAIT_TIMEOUT + silence).as_secs();
    format!("wait_timeout=LEAST(@@wait_timeout,{seconds})")
}

lend_connection!(MySqlConnection, MySql);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_a_proxy_no_variable_of_the_users_own_is_set() {
        let greeting = |proxy| MySql::greeting("mysql://app@host/shop", proxy).expect("a URL");
        assert!(greeting(None).contains("@db_handler="));
        let behind = greeting(Some(Proxy::Rds));
        assert!(!behind.contains("db_handler"), "{behind}");
        assert!(
            behind.contains("time_zone='+00:00',NAMES utf8mb4"),
            "{behind}"
        );
    }
}
