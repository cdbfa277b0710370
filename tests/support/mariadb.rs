//! Live MariaDB servers.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::ops::Deref;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use sqlx::MySqlConnection;
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};

use crate::database::{Database, Observer, connect};
use crate::guarded::{EndWith, Workplace};
use crate::ports::free_port;
use crate::programs::Programs;
use crate::server::DatabaseServer;
use crate::tls::Certificate;
use crate::turn;
use crate::wait::on_any_free_port;

const PROGRAMS: Programs = Programs {
    names: &["mariadb-install-db", "mariadbd"],
    folders: &[
        "/usr/bin",
        "/usr/sbin",
        "/usr/libexec",
        "/opt/homebrew/opt/mariadb/bin",
        "/usr/local/opt/mariadb/bin",
    ],
    install: "`apt-get install mariadb-server`, or on macOS `brew install mariadb`",
};

/// Settings for temporary data: small files and no syncing. The installation needs them, too.
const SETTINGS: &[(&str, &str)] = &[
    ("debug-no-sync", "ON"),
    ("innodb-buffer-pool-size", "8M"),
    ("innodb-doublewrite", "OFF"),
    ("innodb-flush-log-at-trx-commit", "0"),
    ("innodb-log-file-size", "4M"),
    ("performance-schema", "OFF"),
    ("skip-log-bin", "ON"),
    ("skip-name-resolve", "ON"),
];

/// The MariaDB server of this test process, started on first use.
///
/// # Panics
/// When MariaDB is not installed, with the command that installs it, or does not start, with its log.
pub fn mariadb() -> &'static MariaDb {
    static SHARED: OnceLock<MariaDb> = OnceLock::new();
    turn::beside();
    SHARED.get_or_init(|| MariaDb::builder().start())
}

/// A MariaDB server on a loopback port, with passwords and TLS.
///
/// The server and its directory are removed when it is dropped or the process ends.
#[derive(Debug)]
pub struct MariaDb {
    server: DatabaseServer,
    admin: MySqlConnectOptions,
}

impl Deref for MariaDb {
    type Target = DatabaseServer;

    fn deref(&self) -> &DatabaseServer {
        &self.server
    }
}

impl MariaDb {
    /// The user of the URLs, with all privileges on the databases of the tests only.
    pub const USER: &str = "app";

    /// The password of that user, easy to find in output that must not contain it.
    pub const PASSWORD: &str = "s3cret-maria";

    /// A separate server, for a test that needs other settings or stops the server.
    pub fn builder() -> MariaDbBuilder {
        MariaDbBuilder {
            settings: Vec::new(),
        }
    }

    /// The URL of the shared database `app`; see [`Database::url`].
    #[must_use]
    pub fn url(&self) -> String {
        self.database("app").url().to_owned()
    }

    /// A connection with all privileges that is not counted, not even in `max-connections`.
    ///
    /// # Panics
    /// If the server does not reply.
    pub async fn admin(&self) -> MySqlConnection {
        connect(&self.admin).await
    }

    /// An empty database on which [`USER`](Self::USER) has all privileges.
    ///
    /// # Panics
    /// If the server does not reply.
    pub async fn fresh_database(&self) -> Database {
        let database = self.database(&self.server.fresh_name());
        let sql = format!("create database {}", database.name());
        self.server.execute(sql).await;
        database
    }

    fn database(&self, name: &str) -> Database {
        let (user, password, port) = (Self::USER, Self::PASSWORD, self.port());
        let url = format!("mysql://{user}:{password}@127.0.0.1:{port}/{name}");
        let tls = "ssl-mode=VERIFY_IDENTITY&ssl-ca=";
        self.server.database(name, &url, "ssl-mode=DISABLED", tls)
    }
}

/// Settings of a separate MariaDB server.
#[derive(Clone, Debug)]
#[must_use = "a builder starts nothing until `start` is called"]
pub struct MariaDbBuilder {
    settings: Vec<(String, String)>,
}

impl MariaDbBuilder {
    /// Sets a server option, such as `max-connections`, whose minimum is 10. Observers are not counted.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Starts the server, and returns when it accepts connections.
    ///
    /// # Panics
    /// When MariaDB is not installed, with the command that installs it, or does not start, with its log.
    #[must_use]
    pub fn start(self) -> MariaDb {
        turn::beside();
        on_any_free_port(free_port, |port| self.start_on(port))
    }

    fn start_on(&self, port: u16) -> Result<MariaDb, String> {
        let [install, mariadbd] = PROGRAMS.find();
        let workplace = Workplace::create("mariadb");
        let folder = workplace.path().to_path_buf();

        let mut common: Vec<OsString> = vec![
            "--no-defaults".into(),
            option("datadir", folder.join("data").display()),
        ];
        common.extend(SETTINGS.iter().map(|(name, value)| option(name, value)));

        let mut arguments = common.clone();
        // `force` skips resolving the host's name, which may take long and is not needed.
        arguments.extend(
            [
                "--force",
                "--skip-test-db",
                "--auth-root-authentication-method=normal",
            ]
            .map(OsString::from),
        );
        workplace.run(&install, arguments)?;

        let tls = Certificate::create_in(&folder);
        workplace.hand_over(&tls.certificate);
        workplace.hand_over(&tls.key);
        let first_sql = folder.join("first.sql");
        let (user, password) = (MariaDb::USER, MariaDb::PASSWORD);
        let sql = format!(
            "create database app;\n\
             create user observer@'127.0.0.1';\n\
             grant all on *.* to observer@'127.0.0.1';\n\
             create user {user}@'127.0.0.1' identified by '{password}';\n\
             grant all on app.* to {user}@'127.0.0.1';\n\
             grant all on `test\\_%`.* to {user}@'127.0.0.1';\n"
        );
        fs::write(&first_sql, sql).expect("room for a file of SQL");
        workplace.hand_over(&first_sql);

        let socket = folder.join("socket");
        // Connections to this port are counted separately, so that observers work on a full server.
        let admin_port = free_port();
        let mut arguments = common;
        arguments.extend([
            option("init-file", first_sql.display()),
            option("bind-address", "127.0.0.1"),
            option("port", port),
            option("extra-port", admin_port),
            option("extra-max-connections", 100),
            option("socket", socket.display()),
            option("pid-file", folder.join("pid").display()),
            option("ssl-cert", tls.certificate.display()),
            option("ssl-key", tls.key.display()),
        ]);
        arguments.extend(
            self.settings
                .iter()
                .map(|(name, value)| option(name, value)),
        );
        let server = workplace.serve(EndWith::Kill, &mariadbd, arguments, || greets(&socket))?;
        let admin = MySqlConnectOptions::new()
            .host("127.0.0.1")
            .port(admin_port)
            .username("observer")
            .ssl_mode(MySqlSslMode::Disabled);
        let observer = Observer::MariaDb(admin.clone());
        let certificate = tls.certificate;
        Ok(MariaDb {
            server: DatabaseServer::new("MariaDB", server, port, certificate, observer),
            admin,
        })
    }
}

fn option(name: &str, value: impl std::fmt::Display) -> OsString {
    format!("--{name}={value}").into()
}

/// Whether the server sends the first packet of a handshake: it accepts connections.
fn greets(socket: &Path) -> bool {
    let greeting = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.read(&mut [0; 1])
    };
    greeting().is_ok_and(|bytes| bytes == 1)
}
