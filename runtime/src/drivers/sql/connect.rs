//! Where a resource's connections lead, and the one place where they are opened.

pub(super) mod login;
mod monitoring;
pub(super) mod nodelay;
pub(super) mod retry;
pub(super) mod round_trip;
mod url;
pub(super) mod warnings;
mod writers;

use super::{
    connection::Link,
    driver::{Cancelled, Driver},
    tag::Tag,
};
use crate::{
    config::{CANCEL_CONNECTIONS, Close, Proxy},
    error::Error,
    resource::Acquire,
};
use login::{Denied, Login};
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

/// See the module.
pub(super) struct Address<DB: Driver> {
    login: Login<DB>,
    proxy: Option<Proxy>,
    /// For how long nothing may come from here although this process is alive: while it is frozen.
    silence: Duration,
    target: String,
    /// The same with what the credentials say over the URL, as soon as that is known.
    dialled: OnceLock<String>,
    writer: Writer,
    /// How many connections that were opened here exist.
    open: Arc<AtomicU32>,
    round_trip: RoundTrip,
}

impl<DB: Driver> Address<DB> {
    /// The address in the URL of this parameter.
    pub(super) fn read(acquire: &Acquire) -> Result<Self, Error> {
        let login = Login::read(acquire)?;
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
            dialled: OnceLock::new(),
            open: Arc::default(),
            round_trip: RoundTrip::default(),
        })
    }

    /// For a caller that opens connections itself, and calls [`init_session`](Self::init_session) for each.
    pub(super) fn login(&self) -> &Login<DB> {
        &self.login
    }

    pub(super) async fn init_session(
        &self,
        connection: &mut DB::Connection,
        options: &DB::Options,
    ) -> Result<DB::Session, sqlx::Error> {
        let setup_sql = self.login.setup_sql();
        // What a session is told behind a proxy is told to another one, or pins it.
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
        self.dialled.get().unwrap_or(&self.target)
    }

    pub(super) fn round_trip(&self) -> &RoundTrip {
        &self.round_trip
    }

    /// Whether the server is a writer that was demoted, by what the reset of one of its sessions has learned.
    pub(super) fn is_demoted(&self, memory: &DB::Memory) -> bool {
        self.writer.is_demoted(DB::takes_writes(memory))
    }

    /// How many connections that were opened here exist.
    pub(super) fn count(&self) -> &AtomicU32 {
        &self.open
    }

    /// `options`, which are [`tagged`](Driver::tagged), as they are sent.
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

    /// Whether the server has to be told on each connection how it is to be monitored: nobody knows yet whether
    /// that can be said while one is opened.
    pub(super) fn monitors_by_statement(&self, options: &DB::Options) -> bool {
        self.proxy.is_none() && !monitoring::of(&DB::target(options)).is_known()
    }

    /// Tells the server how an open connection is to be monitored.
    pub(super) async fn monitor(&self, connection: &mut DB::Connection, options: &DB::Options) {
        // Nothing is worse for it than without this crate.
        if let Err(error) = DB::monitor(connection, options, self.silence).await {
            tracing::debug!(target = self.target(), %error, "the server will not notice when this process vanishes");
        }
    }

    /// Finds out whether the server lets a connection be opened that says how it is to be monitored, if that is
    /// not known yet.
    pub(super) async fn learn_monitoring(&self, acquire: &Acquire, options: &DB::Options) {
        let target = DB::target(options);
        if self.proxy.is_some()
            || monitoring::of(&target) != Monitoring::Unknown
            || DB::monitored(options, self.silence).is_none()
        {
            return;
        }
        // Once: where there is no time for it, there will be none the next time.
        monitoring::learn(target, Monitoring::StillUnknown);
        if let Ok(link) = self.dial(acquire).await {
            link.close().await;
        }
    }

    /// Opens a connection, within `acquire`. Dropping the future drops its socket.
    pub(super) async fn dial(&self, acquire: &Acquire) -> Result<Link<DB>, Denied> {
        // Boxed: what is needed to connect is large, and most invocations do not connect.
        let dialling = self.login.connect(acquire, |options| {
            Box::pin(self.dial_with(DB::tagged(options, &Tag::unique())))
        });
        Box::pin(dialling).await
    }

    async fn dial_with(&self, options: DB::Options) -> Result<Link<DB>, sqlx::Error> {
        self.dialled.get_or_init(|| DB::target(&options));
        let mut raw = self.connect(&options).await?;
        let session = self.init_session(&mut raw, &options).await?;
        let link = Link::<DB>::new(raw, session, &self.open);
        Ok(match self.proxy {
            Some(_) => link.without_reset(),
            None => link,
        })
    }

    async fn connect(&self, options: &DB::Options) -> Result<DB::Connection, sqlx::Error> {
        let target = DB::target(options);
        let unknown = self.proxy.is_none() && !monitoring::of(&target).is_known();
        let Some(monitored) = DB::monitored(options, self.silence).filter(|_| unknown) else {
            return self.open(&self.sent(options)).await;
        };
        match self.open(&monitored).await {
            Ok(raw) => {
                monitoring::learn(target, Monitoring::Accepted);
                Ok(raw)
            }
            Err(sqlx::Error::Database(error)) if DB::refuses_monitoring(&*error) => {
                tracing::debug!(target, %error, "the server will not notice when this process vanishes");
                monitoring::learn(target, Monitoring::Refused);
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

    /// Stops what `sessions` still run: through `idle` if there is one and it does, otherwise through
    /// connections opened for that.
    pub(super) async fn cancel(
        &self,
        acquire: &Acquire,
        sessions: &[DB::Session],
        idle: Option<&mut DB::Connection>,
        until: Instant,
    ) -> Stopped {
        // Whoever waits for this may have less time still.
        let mut in_time = InTime {
            target: self.target(),
            over: false,
        };
        let stopped = self.cancel_quietly(acquire, sessions, idle, until).await;
        in_time.over = true;
        stopped
    }

    /// The same for somebody who leaves the rest to others.
    pub(super) async fn cancel_quietly(
        &self,
        acquire: &Acquire,
        sessions: &[DB::Session],
        idle: Option<&mut DB::Connection>,
        until: Instant,
    ) -> Stopped {
        let rest: Vec<DB::Session> = sessions
            .iter()
            .filter(|session| !DB::interrupt(session))
            .cloned()
            .collect();
        // Which of its sessions RDS Proxy has used, nobody can tell: what was given up runs to its end rather
        // than that somebody else's is stopped.
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
                    "what still runs on the server could not be stopped"
                );
                false
            }
            Err(_) => {
                tracing::warn!(
                    target = self.target(),
                    "what still runs on the server could not be stopped in time"
                );
                false
            }
        };
        stopped
    }

    async fn cancel_all(
        &self,
        acquire: &Acquire,
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
                // A handler may have left it in any state, or it was lost with others.
                Err(error) => {
                    *idle_works = false;
                    tracing::debug!(target = self.target(), %error, "stopping through another connection");
                }
            }
        }
        let mut opened = 0;
        loop {
            let dialled = self.dial(acquire).await;
            let mut link = dialled.map_err(|denied| format!("{:?}", denied.why))?;
            opened += 1;
            let cancelled = self
                .cancel_via(&mut link, &rest)
                .await
                .map_err(|error| error.to_string())?;
            link.close().await;
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

    /// Nothing can be done about what is not found, and it is no reason to distrust other connections.
    fn judge(&self, cancelled: &Cancelled<DB::Session>) {
        if let Some(reason) = cancelled.unsure {
            tracing::warn!(
                target = self.target(),
                reason,
                "what was dropped may still run on the server"
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

/// What came of cancelling.
#[must_use]
pub(super) struct Stopped {
    /// Nothing of it runs any more, as far as the server tells.
    pub(super) all: bool,
    /// The idle connection that was used for it, if there was one, can be used again.
    pub(super) idle_works: bool,
}

/// Says so if it is dropped before it is over.
struct InTime<'a> {
    target: &'a str,
    over: bool,
}

impl Drop for InTime<'_> {
    fn drop(&mut self) {
        if !self.over {
            tracing::warn!(
                target = self.target,
                "what still runs on the server could not be stopped in time"
            );
        }
    }
}

impl<DB: Driver> fmt::Debug for Address<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Address").field(&self.target()).finish()
    }
}
