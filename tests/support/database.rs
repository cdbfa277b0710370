//! One database on a test server, and who is connected to it.

use std::fmt;

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};

use crate::wait::Patience;

/// A database of its own for one test, on a server that others may use at the same time.
///
/// It goes when its server goes.
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

    /// Its URL, with user and password, without TLS. It has a query already: more parameters follow with `&`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its URL with TLS, and the server's certificate verified.
    #[must_use]
    pub fn tls_url(&self) -> &str {
        &self.tls_url
    }

    /// Who is connected to it now.
    ///
    /// # Panics
    /// When the server does not answer.
    pub async fn sessions(&self) -> Vec<Session> {
        self.observer.watch().await.sessions(Some(&self.name)).await
    }

    /// How many are connected to it now.
    ///
    /// A connection that is still logging in, or that the server has not noticed to be closed, may be missing or counted:
    /// a test that wants to see a number come true uses [`wait_until_connections`](Self::wait_until_connections).
    pub async fn connections(&self) -> usize {
        self.sessions().await.len()
    }

    /// Waits until `n` are connected to it.
    ///
    /// # Panics
    /// When that does not happen, with those that are connected.
    pub async fn wait_until_connections(&self, n: usize) {
        let what = format!("{n} connections to {}", self.name);
        self.wait(&what, |sessions| sessions.len() == n).await;
    }

    /// The texts of the queries that run in it now.
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

    /// Ends all its connections from the server's side, as a failover or an administrator does; returns how many.
    ///
    /// # Panics
    /// When the server does not answer.
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

/// One client's connection, as the server sees it.
#[derive(Clone)]
pub struct Session {
    /// The server's number for it: PostgreSQL's process, MariaDB's connection.
    pub id: i64,
    /// The user who logged in.
    pub user: String,
    /// The database it is in, empty if in none.
    pub database: String,
    /// The server's word for what it does: `idle in transaction`, `Sleep` ...
    pub state: String,
    /// The query that runs, or with PostgreSQL the one that ran last.
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

/// How to look at a server without being seen: by a user of its own, whom no count includes and for whom places are kept,
/// without passwords and TLS, which cost time.
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
            // Observers that are about to leave may still hold the places kept for them.
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

/// One observing connection.
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

    /// Waits until the sessions are as they should be.
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
        // A session that has gone by itself meanwhile is what was wanted: PostgreSQL says false, MariaDB an error.
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
        // The server closes it too when the socket goes.
        let _ = match self {
            Self::Postgres(connection) => connection.close().await,
            Self::MariaDb(connection) => connection.close().await,
        };
    }
}
