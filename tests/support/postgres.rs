//! Live PostgreSQL servers.

use std::ffi::OsString;
use std::fs;
use std::ops::Deref;
use std::sync::OnceLock;

use sqlx::PgConnection;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::database::{Database, Observer, connect};
use crate::guarded::{EndWith, Workplace};
use crate::ports::free_port;
use crate::programs::Programs;
use crate::server::DatabaseServer;
use crate::tls::Certificate;
use crate::turn;
use crate::wait::on_any_free_port;

const PROGRAMS: Programs = Programs {
    names: &["initdb", "postgres"],
    folders: &[
        "/usr/lib/postgresql/*/bin",
        "/usr/pgsql-*/bin",
        "/opt/homebrew/opt/postgresql@*/bin",
        "/usr/local/opt/postgresql@*/bin",
    ],
    install: "`apt-get install postgresql`, or on macOS `brew install postgresql@17`",
};

/// Settings for temporary data: no syncing, and no background work.
const SETTINGS: &[(&str, &str)] = &[
    ("autovacuum", "off"),
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("max_wal_senders", "0"),
    ("shared_buffers", "16MB"),
    ("synchronous_commit", "off"),
    ("wal_level", "minimal"),
];

/// The server's hash of [`Postgres::PASSWORD`] with 4 iterations. The usual 4,096 take a thousand polls per login,
/// which is seconds on a busy machine.
const PASSWORD_VERIFIER: &str = "SCRAM-SHA-256$4:ZGItaGFuZGxlci10ZXN0cw==$iQPnhG+s9nYazEYWf5D6Ld4yeDKGP6TIpmFbBcz6kLE=:PO2085s0+LboMsP1W5EFTvK2ZT8qqwOzRxAAuCIEqrc=";

/// The PostgreSQL server of this test process, started on first use.
///
/// # Panics
/// When PostgreSQL is not installed, with the command that installs it, or does not start, with its log.
pub fn postgres() -> &'static Postgres {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    turn::beside();
    SHARED.get_or_init(|| Postgres::builder().start())
}

/// A PostgreSQL server on a loopback port, with SCRAM passwords and TLS.
///
/// The server and its directory are removed when it is dropped or the process ends.
#[derive(Debug)]
pub struct Postgres {
    server: DatabaseServer,
    admin: PgConnectOptions,
}

impl Deref for Postgres {
    type Target = DatabaseServer;

    fn deref(&self) -> &DatabaseServer {
        &self.server
    }
}

impl Postgres {
    /// The user of the URLs, which is not a superuser.
    pub const USER: &str = "app";

    /// The password of that user, easy to find in output that must not contain it.
    pub const PASSWORD: &str = "s3cret-pg";

    /// A separate server, for a test that needs other settings or stops the server.
    pub fn builder() -> PostgresBuilder {
        PostgresBuilder {
            settings: Vec::new(),
        }
    }

    /// The URL of the shared database `app`; see [`Database::url`].
    #[must_use]
    pub fn url(&self) -> String {
        self.database("app").url().to_owned()
    }

    /// A superuser connection that is not counted.
    ///
    /// # Panics
    /// If the server does not reply.
    pub async fn admin(&self) -> PgConnection {
        connect(&self.admin).await
    }

    /// An empty database, owned by [`USER`](Self::USER).
    ///
    /// # Panics
    /// If the server does not reply.
    pub async fn fresh_database(&self) -> Database {
        let database = self.database(&self.server.fresh_name());
        self.create(&database).await;
        database
    }

    fn database(&self, name: &str) -> Database {
        let (user, password, port) = (Self::USER, Self::PASSWORD, self.port());
        let url = format!("postgres://{user}:{password}@127.0.0.1:{port}/{name}");
        let tls = "sslmode=verify-full&sslrootcert=";
        self.server.database(name, &url, "sslmode=disable", tls)
    }

    async fn create(&self, database: &Database) {
        let (name, owner) = (database.name(), Self::USER);
        let sql = format!("create database {name} owner {owner}");
        self.server.execute(sql).await;
    }
}

/// Settings of a separate PostgreSQL server.
#[derive(Clone, Debug)]
#[must_use = "a builder starts nothing until `start` is called"]
pub struct PostgresBuilder {
    settings: Vec<(String, String)>,
}

impl PostgresBuilder {
    /// Sets one of `postgresql.conf`'s settings, such as `max_connections`.
    ///
    /// `superuser_reserved_connections` (3) of `max_connections` are for observers, the rest for [`Postgres::USER`].
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Starts the server, and returns when it accepts connections.
    ///
    /// # Panics
    /// When PostgreSQL is not installed, with the command that installs it, or does not start, with its log.
    #[must_use]
    pub fn start(self) -> Postgres {
        turn::beside();
        on_any_free_port(free_port, |port| self.start_on(port))
    }

    fn start_on(&self, port: u16) -> Result<Postgres, String> {
        let [initdb, postgres] = PROGRAMS.find();
        let workplace = Workplace::create("postgres");
        let folder = workplace.path().to_path_buf();
        let data = folder.join("data");

        // `initdb` requires a superuser password if password authentication is enabled; it is never used.
        let password = folder.join("password");
        fs::write(&password, "the observer comes by the socket").expect("room for a password");
        workplace.hand_over(&password);
        let mut arguments: Vec<OsString> = [
            "--no-sync",
            "--no-locale",
            "--encoding=UTF8",
            "--username=observer",
        ]
        .map(OsString::from)
        .into();
        arguments.extend(["--auth-local=trust", "--auth-host=scram-sha-256"].map(OsString::from));
        arguments.extend([
            "--pwfile".into(),
            password.into(),
            "--pgdata".into(),
            data.clone().into(),
        ]);
        workplace.run(&initdb, arguments)?;

        let tls = Certificate::create_in(&folder);
        workplace.hand_over(&tls.certificate);
        workplace.hand_over(&tls.key);
        let mut settings: Vec<(String, String)> = vec![
            ("listen_addresses".into(), "127.0.0.1".into()),
            ("port".into(), port.to_string()),
            (
                "unix_socket_directories".into(),
                folder.display().to_string(),
            ),
            ("ssl".into(), "on".into()),
            (
                "ssl_cert_file".into(),
                tls.certificate.display().to_string(),
            ),
            ("ssl_key_file".into(), tls.key.display().to_string()),
        ];
        settings.extend(
            SETTINGS
                .iter()
                .map(|&(name, value)| (name.into(), value.into())),
        );
        settings.extend_from_slice(&self.settings);
        let mut arguments: Vec<OsString> = vec!["-D".into(), data.clone().into()];
        for (name, value) in settings {
            arguments.extend(["-c".into(), format!("{name}={value}").into()]);
        }
        // `pg_ctl start` also waits for the last line of this file.
        let state = data.join("postmaster.pid");
        let is_ready =
            || fs::read_to_string(&state).is_ok_and(|text| text.trim_end().ends_with("ready"));
        let server = workplace.serve(EndWith::Quit, &postgres, arguments, is_ready)?;

        let admin = PgConnectOptions::new_without_pgpass()
            .socket(&folder)
            .port(port)
            .username("observer")
            .database("postgres")
            .application_name("observer")
            .ssl_mode(PgSslMode::Disable);
        let observer = Observer::Postgres(admin.clone());
        let certificate = tls.certificate;
        let postgres = Postgres {
            server: DatabaseServer::new("PostgreSQL", server, port, certificate, observer),
            admin,
        };
        crate::wait::block_on(async {
            let user = Postgres::USER;
            let sql = format!("create role {user} login password '{PASSWORD_VERIFIER}'");
            postgres.server.execute(sql).await;
            postgres.create(&postgres.database("app")).await;
        });
        Ok(postgres)
    }
}
