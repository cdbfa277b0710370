//! Live MongoDB servers: a real `mongod` if there is one, otherwise SecantusDB, which implements its protocol.

mod relay;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use db_handler::mongodb::Client;
use db_handler::mongodb::bson::{Bson, Document, doc};
use db_handler::mongodb::options::{ClientOptions, ServerMonitoringMode};

use crate::guarded::{EndWith, Server, Workplace};
use crate::ports::free_port;
use crate::tls::Certificate;
use crate::turn;
use crate::wait::{Patience, block_on, on_any_free_port};

pub use relay::MongoRelay;

/// Runs SecantusDB with one user until it is terminated.
const LAUNCH: &str = include_str!("secantusdb.py");

/// The directory that `tests/run` installs into: its name ends with the version.
const FOLDER: &str = "secantusdb-0.7.0b3";

/// The MongoDB server of this test process, started on first use.
///
/// # Panics
/// When there is neither a `mongod` nor SecantusDB, with the command that installs it, or when it does not start.
pub fn mongodb() -> &'static MongoDb {
    static SHARED: OnceLock<MongoDb> = OnceLock::new();
    turn::beside();
    SHARED.get_or_init(|| MongoDb::start(false))
}

/// A server on a loopback port, with SCRAM passwords.
///
/// The server and its directory are removed when it is dropped or the process ends.
#[derive(Debug)]
pub struct MongoDb {
    server: Server,
    product: &'static str,
    port: u16,
    certificate: Option<PathBuf>,
    databases: AtomicUsize,
}

/// The server's own count of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// Open connections, without the observer's.
    pub current: i64,
    /// Connections opened so far, with the observer's.
    pub created: i64,
    /// Messages received so far, with the observer's.
    pub requests: i64,
}

enum Program {
    Mongod(PathBuf),
    Secantus(PathBuf),
}

impl MongoDb {
    /// The user of the URLs, with all privileges.
    pub const USER: &str = "app";

    /// The password of that user, easy to find in output that must not contain it.
    pub const PASSWORD: &str = "s3cret-mongo";

    /// A separate server, with or without TLS.
    ///
    /// # Panics
    /// When there is neither a `mongod` nor SecantusDB, with the command that installs it, or when it does not start.
    #[must_use]
    pub fn start(tls: bool) -> Self {
        turn::beside();
        on_any_free_port(free_port, |port| Self::start_on(port, tls))
    }

    fn start_on(port: u16, tls: bool) -> Result<Self, String> {
        // Both run as root, and SecantusDB may be installed where only root can read it.
        let workplace = Workplace::create_for_us("mongodb");
        let folder = workplace.path().to_path_buf();
        fs::create_dir(folder.join("data")).expect("room for the data");
        let tls = tls.then(|| Certificate::create_in(&folder));
        let (product, program, arguments, ready) = match Program::find() {
            Program::Mongod(mongod) => {
                let arguments = mongod_arguments(&folder, port, tls.as_ref());
                ("mongod", mongod, arguments, "Waiting for connections")
            }
            Program::Secantus(python) => {
                let arguments = secantus_arguments(&folder, port, tls.as_ref());
                ("SecantusDB", python, arguments, "READY")
            }
        };
        let log = folder.join("log");
        let is_ready = || fs::read(&log).is_ok_and(|log| contains(&log, ready.as_bytes()));
        let server = workplace.serve(EndWith::Kill, &program, arguments, is_ready)?;
        let server = Self {
            server,
            product,
            port,
            certificate: tls.map(|tls| tls.certificate),
            databases: AtomicUsize::new(0),
        };
        if product == "mongod" {
            block_on(server.create_user());
        }
        Ok(server)
    }

    /// `mongod` or `SecantusDB`, to be named with every measurement.
    #[must_use]
    pub fn product(&self) -> &'static str {
        self.product
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's self-signed certificate; `None` without TLS.
    #[must_use]
    pub fn certificate(&self) -> Option<&Path> {
        self.certificate.as_deref()
    }

    /// Everything that the server has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// The folder of the server, with its data and its log.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.server.folder()
    }

    /// The URL of `database`. It has a query: append parameters with `&`.
    ///
    /// It has `directConnection`: otherwise the driver would bypass a proxy and connect to the address that the server
    /// reports.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        self.url_of(&format!("{}:{}@", Self::USER, Self::PASSWORD), database)
    }

    /// The URL of a database that no test has used yet.
    #[must_use]
    pub fn fresh_url(&self) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed) + 1;
        self.url(&format!("test_{number}"))
    }

    fn url_of(&self, user: &str, database: &str) -> String {
        let tls = self.certificate().map_or_else(String::new, |file| {
            format!("&tls=true&tlsCAFile={}", file.display())
        });
        format!(
            "mongodb://{user}127.0.0.1:{}/{database}?authSource=admin&directConnection=true{tls}",
            self.port
        )
    }

    /// Starts observing the server.
    ///
    /// # Panics
    /// If the server does not reply.
    pub async fn watch(&self) -> MongoWatch {
        MongoWatch::connect(&self.url("admin")).await
    }

    /// On a `mongod` without users, a local client may create the first one.
    async fn create_user(&self) {
        let nobody = MongoWatch::connect(&self.url_of("", "admin")).await;
        let command = doc! { "createUser": Self::USER, "pwd": Self::PASSWORD, "roles": ["root"] };
        nobody.run(command).await;
        nobody.close().await;
    }
}

/// Observes a server through a separate client with two connections, which `current` excludes.
#[derive(Debug)]
pub struct MongoWatch {
    client: Client,
}

impl MongoWatch {
    /// The observer's own connections: one for monitoring, one for commands.
    const OWN: i64 = 2;

    async fn connect(url: &str) -> Self {
        let mut options = ClientOptions::parse(url)
            .await
            .expect("a URL of the tests' own");
        options.app_name = Some("observer".into());
        options.max_pool_size = Some(1);
        options.server_selection_timeout = Some(Duration::from_secs(10));
        options.server_monitoring_mode = Some(ServerMonitoringMode::Poll);
        // Heartbeats would be counted as messages.
        options.heartbeat_freq = Some(Duration::from_secs(600));
        let client = Client::with_options(options).expect("options of the tests' own");
        let watch = Self { client };
        watch.run(doc! { "ping": 1 }).await;
        watch
    }

    /// The observer's client, with all privileges.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Runs a command on the database `admin`.
    ///
    /// # Panics
    /// If the server rejects it.
    pub async fn run(&self, command: Document) -> Document {
        self.client
            .database("admin")
            .run_command(command.clone())
            .await
            .unwrap_or_else(|error| panic!("the test server refuses {command}: {error}"))
    }

    /// The server's own count of connections.
    ///
    /// # Panics
    /// If the reply is not MongoDB's.
    pub async fn connections(&self) -> Connections {
        let status = self.run(doc! { "serverStatus": 1 }).await;
        let number = |section: &str, name: &str| {
            let value = status
                .get_document(section)
                .ok()
                .and_then(|it| it.get(name));
            match value {
                Some(Bson::Int32(number)) => i64::from(*number),
                Some(Bson::Int64(number)) => *number,
                other => panic!("`serverStatus` says {other:?} for {section}.{name}"),
            }
        };
        Connections {
            current: number("connections", "current") - Self::OWN,
            created: number("connections", "totalCreated"),
            requests: number("network", "numRequests"),
        }
    }

    /// Waits until `n` connections are open, without the observer's.
    ///
    /// # Panics
    /// When that does not happen.
    pub async fn wait_until_connections(&self, n: i64) {
        let what = format!("{n} connections");
        let patience = Patience::new(&what);
        loop {
            let seen = self.connections().await;
            if seen.current == n {
                return;
            }
            patience.pause(&seen).await;
        }
    }

    /// The metadata of connected clients that have an application name, once per connection.
    ///
    /// # Panics
    /// If the server does not reply.
    pub async fn clients(&self) -> Vec<Document> {
        let answer = self.run(doc! { "currentOp": 1, "$all": true }).await;
        let operations = answer.get_array("inprog").expect("a list");
        operations
            .iter()
            .filter_map(|operation| operation.as_document()?.get_document("clientMetadata").ok())
            .filter(|client| {
                let application = client.get_document("application");
                application
                    .and_then(|it| it.get_str("name"))
                    .is_ok_and(|name| name != "observer")
            })
            .cloned()
            .collect()
    }

    /// Stops observing.
    pub async fn close(self) {
        self.client.shutdown().immediate(true).await;
    }
}

impl Program {
    fn find() -> Self {
        if let Some(mongod) = env::var_os("MONGOD").filter(|path| !path.is_empty()) {
            return Self::Mongod(mongod.into());
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let mut folders = env::split_paths(&path);
        if let Some(mongod) = folders
            .by_ref()
            .map(|folder| folder.join("mongod"))
            .find(|file| file.is_file())
        {
            return Self::Mongod(mongod);
        }
        let folder = target_folder().join(FOLDER);
        let python = folder.join("bin/python");
        assert!(
            python.is_file(),
            "these tests need a MongoDB: set MONGOD to a `mongod`, or install what stands in for it with `tests/run`, or with `python3 -m venv {folder} && {folder}/bin/pip install {}`",
            FOLDER.replace('-', "=="),
            folder = folder.display(),
        );
        Self::Secantus(python)
    }
}

/// The target directory: a test binary is in `target/<profile>/deps`.
fn target_folder() -> PathBuf {
    let test = env::current_exe().expect("the path of this test binary");
    let profile = test
        .ancestors()
        .find(|folder| folder.join("deps").is_dir())
        .expect("a binary lies in target/<profile>, or below it");
    profile
        .parent()
        .expect("the profile's folder")
        .to_path_buf()
}

fn mongod_arguments(folder: &Path, port: u16, tls: Option<&Certificate>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = ["--auth", "--bind_ip", "127.0.0.1", "--port"]
        .map(OsString::from)
        .into();
    arguments.extend([
        port.to_string().into(),
        "--dbpath".into(),
        folder.join("data").into(),
        "--setParameter".into(),
        "enableTestCommands=1".into(),
    ]);
    if let Some(tls) = tls {
        // `mongod` requires both in one file.
        let both = folder.join("server.pem");
        let text = [&tls.certificate, &tls.key]
            .map(|file| fs::read_to_string(file).expect("the certificate just made"));
        fs::write(&both, text.concat()).expect("room for the certificate");
        arguments.extend([
            "--tlsMode".into(),
            "requireTLS".into(),
            "--tlsCertificateKeyFile".into(),
            both.into(),
        ]);
    }
    arguments
}

fn secantus_arguments(folder: &Path, port: u16, tls: Option<&Certificate>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec![
        "-c".into(),
        LAUNCH.into(),
        port.to_string().into(),
        folder.join("data").into(),
        MongoDb::USER.into(),
        MongoDb::PASSWORD.into(),
    ];
    if let Some(tls) = tls {
        arguments.extend([tls.certificate.clone().into(), tls.key.clone().into()]);
    }
    arguments
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}
