//! Observes the server's connections and running queries over time.
//!
//! The observer connects directly to the server, and identifies the function's connections by the ports of the
//! proxies, so that other users of the server and other simulators are not counted.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde::Serialize;
use sqlx::{Connection, MySqlConnection, PgConnection};
use tokio::{task::JoinHandle, time::timeout};

use crate::{
    clock::{Epoch, lock},
    limits::Limits,
};

/// One observation of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Sample {
    /// Milliseconds since the start of the run.
    pub at: f64,
    /// Connections through the simulator's proxies.
    pub connections: usize,
    /// Of these, with a query running.
    pub running: usize,
    /// Of these, idle in a transaction (PostgreSQL).
    pub in_transaction: usize,
    /// All other client connections.
    pub others: usize,
}

/// One session on the server.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) port: Option<u16>,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Idle,
    Running,
    InTransaction,
}

/// The ports of the counted connections.
pub(crate) type Ports = Arc<dyn Fn() -> HashSet<u16> + Send + Sync>;

/// Queries the server at short intervals until it is dropped.
pub(crate) struct Observer {
    samples: Arc<Mutex<Vec<Sample>>>,
    task: JoinHandle<()>,
    url: String,
    limits: Limits,
}

impl Observer {
    /// Returns an error if the server cannot be reached or its kind is unknown.
    pub(crate) async fn start(
        url: &str,
        ports: Ports,
        limits: Limits,
        epoch: Epoch,
    ) -> Result<Self, String> {
        let mut server = Server::connect(url, &limits).await?;
        // The first observation precedes the first process.
        let look = move |sessions: &[Session]| count(sessions, &ports(), epoch.ms(Instant::now()));
        let first = look(&server.sessions(limits.observer_query).await?);
        let samples = Arc::new(Mutex::new(vec![first]));
        let seen = Arc::clone(&samples);
        let task = tokio::spawn(async move {
            // An error ends the observation: the gap is visible in the report.
            while let Ok(sessions) = server.sessions(limits.observer_query).await {
                lock(&seen).push(look(&sessions));
                tokio::time::sleep(limits.observer_interval).await;
            }
        });
        Ok(Self {
            samples,
            task,
            url: url.to_owned(),
            limits,
        })
    }

    pub(crate) fn samples(&self) -> Vec<Sample> {
        lock(&self.samples).clone()
    }

    /// The connections with one of these ports that are left after the drain limit.
    pub(crate) async fn left_behind(&self, ports: &HashSet<u16>) -> Result<Vec<Session>, String> {
        self.remaining(ports, Instant::now() + self.limits.drain)
            .await
    }

    /// The connections with one of these ports that are open now.
    pub(crate) async fn left_behind_now(
        &self,
        ports: &HashSet<u16>,
    ) -> Result<Vec<Session>, String> {
        self.remaining(ports, Instant::now()).await
    }

    async fn remaining(
        &self,
        ports: &HashSet<u16>,
        until: Instant,
    ) -> Result<Vec<Session>, String> {
        let mut server = Server::connect(&self.url, &self.limits).await?;
        loop {
            let sessions = server.sessions(self.limits.observer_query).await?;
            let ours = |session: &Session| session.port.is_some_and(|port| ports.contains(&port));
            let left: Vec<Session> = sessions.into_iter().filter(ours).collect();
            if left.is_empty() || Instant::now() >= until {
                return Ok(left);
            }
            tokio::time::sleep(self.limits.observer_interval).await;
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Session {
    /// Whether a query of it still runs.
    pub(crate) fn is_running(&self) -> bool {
        self.state == State::Running
    }
}

/// Whether there is an observer for this kind of server.
pub(crate) fn is_observable(url: &str) -> bool {
    ["postgres:", "postgresql:", "mysql:", "mariadb:"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
}

fn count(sessions: &[Session], ports: &HashSet<u16>, at: f64) -> Sample {
    let mut sample = Sample {
        at,
        ..Sample::default()
    };
    for session in sessions {
        if session.port.is_some_and(|port| ports.contains(&port)) {
            sample.connections += 1;
            sample.running += usize::from(session.state == State::Running);
            sample.in_transaction += usize::from(session.state == State::InTransaction);
        } else {
            sample.others += 1;
        }
    }
    sample
}

/// The observer's own connection.
enum Server {
    Postgres(PgConnection),
    MySql(MySqlConnection),
}

const POSTGRES: &str = "SELECT client_port, coalesce(state, '') FROM pg_stat_activity \
                        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";

const MYSQL: &str = "SELECT host, command FROM information_schema.processlist \
                     WHERE id <> connection_id() AND command NOT IN ('Daemon', 'Binlog Dump')";

impl Server {
    async fn connect(url: &str, limits: &Limits) -> Result<Self, String> {
        let connect = async {
            if url.starts_with("postgres") {
                PgConnection::connect(url).await.map(Self::Postgres)
            } else {
                MySqlConnection::connect(url).await.map(Self::MySql)
            }
        };
        match timeout(limits.observer_connect, connect).await {
            Ok(Ok(server)) => Ok(server),
            Ok(Err(error)) => Err(format!(
                "the observer cannot connect to the database: {error}"
            )),
            Err(_) => Err("the observer's connection to the database took too long".into()),
        }
    }

    async fn sessions(&mut self, limit: Duration) -> Result<Vec<Session>, String> {
        let query = async {
            match self {
                Self::Postgres(server) => postgres(server).await,
                Self::MySql(server) => mysql(server).await,
            }
        };
        match timeout(limit, query).await {
            Ok(result) => result.map_err(|error| format!("the observer's query: {error}")),
            Err(_) => Err("the observer's query took too long".into()),
        }
    }
}

async fn postgres(server: &mut PgConnection) -> sqlx::Result<Vec<Session>> {
    let rows: Vec<(Option<i32>, String)> = sqlx::query_as(POSTGRES).fetch_all(server).await?;
    let session = |(port, state): (Option<i32>, String)| Session {
        port: port.and_then(|port| u16::try_from(port).ok()),
        state: match state.as_str() {
            "active" => State::Running,
            "idle in transaction" | "idle in transaction (aborted)" => State::InTransaction,
            _ => State::Idle,
        },
    };
    Ok(rows.into_iter().map(session).collect())
}

async fn mysql(server: &mut MySqlConnection) -> sqlx::Result<Vec<Session>> {
    let rows: Vec<(String, String)> = sqlx::query_as(MYSQL).fetch_all(server).await?;
    let session = |(host, command): (String, String)| Session {
        port: host
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok()),
        state: if command == "Sleep" {
            State::Idle
        } else {
            State::Running
        },
    };
    Ok(rows.into_iter().map(session).collect())
}
