//! PgBouncer in front of a PostgreSQL server.

use std::fs;
use std::net::TcpStream;

use crate::database::Database;
use crate::guarded::{EndWith, Server, Workplace};
use crate::ports::free_port;
use crate::postgres::Postgres;
use crate::programs::Programs;
use crate::wait::on_any_free_port;

/// Version and mode of PgBouncer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooler {
    /// Debian 12's 1.18, without support for prepared statements.
    Plain,
    /// Debian 13's 1.24, with `max_prepared_statements`.
    Tracking,
    /// Debian 12's in session mode, for clients that do not expect a pooler.
    Session,
    /// Debian 12's in statement mode, which does not allow transactions.
    Statements,
}

const PLAIN: Programs = Programs {
    names: &["pgbouncer"],
    folders: &["/usr/sbin", "/opt/homebrew/opt/pgbouncer/bin"],
    install: "`apt-get install pgbouncer`",
};
const TRACKING: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../target/pgbouncer-13/bin/pgbouncer"
);

/// A PgBouncer on a loopback port. It is stopped when dropped.
#[derive(Debug)]
pub struct PgBouncer {
    /// `None` only during a restart.
    process: Option<Server>,
    port: u16,
    start: Start,
}

#[derive(Clone, Copy, Debug)]
struct Start {
    pooler: Pooler,
    server: u16,
    servers: usize,
    clients: usize,
}

impl PgBouncer {
    /// Starts one with `servers` server connections and up to `clients` client connections.
    ///
    /// # Panics
    /// When it is not installed, with the command that installs it, or does not start, with its log.
    #[must_use]
    pub fn start(pooler: Pooler, server: &Postgres, servers: usize, clients: usize) -> Self {
        let start = Start {
            pooler,
            server: server.port(),
            servers,
            clients,
        };
        on_any_free_port(free_port, |port| {
            Ok(Self {
                process: Some(start.on(port)?),
                port,
                start,
            })
        })
    }

    /// Restarts it on the same port: every connection is lost.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        drop(self.process.take());
        let process = self.start.on(self.port).expect("starts where it was");
        self.process = Some(process);
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of `database` through it.
    #[must_use]
    pub fn url(&self, database: &Database) -> String {
        let (user, password) = (Postgres::USER, Postgres::PASSWORD);
        let (port, name) = (self.port, database.name());
        format!("postgres://{user}:{password}@127.0.0.1:{port}/{name}?sslmode=disable")
    }
}

impl Start {
    fn on(self, port: u16) -> Result<Server, String> {
        let Self {
            pooler,
            server,
            servers,
            clients,
        } = self;
        let (program, more) = match pooler {
            Pooler::Plain => {
                let [program] = PLAIN.find();
                (program, "pool_mode = transaction\n")
            }
            Pooler::Statements => {
                let [program] = PLAIN.find();
                (program, "pool_mode = statement\n")
            }
            Pooler::Session => {
                let [program] = PLAIN.find();
                let lenient =
                    "pool_mode = session\nignore_startup_parameters = extra_float_digits\n";
                (program, lenient)
            }
            Pooler::Tracking => {
                let is_there = fs::exists(TRACKING).is_ok_and(|there| there);
                assert!(
                    is_there,
                    "these tests need {TRACKING}: run tests/get-pgbouncer"
                );
                (
                    TRACKING.into(),
                    "pool_mode = transaction\nmax_prepared_statements = 200\n",
                )
            }
        };
        let workplace = Workplace::create("pgbouncer");
        let folder = workplace.path().to_path_buf();
        let (user, password) = (Postgres::USER, Postgres::PASSWORD);
        let users = folder.join("users");
        fs::write(&users, format!("\"{user}\" \"{password}\"\n")).expect("room for a user");
        let settings = folder.join("settings");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {users}\n\
             default_pool_size = {servers}\nmax_client_conn = {clients}\nlog_connections = 0\nlog_disconnections = 0\n\
             {more}",
            users = users.display(),
        );
        fs::write(&settings, text).expect("room for settings");
        workplace.hand_over(&users);
        workplace.hand_over(&settings);
        let is_ready = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        workplace.serve(EndWith::Kill, &program, [&settings], is_ready)
    }
}
