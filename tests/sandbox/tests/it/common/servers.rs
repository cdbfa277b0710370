//! Temporary database servers on their own loopback ports, which stop with the test.

use std::{
    net::TcpListener,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Instant,
};

use tempfile::TempDir;

use super::PATIENCE;
use crate::turn;

/// A server that is stopped when it is dropped or the test process ends.
pub struct Server {
    pub url: String,
    keeper: Child,
    _folder: TempDir,
}

impl Server {
    /// PostgreSQL, without a password for the user `app`.
    pub fn postgres() -> Self {
        turn::measures_time();
        let tools = tools("/usr/lib/postgresql", "postgres");
        let folder = folder();
        let data = folder.path().join("data");
        let initdb = [tools.join("initdb").display().to_string()];
        let options = [
            "-D",
            &data.display().to_string(),
            "-U",
            "app",
            "-A",
            "trust",
            "--no-sync",
        ];
        run(initdb.iter().map(String::as_str).chain(options));
        let port = free_port();
        let socket = folder.path().display().to_string();
        let keeper = keep(
            "QUIT",
            &[
                &tools.join("postgres").display().to_string(),
                "-D",
                &data.display().to_string(),
                "-p",
                &port.to_string(),
                "-k",
                &socket,
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "fsync=off",
            ],
        );
        Self {
            url: format!("postgres://app@127.0.0.1:{port}/postgres"),
            keeper,
            _folder: folder,
        }
    }

    /// MariaDB, with a user `root` without a password.
    pub fn mariadb() -> Self {
        turn::measures_time();
        let folder = folder();
        let data = format!("--datadir={}", folder.path().join("data").display());
        std::fs::create_dir(folder.path().join("data")).expect("a folder");
        open_to_nobody(&folder.path().join("data"));
        run([
            "mariadb-install-db",
            &data,
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ]);
        let port = free_port();
        let keeper = keep(
            "KILL",
            &[
                "mariadbd",
                "--no-defaults",
                &data,
                &format!("--port={port}"),
                "--bind-address=127.0.0.1",
                &format!("--socket={}", folder.path().join("socket").display()),
                "--skip-name-resolve",
            ],
        );
        Self {
            url: format!("mysql://root@127.0.0.1:{port}/mysql"),
            keeper,
            _folder: folder,
        }
    }

    /// Waits until it executes a query.
    pub async fn ready(self) -> Self {
        let until = Instant::now() + PATIENCE;
        loop {
            let connected = if self.url.starts_with("postgres") {
                use sqlx::Connection;
                sqlx::PgConnection::connect(&self.url).await.map(drop)
            } else {
                use sqlx::Connection;
                sqlx::MySqlConnection::connect(&self.url).await.map(drop)
            };
            match connected {
                Ok(()) => return self,
                Err(error) if Instant::now() > until => panic!("{}: {error}", self.url),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let until = Instant::now() + PATIENCE;
        while matches!(self.keeper.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

/// A shell that stops the server when its standard input is closed, by us or by our exit. The signal makes this
/// server clean up.
fn keep(signal: &str, server: &[&str]) -> Child {
    let script = r#""$@" </dev/null >/dev/null 2>&1 & server=$!; read -r _; kill -s "$SIGNAL" $server || kill -s KILL $server; wait"#;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, "server"]);
    command.args(as_nobody()).args(server);
    command.env("SIGNAL", signal).process_group(0);
    command.stdin(Stdio::piped());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("a server")
}

fn run<'a>(command: impl IntoIterator<Item = &'a str>) {
    let mut words = as_nobody().into_iter().chain(command);
    let program = words.next().expect("a program");
    let output = Command::new(program)
        .args(words)
        .output()
        .expect("a database server is installed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Neither server runs as root.
fn as_nobody() -> Vec<&'static str> {
    if rustix::process::getuid().is_root() {
        // These programs `exec` the server, so that the killed pid is the server's.
        vec![
            "setpriv",
            "--reuid=nobody",
            "--regid=nogroup",
            "--clear-groups",
        ]
    } else {
        Vec::new()
    }
}

fn folder() -> TempDir {
    let folder = tempfile::Builder::new()
        .prefix("sandbox-db-")
        .tempdir()
        .expect("a folder");
    open_to_nobody(folder.path());
    folder
}

fn open_to_nobody(folder: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).expect("permissions");
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// The program directory of the newest version.
fn tools(root: &str, program: &str) -> PathBuf {
    let versions = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    found.retain(|folder| folder.join(program).exists());
    found.sort();
    found
        .pop()
        .unwrap_or_else(|| panic!("the tests need {program} below {root}"))
}
