//! What live servers have in common, whichever database they serve.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::database::{Database, Observer, Session, running};
use crate::guarded::Server;

/// A database server on a loopback port: what [`Postgres`](crate::Postgres) and [`MariaDb`](crate::MariaDb) dereference to.
///
/// It ends with its folder when it is dropped, or with the process whatever ends that.
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

    /// The server's certificate, which is its own root.
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

    /// Who is connected to the server now, observers apart.
    ///
    /// # Panics
    /// When the server does not answer.
    pub async fn sessions(&self) -> Vec<Session> {
        self.observer.watch().await.sessions(None).await
    }

    /// How many are connected to the server now, observers apart.
    pub async fn connections(&self) -> usize {
        self.sessions().await.len()
    }

    /// Waits until `n` are connected to the server, observers apart.
    ///
    /// # Panics
    /// When that does not happen, with those that are connected.
    pub async fn wait_until_connections(&self, n: usize) {
        let mut watch = self.observer.watch().await;
        let what = format!("{n} connections to {}", self.product);
        watch.until(&what, None, |seen| seen.len() == n).await;
    }

    /// The texts of the queries that run on the server now.
    pub async fn running_queries(&self) -> Vec<String> {
        running(self.sessions().await)
    }

    /// A name that no database here has yet.
    pub(crate) fn fresh_name(&self) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed) + 1;
        format!("test_{number}")
    }

    /// The database `name` at `url`, to which these parameters are added for its two URLs.
    pub(crate) fn database(&self, name: &str, url: &str, plain: &str, tls: &str) -> Database {
        Database::new(
            name.to_owned(),
            format!("{url}?{plain}"),
            format!("{url}?{tls}{}", self.certificate.display()),
            self.observer.clone(),
        )
    }

    /// Runs a statement as the observer, who may do everything.
    pub(crate) async fn execute(&self, sql: String) {
        let mut observer = self.observer.watch().await;
        observer.execute(sql).await;
        observer.close().await;
    }
}
