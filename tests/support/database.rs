//! A database on a test server, and its connections.

use std::fmt;

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};

use crate::wait::Patience;

/// A separate database for one test, on a server that other tests may use concurrently.
///
/// It is deleted with its server.
#[derive(Clone, Debug)]
pub struct Database {
    name: String,
    url: String,
    tls_url: String,
    observer: Observer,
}

impl Database {
    pub(crate) fn new(name: String, url: String, tls_url: String, observer: Observer) -> Self {
        Self {
            name,
            url,
            tls_url,
            observer,
        }
    }

    /// Its name on the server.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its URL with user and password, without TLS. The URL has a query: append parameters with `&`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its URL with TLS, and the server's certificate verified.
    #[must_use]
    pub fn tls_url(&self) -> &str {
        &self.tls_url
    }

    /// The current sessions in it.
    ///
    /// # Panics
    /// If the server does not reply.
    pub async fn sessions(&self) -> Vec<Session> {
        self.observer.watch().await.sessions(Some(&self.name)).await
    }

    /// The number of connections to it.
    ///
    /// A connection that is still logging in may be missing, and one that was just closed may be counted: use
    /// [`wait_until_connections`](Self::wait_until_connections) to wait for a number.
    pub async fn connections(&self) -> usize {
        self.sessions().await.len()
    }

    /// Waits until it has `n` connections.
    ///
    /// # Panics
    /// When that does not happen, with those that are connected.
    pub async fn wait_until_connections(&self, n: usize) {
        let what = format!("{n} connections to {}", self.name);
        self.wait(&what, |sessions| sessions.len() == n).await;
    }

    /// The texts of the running queries.
    pub async fn running_queries(&self) -> Vec<String> {
        running(self.sessions().await)
    }

    /// Waits until `n` queries run in it.
    ///
    /// # Panics
    /// When that does not happen, with those that are connected.
    pub async fn wait_until_running(&self, n: usize) {
        let what = format!("{n} running queries in {}", self.name);
        let count =
            |sessions: &[Session]| sessions.iter().filter(|session| session.running).count();
        self.wait(&what, |sessions| count(sessions) == n).await;
    }

    /// Terminates all its connections on the server, like a failover or an administrator; returns their number.
    ///
    /// # Panics
    /// If the server does not reply.
    pub async fn terminate_connections(&self) -> usize {
        let mut watch = self.observer.watch().await;
        let sessions = watch.sessions(Some(&self.name)).await;
        for session in &sessions {
            watch.terminate(session.id).await;
        }
        sessions.len()
    }

    async fn wait(&self, what: &str, is_there: impl Fn(&[Session]) -> bool + Send) {
        self.observer
            .watch()
            .await
            .until(what, Some(&self.name), is_there)
            .await;
    }
}

/// A client's session on the server.
#[derive(Clone)]
pub struct Session {
    /// The server's id: PostgreSQL's process id, MariaDB's connection id.
    pub id: i64,
    /// The user who logged in.
    pub user: String,
    /// The database it is in, empty if in none.
    pub database: String,
    /// The server's name of its state: `idle in transaction`, `Sleep` ...
    pub state: String,
    /// The running query, or with PostgreSQL the last one.
    pub query: String,
    /// Whether that query still runs.
    pub running: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id,
            user,
            database,
            state,
            query,
            ..
        } = self;
        write!(f, "#{id} {user}@{database} [{state}] {query}")
    }
}

pub(crate) fn running(sessions: Vec<Session>) -> Vec<String> {
    let running = sessions.into_iter().filter(|session| session.running);
    running.map(|session| session.query).collect()
}

/// How to observe a server: as a separate user that counts exclude and that has reserved connections, without password
/// and TLS, which cost time.
#[derive(Clone, Debug)]
pub(crate) enum Observer {
    Postgres(PgConnectOptions),
    MariaDb(MySqlConnectOptions),
}

impl Observer {
    pub(crate) async fn watch(&self) -> Watch {
        match self {
            Self::Postgres(options) => Watch::Postgres(connect(options).await),
            Self::MariaDb(options) => Watch::MariaDb(connect(options).await),
        }
    }
}

pub(crate) async fn connect<O: ConnectOptions<Connection: Sized>>(options: &O) -> O::Connection {
    let patience = Patience::new("one of the places that the test server keeps for observers");
    loop {
        match options.connect().await {
            Ok(connection) => return connection,
            // Closing observers may still hold the reserved connections.
            Err(error) if is_full(&error) => patience.pause(&error).await,
            Err(error) => panic!("the test server does not let its observer in: {error}"),
        }
    }
}

fn is_full(error: &sqlx::Error) -> bool {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some("53300" | "08004"))
}

/// An observer's connection.
pub(crate) enum Watch {
    Postgres(PgConnection),
    MariaDb(MySqlConnection),
}

type Row = (i64, String, String, String, String, bool);

const POSTGRES_SESSIONS: &str = "
    select pid::int8, coalesce(usename, ''), coalesce(datname, ''), coalesce(state, 'starting'), query,
        coalesce(state in ('active', 'fastpath function call'), false)
    from pg_stat_activity
    where backend_type = 'client backend' and usename is distinct from 'observer' and ($1::text is null or datname = $1)
    order by pid";

const MARIADB_SESSIONS: &str = "
    select id, user, coalesce(db, ''), command, coalesce(info, ''), info is not null and command <> 'Killed'
    from information_schema.processlist
    where user not in ('observer', 'system user', 'event_scheduler') and (? is null or db = ?)
    order by id";

impl Watch {
    /// All sessions in `database`, or on the server.
    pub(crate) async fn sessions(&mut self, database: Option<&str>) -> Vec<Session> {
        let rows = match self {
            Self::Postgres(connection) => {
                let query = sqlx::query_as::<_, Row>(POSTGRES_SESSIONS).bind(database);
                query.fetch_all(connection).await
            }
            Self::MariaDb(connection) => {
                let query = sqlx::query_as::<_, Row>(MARIADB_SESSIONS)
                    .bind(database)
                    .bind(database);
                query.fetch_all(connection).await
            }
        };
        let rows = rows
            .unwrap_or_else(|error| panic!("the test server does not list its sessions: {error}"));
        let session = |(id, user, database, state, query, running)| Session {
            id,
            user,
            database,
            state,
            query,
            running,
        };
        rows.into_iter().map(session).collect()
    }

    /// Waits until the sessions match.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        database: Option<&str>,
        is_there: impl Fn(&[Session]) -> bool + Send,
    ) {
        let patience = Patience::new(what);
        loop {
            let seen = self.sessions(database).await;
            if is_there(&seen) {
                return;
            }
            patience.pause(&seen).await;
        }
    }

    async fn terminate(&mut self, id: i64) {
        // A session that has already ended is fine: PostgreSQL returns false, MariaDB an error.
        let done = match self {
            Self::Postgres(connection) => {
                let query = sqlx::query("select pg_terminate_backend($1::int4)").bind(id);
                query.execute(connection).await.map(drop)
            }
            Self::MariaDb(connection) => {
                let query = sqlx::query("kill connection ?").bind(id);
                query.execute(connection).await.map(drop)
            }
        };
        if let Err(sqlx::Error::Io(error)) = done {
            panic!("the test server went away: {error}");
        }
    }

    pub(crate) async fn execute(&mut self, sql: String) {
        let sql = sqlx::raw_sql(sqlx::AssertSqlSafe(sql));
        let done = match self {
            Self::Postgres(connection) => sql.execute(connection).await.map(drop),
            Self::MariaDb(connection) => sql.execute(connection).await.map(drop),
        };
        done.unwrap_or_else(|error| panic!("the test server refuses its observer: {error}"));
    }

    pub(crate) async fn close(self) {
        // The server also ends the session when the socket is closed.
        let _ = match self {
            Self::Postgres(connection) => connection.close().await,
            Self::MariaDb(connection) => connection.close().await,
        };
    }
}
