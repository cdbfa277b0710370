//! Common parts of all live database servers.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::database::{Database, Observer, Session, running};
use crate::guarded::Server;

/// A database server on a loopback port. [`Postgres`](crate::Postgres) and [`MariaDb`](crate::MariaDb) dereference to
/// it.
///
/// The server and its directory are removed when it is dropped or the process ends.
#[derive(Debug)]
pub struct DatabaseServer {
    product: &'static str,
    server: Server,
    port: u16,
    certificate: PathBuf,
    observer: Observer,
    databases: AtomicUsize,
}

impl DatabaseServer {
    pub(crate) fn new(
        product: &'static str,
        server: Server,
        port: u16,
        certificate: PathBuf,
        observer: Observer,
    ) -> Self {
        Self {
            product,
            server,
            port,
            certificate,
            observer,
            databases: AtomicUsize::new(0),
        }
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's self-signed certificate.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Everything that the server has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// The folder of the server, with its data, its socket and its log.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.server.folder()
    }

    /// The current sessions on the server, without observers.
    ///
    /// # Panics
    /// If the server does not reply.
    pub async fn sessions(&self) -> Vec<Session> {
        self.observer.watch().await.sessions(None).await
    }

    /// The number of connections to the server, without observers.
    pub async fn connections(&self) -> usize {
        self.sessions().await.len()
    }

    /// Waits until the server has `n` connections, without observers.
    ///
    /// # Panics
    /// When that does not happen, with those that are connected.
    pub async fn wait_until_connections(&self, n: usize) {
        let mut watch = self.observer.watch().await;
        let what = format!("{n} connections to {}", self.product);
        watch.until(&what, None, |seen| seen.len() == n).await;
    }

    /// The texts of the running queries on the server.
    pub async fn running_queries(&self) -> Vec<String> {
        running(self.sessions().await)
    }

    /// An unused database name.
    pub(crate) fn fresh_name(&self) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed) + 1;
        format!("test_{number}")
    }

    /// The database `name` at `url`, with these parameters for its two URLs.
    pub(crate) fn database(&self, name: &str, url: &str, plain: &str, tls: &str) -> Database {
        Database::new(
            name.to_owned(),
            format!("{url}?{plain}"),
            format!("{url}?{tls}{}", self.certificate.display()),
            self.observer.clone(),
        )
    }

    /// Runs a statement as the observer, which has all privileges.
    pub(crate) async fn execute(&self, sql: String) {
        let mut observer = self.observer.watch().await;
        observer.execute(sql).await;
        observer.close().await;
    }
}
