//! Opens a resource's connections. All of them are opened here.

pub(super) mod login;
mod monitoring;
pub(super) mod nodelay;
pub(super) mod retry;
pub(super) mod round_trip;
mod url;
pub(super) mod warnings;
mod writers;

use super::{
    connection::OpenConnection,
    driver::{Cancelled, Driver},
    tag::Tag,
};
use crate::{
    config::{CANCEL_CONNECTIONS, Close, Proxy},
    error::Error,
    resource::AcquireContext,
};
use login::{Authenticator, ConnectError};
use monitoring::Monitoring;
use nodelay::with_nodelay;
use round_trip::{RoundTrip, longest_wait};
use sqlx::ConnectOptions;
use std::{
    fmt,
    sync::{Arc, OnceLock, atomic::AtomicU32},
    time::Duration,
};
use tokio::time::{Instant, timeout_at};
use writers::Writer;

/// Opens connections to one address.
pub(super) struct Connector<DB: Driver> {
    login: Authenticator<DB>,
    proxy: Option<Proxy>,
    /// How long this process may send nothing, although it is alive, because it is frozen.
    silence: Duration,
    target: String,
    /// The target with the credentials' host and port, once they are known.
    known_target: OnceLock<String>,
    writer: Writer,
    /// The number of open connections that were opened here.
    open: Arc<AtomicU32>,
    round_trip: RoundTrip,
}

impl<DB: Driver> Connector<DB> {
    /// Reads this parameter's URL.
    pub(super) fn read(acquire: &AcquireContext) -> Result<Self, Error> {
        let login = Authenticator::read(acquire)?;
        let target = login.place();
        Ok(Self {
            writer: Writer::at(acquire, &target),
            target,
            login,
            proxy: acquire.settings().proxy,
            silence: match acquire.settings().close {
                Close::Always => Duration::ZERO,
                _ => acquire.settings().idle,
            },
            known_target: OnceLock::new(),
            open: Arc::default(),
            round_trip: RoundTrip::default(),
        })
    }

    /// Returns the authenticator for a caller that opens connections itself, and that calls
    /// [`init_session`](Self::init_session) for each.
    pub(super) fn login(&self) -> &Authenticator<DB> {
        &self.login
    }

    pub(super) async fn init_session(
        &self,
        connection: &mut DB::Connection,
        options: &DB::Options,
    ) -> Result<DB::Session, sqlx::Error> {
        let setup_sql = self.login.setup_sql();
        // Behind a proxy, a session setting would reach another session, or pin this one.
        let silence = self.proxy.is_none().then_some(self.silence);
        let from = Instant::now();
        let session = DB::init_session(connection, options, setup_sql, silence).await?;
        if !setup_sql.is_empty() {
            self.round_trip.measure(from.elapsed());
        }
        Ok(session)
    }

    /// Host, port and database.
    pub(super) fn target(&self) -> &str {
        self.known_target.get().unwrap_or(&self.target)
    }

    pub(super) fn round_trip(&self) -> &RoundTrip {
        &self.round_trip
    }

    /// Whether the server is a demoted writer, according to the last reset of one of its sessions.
    pub(super) fn is_demoted(&self, session_state: &DB::SessionState) -> bool {
        self.writer.is_demoted(DB::takes_writes(session_state))
    }

    /// The number of open connections that were opened here.
    pub(super) fn count(&self) -> &AtomicU32 {
        &self.open
    }

    /// Turns [`tagged`](Driver::tagged) `options` into those that are sent.
    pub(super) fn sent(&self, options: &DB::Options) -> DB::Options {
        if self.proxy.is_some() {
            return DB::untagged(options);
        }
        let monitored = match monitoring::of(&DB::target(options)) {
            Monitoring::Accepted => DB::monitored(options, self.silence),
            _ => None,
        };
        monitored.unwrap_or_else(|| options.clone())
    }

    /// Whether a statement on each connection has to configure the monitoring, because it is not known yet whether the
    /// server accepts that in the connect options.
    pub(super) fn monitors_by_statement(&self, options: &DB::Options) -> bool {
        self.proxy.is_none() && !monitoring::of(&DB::target(options)).is_known()
    }

    /// Configures the server's monitoring of an open connection.
    pub(super) async fn monitor(&self, connection: &mut DB::Connection, options: &DB::Options) {
        // A failure is harmless: the connection behaves as it would without this crate.
        if let Err(error) = DB::monitor(connection, options, self.silence).await {
            tracing::debug!(target = self.target(), %error, "the server will not notice when this process vanishes");
        }
    }

    /// Finds out whether the server accepts the monitoring in the connect options, unless that is known.
    pub(super) async fn learn_monitoring(&self, acquire: &AcquireContext, options: &DB::Options) {
        let target = DB::target(options);
        if self.proxy.is_some()
            || monitoring::of(&target) != Monitoring::Unknown
            || DB::monitored(options, self.silence).is_none()
        {
            return;
        }
        // Only one try: if there is no time for it now, there will be none later.
        monitoring::record(target, Monitoring::StillUnknown);
        if let Ok(connection) = self.connect(acquire).await {
            connection.close().await;
        }
    }

    /// Opens a connection within the limits of `acquire`. Dropping the future closes the socket.
    pub(super) async fn connect(
        &self,
        acquire: &AcquireContext,
    ) -> Result<OpenConnection<DB>, ConnectError> {
        // Boxed: the future is large, and most invocations do not connect.
        let dialling = self.login.connect(acquire, |options| {
            Box::pin(self.open_session(DB::tagged(options, &Tag::unique())))
        });
        Box::pin(dialling).await
    }

    async fn open_session(&self, options: DB::Options) -> Result<OpenConnection<DB>, sqlx::Error> {
        self.known_target.get_or_init(|| DB::target(&options));
        let mut raw = self.connect_monitored(&options).await?;
        let session = self.init_session(&mut raw, &options).await?;
        let connection = OpenConnection::<DB>::new(raw, session, &self.open);
        Ok(match self.proxy {
            Some(_) => connection.without_reset(),
            None => connection,
        })
    }

    async fn connect_monitored(
        &self,
        options: &DB::Options,
    ) -> Result<DB::Connection, sqlx::Error> {
        let target = DB::target(options);
        let unknown = self.proxy.is_none() && !monitoring::of(&target).is_known();
        let Some(monitored) = DB::monitored(options, self.silence).filter(|_| unknown) else {
            return self.open(&self.sent(options)).await;
        };
        match self.open(&monitored).await {
            Ok(raw) => {
                monitoring::record(target, Monitoring::Accepted);
                Ok(raw)
            }
            Err(sqlx::Error::Database(error)) if DB::refuses_monitoring(&*error) => {
                tracing::debug!(target, %error, "the server will not notice when this process vanishes");
                monitoring::record(target, Monitoring::Refused);
                self.open(options).await
            }
            Err(error) => Err(error),
        }
    }

    async fn open(&self, options: &DB::Options) -> Result<DB::Connection, sqlx::Error> {
        let connecting = Box::pin(longest_wait(options.connect()));
        let (raw, waited) = with_nodelay(DB::port(options), connecting).await?;
        self.round_trip.guess(waited);
        Ok(raw)
    }

    /// Cancels the running queries of `sessions`: through `idle` if it is given and works, otherwise through new
    /// connections.
    pub(super) async fn cancel(
        &self,
        acquire: &AcquireContext,
        sessions: &[DB::Session],
        idle: Option<&mut DB::Connection>,
        until: Instant,
    ) -> Stopped {
        // The caller may have less time still, and drop this future.
        let mut in_time = InTime {
            target: self.target(),
            over: false,
        };
        let stopped = self.cancel_quietly(acquire, sessions, idle, until).await;
        in_time.over = true;
        stopped
    }

    /// Like [`cancel`](Self::cancel), without a warning if the future is dropped.
    pub(super) async fn cancel_quietly(
        &self,
        acquire: &AcquireContext,
        sessions: &[DB::Session],
        idle: Option<&mut DB::Connection>,
        until: Instant,
    ) -> Stopped {
        let rest: Vec<DB::Session> = sessions
            .iter()
            .filter(|session| !DB::interrupt(session))
            .cloned()
            .collect();
        // RDS Proxy does not say which of its sessions it used. The dropped query runs to its end, because a cancel
        // could hit another client's query.
        let mut stopped = Stopped {
            all: true,
            idle_works: true,
        };
        if rest.is_empty() || self.proxy == Some(Proxy::Rds) {
            return stopped;
        }
        let cancelling = self.cancel_all(acquire, rest, idle, &mut stopped.idle_works);
        let cancelled = timeout_at(until, cancelling).await;
        stopped.all = match cancelled {
            Ok(Ok(())) => true,
            Ok(Err(reason)) => {
                tracing::warn!(
                    target = self.target(),
                    %reason,
                    "queries on the server could not be cancelled"
                );
                false
            }
            Err(_) => {
                tracing::warn!(
                    target = self.target(),
                    "queries on the server could not be cancelled in time"
                );
                false
            }
        };
        stopped
    }

    async fn cancel_all(
        &self,
        acquire: &AcquireContext,
        mut rest: Vec<DB::Session>,
        idle: Option<&mut DB::Connection>,
        idle_works: &mut bool,
    ) -> Result<(), String> {
        if let Some(idle) = idle {
            match self.cancel_via(idle, &rest).await {
                Ok(cancelled) if cancelled.elsewhere.is_empty() => {
                    self.judge(&cancelled);
                    return Ok(());
                }
                Ok(cancelled) => rest = cancelled.elsewhere,
                // A handler may have left the connection in any state, or it was lost with others.
                Err(error) => {
                    *idle_works = false;
                    tracing::debug!(target = self.target(), %error, "stopping through another connection");
                }
            }
        }
        let mut opened = 0;
        loop {
            let known_target = self.connect(acquire).await;
            let mut connection = known_target.map_err(|denied| format!("{:?}", denied.why))?;
            opened += 1;
            let cancelled = self
                .cancel_via(&mut connection, &rest)
                .await
                .map_err(|error| error.to_string())?;
            connection.close().await;
            if cancelled.elsewhere.is_empty() {
                self.judge(&cancelled);
                return Ok(());
            }
            if opened == CANCEL_CONNECTIONS {
                return Err(format!(
                    "it runs on another server behind the same address, which {opened} new connections did not reach"
                ));
            }
            rest = cancelled.elsewhere;
        }
    }

    /// Warns about queries that were not found. They cannot be cancelled, and are no reason to distrust other
    /// connections.
    fn judge(&self, cancelled: &Cancelled<DB::Session>) {
        if let Some(reason) = cancelled.uncertain {
            tracing::warn!(
                target = self.target(),
                reason,
                "a dropped query may still run on the server"
            );
        }
    }

    async fn cancel_via(
        &self,
        via: &mut DB::Connection,
        sessions: &[DB::Session],
    ) -> Result<Cancelled<DB::Session>, sqlx::Error> {
        match self.proxy {
            Some(_) => {
                DB::cancel_in_transactions(via, sessions).await?;
                Ok(Cancelled::all())
            }
            None => DB::cancel(via, sessions).await,
        }
    }
}

/// The result of cancelling.
#[must_use]
pub(super) struct Stopped {
    /// No query of the sessions runs any more, as far as the server reports.
    pub(super) all: bool,
    /// The idle connection can be reused, if one was given.
    pub(super) idle_works: bool,
}

/// Warns if it is dropped before `over` is set.
struct InTime<'a> {
    target: &'a str,
    over: bool,
}

impl Drop for InTime<'_> {
    fn drop(&mut self) {
        if !self.over {
            tracing::warn!(
                target = self.target,
                "queries on the server could not be cancelled in time"
            );
        }
    }
}

impl<DB: Driver> fmt::Debug for Connector<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connector").field(&self.target()).finish()
    }
}
