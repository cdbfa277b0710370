//! Where a resource's connections lead, and the one place where they are opened.

use super::{driver::Driver, fault, link::Link, nodelay::promptly, tag::Tag, url};
use crate::{error::Error, resource::Acquire};
use sqlx::ConnectOptions;
use std::{
    fmt,
    sync::{Arc, atomic::AtomicU32},
};
use tokio::time::{Instant, timeout_at};

/// See the module.
pub(super) struct Address<DB: Driver> {
    options: DB::Options,
    greeting: String,
    target: String,
    /// How many connections that were opened here exist.
    open: Arc<AtomicU32>,
}

impl<DB: Driver> Address<DB> {
    /// The address in the URL of this parameter.
    pub(super) fn read(acquire: &Acquire) -> Result<Self, Error> {
        let (options, greeting) = url::options::<DB>(acquire)?;
        Ok(Self {
            target: DB::target(&options),
            options,
            greeting,
            open: Arc::default(),
        })
    }

    /// For whoever opens connections by himself, and [`introduces`](Self::introduce) them.
    pub(super) fn options(&self) -> DB::Options {
        DB::tagged(&self.options, &Tag::unique())
    }

    pub(super) async fn introduce(
        &self,
        connection: &mut DB::Connection,
        options: &DB::Options,
    ) -> Result<DB::Session, sqlx::Error> {
        DB::introduce(connection, options, &self.greeting).await
    }

    /// Host, port and database.
    pub(super) fn target(&self) -> &str {
        &self.target
    }

    /// How many connections that were opened here exist.
    pub(super) fn count(&self) -> &AtomicU32 {
        &self.open
    }

    /// Opens a connection. Dropping the future drops its socket.
    pub(super) async fn dial(&self) -> Result<Link<DB>, sqlx::Error> {
        let options = self.options();
        // Boxed: what sqlx needs to connect is large, and most invocations do not connect.
        let connecting = Box::pin(options.connect());
        let mut raw = promptly(DB::port(&options), connecting).await?;
        let session = self.introduce(&mut raw, &options).await?;
        Ok(Link::new(raw, session, &self.open))
    }

    /// The same within an acquire: an error says what kept it from being opened.
    pub(super) async fn dial_for(&self, acquire: &Acquire) -> Result<Link<DB>, Error> {
        match timeout_at(acquire.until(), self.dial()).await {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(error)) => Err(fault::connecting::<DB>(acquire, &self.target, error)),
            Err(_) => Err(fault::connect_timed_out::<DB>(acquire, &self.target)),
        }
    }

    /// Stops what `sessions` still run: through `idle` if there is one, otherwise through a
    /// connection opened for that.
    pub(super) async fn cancel(
        &self,
        sessions: &[DB::Session],
        idle: Option<&mut DB::Connection>,
        until: Instant,
    ) -> bool {
        let rest: Vec<DB::Session> = sessions
            .iter()
            .filter(|session| !DB::interrupt(session))
            .cloned()
            .collect();
        if rest.is_empty() {
            return true;
        }
        let cancelling = async {
            if let Some(idle) = idle {
                return DB::cancel(idle, &rest).await;
            }
            let mut link = self.dial().await?;
            DB::cancel(&mut link, &rest).await?;
            link.close().await;
            Ok(())
        };
        // Whoever waits for this may have less time still.
        let mut in_time = InTime {
            target: &self.target,
            over: false,
        };
        let cancelled = timeout_at(until, cancelling).await;
        in_time.over = cancelled.is_ok();
        match cancelled {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(
                    target = self.target,
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
        f.debug_tuple("Address").field(&self.target).finish()
    }
}
