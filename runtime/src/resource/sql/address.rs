//! Where a resource's connections lead, and the one place where they are opened.

use super::{
    driver::Driver,
    fault,
    link::Link,
    login::{Denied, Login},
    nodelay::promptly,
    round_trip::{RoundTrip, typical_wait},
    tag::Tag,
};
use crate::{config::Proxy, error::Error, resource::Acquire};
use sqlx::ConnectOptions;
use std::{
    fmt,
    sync::{Arc, OnceLock, atomic::AtomicU32},
};
use tokio::time::{Instant, timeout_at};

/// See the module.
pub(super) struct Address<DB: Driver> {
    login: Login<DB>,
    proxy: Option<Proxy>,
    target: String,
    /// The same with what the credentials say over the URL, as soon as that is known.
    dialled: OnceLock<String>,
    /// How many connections that were opened here exist.
    open: Arc<AtomicU32>,
    round_trip: RoundTrip,
}

impl<DB: Driver> Address<DB> {
    /// The address in the URL of this parameter.
    pub(super) fn read(acquire: &Acquire) -> Result<Self, Error> {
        let login = Login::read(acquire)?;
        Ok(Self {
            target: login.place(),
            login,
            proxy: acquire.settings().proxy,
            dialled: OnceLock::new(),
            open: Arc::default(),
            round_trip: RoundTrip::default(),
        })
    }

    /// For whoever opens connections by himself, and [`introduces`](Self::introduce) them.
    pub(super) fn login(&self) -> &Login<DB> {
        &self.login
    }

    pub(super) async fn introduce(
        &self,
        connection: &mut DB::Connection,
        options: &DB::Options,
    ) -> Result<DB::Session, sqlx::Error> {
        let greeting = self.login.greeting();
        let from = Instant::now();
        let session = DB::introduce(connection, options, greeting).await?;
        if !greeting.is_empty() {
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

    /// How many connections that were opened here exist.
    pub(super) fn count(&self) -> &AtomicU32 {
        &self.open
    }

    /// `options`, which are [`tagged`](Driver::tagged), as they are sent.
    pub(super) fn sent(&self, options: &DB::Options) -> DB::Options {
        match self.proxy {
            Some(_) => DB::untagged(options),
            None => options.clone(),
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
        let sent = self.sent(&options);
        let connecting = Box::pin(typical_wait(sent.connect()));
        let (mut raw, waited) = promptly(DB::port(&options), connecting).await?;
        self.round_trip.guess(waited);
        let session = self.introduce(&mut raw, &options).await?;
        let link = Link::<DB>::new(raw, session, &self.open);
        Ok(match self.proxy {
            Some(_) => link.without_reset(),
            None => link,
        })
    }

    /// Stops what `sessions` still run: through `idle` if there is one, otherwise through a
    /// connection opened for that.
    pub(super) async fn cancel(
        &self,
        acquire: &Acquire,
        sessions: &[DB::Session],
        idle: Option<&mut DB::Connection>,
        until: Instant,
    ) -> bool {
        let rest: Vec<DB::Session> = sessions
            .iter()
            .filter(|session| !DB::interrupt(session))
            .cloned()
            .collect();
        // Which of its sessions RDS Proxy has used, nobody can tell: what was given up runs to its end rather
        // than that somebody else's is stopped.
        if rest.is_empty() || self.proxy == Some(Proxy::Rds) {
            return true;
        }
        let cancel = match self.proxy {
            Some(_) => DB::cancel_in_transactions,
            None => DB::cancel,
        };
        let cancelling = async {
            if let Some(idle) = idle {
                return cancel(idle, &rest).await;
            }
            let dialled = self.dial(acquire).await;
            let mut link = dialled.map_err(|denied| fault::wrapped(denied.why))?;
            cancel(&mut link, &rest).await?;
            link.close().await;
            Ok(())
        };
        // Whoever waits for this may have less time still.
        let mut in_time = InTime {
            target: self.target(),
            over: false,
        };
        let cancelled = timeout_at(until, cancelling).await;
        in_time.over = cancelled.is_ok();
        match cancelled {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(
                    target = self.target(),
                    %error,
                    "what still runs on the server could not be stopped"
                );
                false
            }
            Err(_) => false,
        }
    }
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
