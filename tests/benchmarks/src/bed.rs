//! Where it is measured: the servers, the programs, the network.

use sandbox::{Environment, Sandbox};
use serde::{Deserialize, Serialize};
use sqlx::{Connection, MySqlConnection, PgConnection};
use std::{
    error::Error,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};
use support::{MariaDb, Postgres};

use crate::contender::Contender;

/// The server's connections: PostgreSQL's own default, of which it keeps three for the superuser.
pub const MAX_CONNECTIONS: u32 = 100;
/// The rows of the table that the contenders read.
const ITEMS: u32 = 100;
/// The longest init, also where 130 processes start on two cores.
const LONGEST_INIT: Duration = Duration::from_secs(60);

/// What goes wrong here ends the run.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Which database.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Product {
    /// PostgreSQL, with SCRAM passwords.
    Postgres,
    /// MariaDB.
    MariaDb,
}

impl Product {
    /// As the contenders know it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MariaDb => "mariadb",
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "PostgreSQL",
            Self::MariaDb => "MariaDB",
        })
    }
}

/// How the function reaches its database.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Link {
    /// The round-trip time in milliseconds.
    pub rtt_ms: f64,
    /// With TLS, the certificate verified.
    pub tls: bool,
}

impl Link {
    /// Without encryption, and with a round trip of so many milliseconds.
    #[must_use]
    pub const fn plain(rtt_ms: f64) -> Self {
        Self { rtt_ms, tls: false }
    }

    /// The same with TLS.
    #[must_use]
    pub const fn tls(rtt_ms: f64) -> Self {
        Self { rtt_ms, tls: true }
    }

    /// The round-trip time.
    #[must_use]
    pub fn rtt(self) -> Duration {
        Duration::from_secs_f64(self.rtt_ms / 1000.0)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = if self.tls { "TLS" } else { "plain" };
        write!(f, "{} ms round trip, {tls}", self.rtt_ms)
    }
}

/// The programs, built by `run`.
#[derive(Clone, Debug)]
pub struct Bed {
    /// The folder of the Rust programs.
    pub programs: PathBuf,
    /// The folder of the peers, with their `node_modules`.
    pub peers: PathBuf,
    /// The library that forces `TCP_NODELAY`.
    pub nodelay: PathBuf,
    /// The folder of the twins that are started cold.
    cold: PathBuf,
}

impl Bed {
    /// Below the target folder, where `run` puts everything.
    #[must_use]
    pub fn below(target: &Path) -> Self {
        Self {
            programs: target.join("release"),
            peers: target.join("benchmarks/peers"),
            nodelay: target.join("benchmarks/nodelay.so"),
            cold: target.join("benchmarks/cold"),
        }
    }

    /// One of the two smallest functions, built alone.
    #[must_use]
    pub fn twin(&self, name: &str) -> PathBuf {
        let folder = self.cold.join(name).join("release");
        folder.join(format!("cold-{name}"))
    }

    /// A sandbox for a contender.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn sandbox(
        &self,
        contender: &Contender,
        product: Product,
        url: &str,
        rtt: Duration,
        timeout: Duration,
    ) -> Result<Sandbox, Failure> {
        let function = contender.function(product, self, timeout);
        Ok(on_network(Sandbox::new(function), url, rtt, timeout)?)
    }

    /// The same, started.
    ///
    /// # Errors
    /// When the URL is none, or the function does not come up.
    pub async fn start(
        &self,
        contender: &Contender,
        product: Product,
        url: &str,
        rtt: Duration,
        timeout: Duration,
    ) -> Result<Environment, Failure> {
        let sandbox = self.sandbox(contender, product, url, rtt, timeout)?;
        let started = sandbox.start().await;
        Ok(started.map_err(|failure| format!("{}: {failure}", contender.name))?)
    }
}

/// A sandbox with the settings that all contenders share.
///
/// # Errors
/// When the URL is none.
pub fn on_network(
    sandbox: Sandbox,
    url: &str,
    rtt: Duration,
    timeout: Duration,
) -> Result<Sandbox, String> {
    let limits = sandbox::Limits {
        init: LONGEST_INIT,
        ..sandbox::Limits::default()
    };
    sandbox
        .timeout(timeout)
        .limits(limits)
        .rtt(rtt)
        .database("DATABASE_URL", url)
}

/// A running server with the table that is read.
#[derive(Debug)]
pub enum Server {
    /// PostgreSQL.
    Postgres(Postgres),
    /// MariaDB.
    MariaDb(MariaDb),
}

impl Server {
    /// Starts it. Not to be called on a runtime's thread: it has one of its own.
    ///
    /// # Panics
    /// When the server is not installed or does not start.
    #[must_use]
    pub fn start(product: Product) -> Self {
        let most = MAX_CONNECTIONS.to_string();
        match product {
            Product::Postgres => {
                Self::Postgres(Postgres::builder().setting("max_connections", most).start())
            }
            Product::MariaDb => {
                Self::MariaDb(MariaDb::builder().setting("max-connections", most).start())
            }
        }
    }

    /// Which one it is.
    #[must_use]
    pub fn product(&self) -> Product {
        match self {
            Self::Postgres(_) => Product::Postgres,
            Self::MariaDb(_) => Product::MariaDb,
        }
    }

    /// Creates the table that the contenders read.
    ///
    /// # Errors
    /// When the server does not take it.
    pub async fn prepare(&self) -> Result<(), sqlx::Error> {
        let rows: Vec<String> = (1..=ITEMS)
            .map(|id| format!("({id}, 'item number {id}')"))
            .collect();
        let sql = format!(
            "DROP TABLE IF EXISTS items; CREATE TABLE items (id INT PRIMARY KEY, name VARCHAR(40) NOT NULL); INSERT INTO items VALUES {}",
            rows.join(", ")
        );
        let sql = sqlx::raw_sql(sqlx::AssertSqlSafe(sql));
        match self {
            Self::Postgres(server) => {
                let mut connection = PgConnection::connect(&server.url()).await?;
                sql.execute(&mut connection).await?;
                connection.close().await
            }
            Self::MariaDb(server) => {
                let mut connection = MySqlConnection::connect(&server.url()).await?;
                sql.execute(&mut connection).await?;
                connection.close().await
            }
        }
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Postgres(server) => server.port(),
            Self::MariaDb(server) => server.port(),
        }
    }

    /// Waits until nobody is connected.
    ///
    /// # Panics
    /// When somebody stays.
    pub async fn wait_until_empty(&self) {
        match self {
            Self::Postgres(server) => server.wait_until_connections(0).await,
            Self::MariaDb(server) => server.wait_until_connections(0).await,
        }
    }

    /// How many connections are open.
    pub async fn connections(&self) -> usize {
        match self {
            Self::Postgres(server) => server.connections().await,
            Self::MariaDb(server) => server.connections().await,
        }
    }

    /// The URL of its database, with TLS and a verified certificate, or without.
    #[must_use]
    pub fn url(&self, tls: bool) -> String {
        let (url, certificate) = match self {
            Self::Postgres(server) => (server.url(), server.certificate()),
            Self::MariaDb(server) => (server.url(), server.certificate()),
        };
        if !tls {
            return url;
        }
        let certificate = certificate.display();
        match self {
            Self::Postgres(_) => url.replace(
                "sslmode=disable",
                &format!("sslmode=verify-full&sslrootcert={certificate}"),
            ),
            Self::MariaDb(_) => url.replace(
                "ssl-mode=DISABLED",
                &format!("ssl-mode=VERIFY_IDENTITY&ssl-ca={certificate}"),
            ),
        }
    }
}
