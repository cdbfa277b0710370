//! PgBouncer in front of a database, and events.

use db_handler::{
    Context, LambdaEvent,
    credentials::Secret,
    sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions},
};
use std::{
    str::FromStr,
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use support::{Database, PgBouncer, Pooler, Postgres, postgres};

/// PgBouncer and a database behind it.
pub(crate) struct Behind {
    pub(crate) bouncer: Mutex<PgBouncer>,
    pub(crate) database: Database,
}

impl Behind {
    pub(crate) async fn start(pooler: Pooler, servers: usize, clients: usize) -> Self {
        let database = postgres().fresh_database().await;
        let bouncer = PgBouncer::start(pooler, postgres(), servers, clients);
        Self {
            bouncer: Mutex::new(bouncer),
            database,
        }
    }

    pub(crate) fn secret(&self) -> Secret {
        let port = self.bouncer.lock().expect("whole").port();
        Secret::new(Postgres::PASSWORD)
            .user(Postgres::USER)
            .host("127.0.0.1")
            .port(port)
            .database(self.database.name())
    }

    /// A connection through PgBouncer with sqlx's defaults, except for the options that PgBouncer rejects.
    pub(crate) async fn plain(&self) -> PgConnection {
        let url = self.bouncer.lock().expect("whole").url(&self.database);
        let options = PgConnectOptions::from_str(&url).expect("a URL");
        let options = options.extra_float_digits(None);
        options.connect().await.expect("PgBouncer")
    }

    /// A direct connection to the server.
    pub(crate) async fn direct(&self) -> PgConnection {
        PgConnection::connect(self.database.url())
            .await
            .expect("the server")
    }
}

/// Defines a separate PgBouncer for a test, and `through_it` for the `credentials` of its handlers.
macro_rules! behind {
    ($pooler:expr, $servers:expr, $clients:expr) => {
        static BEHIND: tokio::sync::OnceCell<$crate::pgbouncer::world::Behind> =
            tokio::sync::OnceCell::const_new();

        async fn behind() -> &'static $crate::pgbouncer::world::Behind {
            // The test that starts PgBouncer must not wait for a test that waits for PgBouncer.
            support::beside();
            BEHIND
                .get_or_init(|| {
                    $crate::pgbouncer::world::Behind::start($pooler, $servers, $clients)
                })
                .await
        }

        async fn through_it() -> Result<db_handler::credentials::Secret, db_handler::Error> {
            Ok(behind().await.secret())
        }
    };
}

pub(crate) fn event<T>(payload: T) -> LambdaEvent<T> {
    LambdaEvent::new(payload, Context::default())
}

/// An event whose deadline is `left` from now.
pub(crate) fn event_within<T>(payload: T, left: Duration) -> LambdaEvent<T> {
    let deadline = SystemTime::now() + left;
    let deadline = deadline.duration_since(UNIX_EPOCH).expect("after 1970");
    let mut context = Context::default();
    context.deadline = u64::try_from(deadline.as_millis()).expect("before the year 584556019");
    LambdaEvent::new(payload, context)
}

pub(crate) use behind;
