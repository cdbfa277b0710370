//! One transaction on a connection through a pooler, for one invocation.

mod executor;
mod lexer;
mod session;
mod statement;
mod types;

use self::{
    executor::Watch,
    session::{Begun, Committed, RolledBack, Undo},
};
use crate::{
    config::{DRAIN_TIMEOUT, Proxy, TYPE_LOOKS},
    drivers::sql::{Checkout, DbHandle, connection::becomes_quiet, driver::Driver, error},
    error::{Error, ErrorKind},
    resource::{AcquireContext, Disposition, InjectMut},
    util::clock::Stamp,
};
use sqlx::{Connection, PgConnection, Postgres};
use std::{fmt, time::Duration};
use tokio::time::{timeout, timeout_at};

/// A transaction for the whole invocation, with unnamed statements only: for use behind a PgBouncer in transaction
/// pooling mode.
///
/// Such a pooler assigns a server connection to each *transaction*. sqlx sends a statement in two steps, and the server
/// identifies it by a name. Between two transactions, and between the two steps outside of a transaction, the pooler
/// may switch to another client's connection, where the same name means another statement: a query then returns the
/// rows of another client's query, without an error. Inside one transaction, with unnamed statements, this cannot
/// happen.
///
/// A handler takes it by `&mut`. It is begun before the handler, committed when the handler returns `Ok`, and rolled
/// back after an `Err`, a panic or at the deadline:
///
/// ```no_run
/// use db_handler::{Error, LambdaEvent, db_handler, PgBouncerTransaction, sqlx};
///
/// #[db_handler(proxy = "pgbouncer", close = "never")]
/// async fn order(event: LambdaEvent<String>, db: &mut PgBouncerTransaction) -> Result<i64, Error> {
///     let id = sqlx::query_scalar("INSERT INTO orders (item) VALUES ($1) RETURNING id")
///         .bind(event.payload)
///         .fetch_one(db)
///         .await?;
///     Ok(id)
/// }
/// ```
///
/// # The end of the transaction
///
/// A statement that would end the transaction (`COMMIT`, `END`, `ROLLBACK`, `ABORT`, `PREPARE TRANSACTION`) is rejected
/// before it is sent. `SAVEPOINT` and `ROLLBACK TO` are allowed. SQL is parsed as PostgreSQL does, for both values of
/// `standard_conforming_strings`, and as UTF-8: do not change `client_encoding`.
///
/// The commit succeeds only in the transaction that was begun. If that transaction was ended from inside nevertheless,
/// the invocation fails with [`ErrorKind::CommitUnknown`], and the connection is closed.
///
/// If the connection is found dead before `COMMIT` is sent, the invocation fails with [`ErrorKind::CommitFailed`]:
/// nothing was committed. This is the case if a statement failed because of it, if the server reported it, or if a ping
/// failed. The ping is sent if the transaction has been silent for longer than `check(trust_ms = ..)`.
///
/// # What the session keeps
///
/// Behind PgBouncer, the message that commits or rolls back also resets the session state that PostgreSQL keeps beyond
/// a transaction, whatever created it: settings and the role (`SET`, `set_config`), temporary tables, advisory locks,
/// `LISTEN`, cursors `WITH HOLD`. Statements from SQL's own `PREPARE` are removed if that word is in the text of a
/// statement, but not if it is hidden in a function of the database. Not reset are: libraries (`LOAD`), `setseed`, the
/// values of `currval` and `lastval`, and the state of extensions and languages (`dblink`'s connections, PL/Perl's
/// `%_SHARED`).
///
/// Settings are reset with `RESET ALL`, which also removes what PgBouncer's `connect_query` has `SET`. For such
/// settings, use `ALTER ROLE .. SET` or `ALTER DATABASE .. SET`.
///
/// The transaction's `application_name` identifies a query that has to be cancelled on the server: if a handler changes
/// it, its query cannot be cancelled.
///
/// Behind RDS Proxy, nothing is reset, because that would pin the session. A connection is closed instead of being
/// reused if one of the invocation's statements pins the session (`SET`, `nextval`, locks, temporary tables, cursors, a
/// text above 16 KB, and also `DO` and `CALL`, which may hide them), so that nothing stays pinned.
///
/// # Types of the database's own
///
/// On each connection, sqlx looks up the database's own types (enums, domains, composites) before the first
/// transaction: one round trip in a database without such types, otherwise a few. Otherwise sqlx would look up a type
/// in the middle of a statement, which then fails. The beginning of each transaction compares the newest enum and range
/// type; after a newer one, sqlx looks the types up again. A composite, domain or extension that was created or
/// replaced since fails at most one invocation per connection.
pub struct PgBouncerTransaction {
    /// `None` only after the release.
    checkout: Option<Checkout<Postgres>>,
    progress: Progress,
    begun: Begun,
    watch: Watch,
    proxy: Option<Proxy>,
    /// RDS Proxy may pin the session to this connection until it is closed.
    pinned: bool,
    /// How long a silent connection is assumed to be alive.
    trust: Duration,
}

/// The state of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The transaction is open.
    Open,
    /// Its end was sent, but no reply has arrived; or the connection is unusable.
    Ending,
    Ended,
}

impl InjectMut for PgBouncerTransaction {
    type Handle = DbHandle<Postgres>;
    type Guard = Box<Self>;

    async fn acquire(
        db: &DbHandle<Postgres>,
        acquire: &AcquireContext,
    ) -> Result<Box<Self>, Error> {
        loop {
            let mut checkout = db.take(acquire).await?;
            let was_kept = checkout.session_state().newest_type.is_some();
            let proxy = acquire.settings().proxy;
            let error = match timeout_at(acquire.until(), begin(&mut checkout, proxy)).await {
                Ok(Ok(begun)) => {
                    return Ok(Box::new(Self {
                        checkout: Some(checkout),
                        progress: Progress::Open,
                        begun,
                        watch: Watch::new(),
                        proxy,
                        pinned: false,
                        trust: acquire.settings().trust,
                    }));
                }
                Ok(Err(error)) => error,
                Err(_) => {
                    checkout.leave();
                    return Err(acquire
                        .timeout_error("beginning a transaction")
                        .adding(" Behind a pooler: has it a connection to the server to spare?"));
                }
            };
            checkout.leave();
            if pools_statements(&error) {
                let what = "PgBouncer is in statement pooling mode, which allows no transaction: set `pool_mode = transaction`";
                return Err(acquire.failed(ErrorKind::Query, what).caused_by(error));
            }
            // A reused connection that the server has closed: nothing has happened on it yet.
            if !(was_kept && error::ends_the_connection(&error)) {
                return Err(error::connecting::<Postgres>(acquire, db.target(), error));
            }
        }
    }

    async fn commit(guard: &mut Box<Self>) -> Result<(), Error> {
        guard.commit().await
    }

    async fn rollback(guard: &mut Box<Self>) {
        guard.roll_back().await;
    }

    async fn release(db: &DbHandle<Postgres>, mut guard: Box<Self>, disposition: Disposition) {
        if disposition != Disposition::Discard {
            guard.roll_back().await;
        }
        let Some(mut checkout) = guard.checkout.take() else {
            return;
        };
        if guard.watch.types_outdated {
            checkout.session_state().newest_type = None;
        }
        match (guard.progress, disposition) {
            // The pooler may already have given the server connection to another client.
            (Progress::Ending, _) => checkout.leave(),
            (Progress::Ended, Disposition::Reuse) if guard.pinned => {
                db.put_back(checkout, Disposition::Close).await;
            }
            // The session has nothing left to reset, and no longer belongs to this connection.
            (Progress::Ended, Disposition::Reuse) if guard.proxy.is_some() => checkout.give_back(),
            _ => db.put_back(checkout, disposition).await,
        }
    }
}

impl PgBouncerTransaction {
    async fn commit(&mut self) -> Result<(), Error> {
        self.check_before_commit().await?;
        self.progress = Progress::Ending;
        let undo = self.undo();
        let connection = connection(&mut self.checkout);
        match self.begun.commit(connection, undo).await {
            Committed::Yes => {
                self.progress = Progress::Ended;
                Ok(())
            }
            Committed::YesWithoutUndo(error) => {
                tracing::warn!(
                    %error,
                    "committed, but what the transaction left in its session could not be undone: the connection is closed"
                );
                Ok(())
            }
            Committed::No(error) => {
                self.progress = Progress::Open;
                Err(error::not_committed::<Postgres>(error))
            }
            Committed::Refused(error) => {
                self.undo_after_refusal(undo).await;
                Err(error::not_committed::<Postgres>(error))
            }
            Committed::Lost(error) => Err(lost_before_commit(&error.to_string()).caused_by(error)),
            Committed::EndedBefore(error) => {
                Err(Error::new(ErrorKind::CommitUnknown, ENDED_INSIDE).caused_by(error))
            }
            Committed::Unknown(error) => Err(error::not_committed::<Postgres>(error)),
        }
    }

    /// A rejected commit leaves locks and SQL's own `PREPARE` in the session: nothing else in it outlives a rollback.
    async fn undo_after_refusal(&mut self, undo: Undo) {
        let connection = connection(&mut self.checkout);
        let undoing = self.begun.undo_after_refusal(connection, undo);
        let Ok(Ok(undone)) = timeout(DRAIN_TIMEOUT, undoing).await else {
            // The connection is closed by its release.
            return self.says_what_stays();
        };
        self.progress = Progress::Ended;
        if !undone {
            self.says_what_stays();
        }
    }

    fn says_what_stays(&self) {
        tracing::warn!(
            process = self.begun.process(),
            "the commit was refused, and the pooler gave the session to another client before it could be undone: advisory locks and SQL's `PREPARE` may be left in it"
        );
    }

    /// Returns an error if nothing is committed: `COMMIT` is not sent then.
    async fn check_before_commit(&mut self) -> Result<(), Error> {
        if let Some(why) = self.watch.lost.take() {
            self.progress = Progress::Ending;
            return Err(lost_before_commit(&why));
        }
        let connection = connection(&mut self.checkout);
        match timeout(DRAIN_TIMEOUT, Postgres::drain(connection)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(self.not_sent(error)),
            // The connection stays in the middle of that statement, which is cancelled when the connection is dropped.
            Err(_) => {
                return Err(Error::new(
                    ErrorKind::CommitFailed,
                    "a query that the handler had dropped was still running when it returned: its transaction was rolled back",
                ));
            }
        }
        if Stamp::now().since(self.watch.heard) > self.trust
            && let Err(error) = connection.ping().await
        {
            return Err(self.not_sent(error));
        }
        Ok(())
    }

    fn not_sent(&mut self, error: sqlx::Error) -> Error {
        if !error::ends_the_connection(&error) {
            return error::not_committed::<Postgres>(error);
        }
        self.progress = Progress::Ending;
        lost_before_commit(&error.to_string()).caused_by(error)
    }

    /// Rolls back, unless a statement still runs: that has to be cancelled on the server.
    async fn roll_back(&mut self) {
        let undo = self.undo();
        let connection = connection(&mut self.checkout);
        if self.progress != Progress::Open
            || !becomes_quiet::<Postgres>(connection, DRAIN_TIMEOUT).await
        {
            return;
        }
        self.progress = Progress::Ending;
        let failed = self.watch.failed;
        let rolling_back = self.begun.roll_back(connection, failed, undo);
        match timeout(DRAIN_TIMEOUT, rolling_back).await {
            Ok(RolledBack::Yes) => self.progress = Progress::Ended,
            Ok(RolledBack::EndedBefore) => tracing::error!("{ENDED_INSIDE}"),
            Ok(RolledBack::Unknown) | Err(_) => {}
        }
    }

    fn undo(&self) -> Undo {
        match self.proxy {
            Some(Proxy::PgBouncer) => Undo::All {
                prepared: self.watch.prepares,
            },
            _ => Undo::Nothing,
        }
    }

    fn parts(&mut self) -> (&mut PgConnection, &mut Watch) {
        (connection(&mut self.checkout), &mut self.watch)
    }
}

fn connection(checkout: &mut Option<Checkout<Postgres>>) -> &mut PgConnection {
    match checkout {
        Some(checkout) => checkout,
        None => unreachable!("emptied when it is released"),
    }
}

const ENDED_INSIDE: &str = "the transaction was ended inside the handler, although no statement may do that behind a pooler: what came before may be committed, and what followed ran in sessions that other clients use; look before you repeat it";

fn lost_before_commit(why: &str) -> Error {
    Error::new(
        ErrorKind::CommitFailed,
        format!(
            "connection to PostgreSQL lost before COMMIT: {why}. The transaction was rolled back"
        ),
    )
}

/// Whether PgBouncer rejected a transaction because of `pool_mode = statement`.
fn pools_statements(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.message().contains("statement pooling mode"))
}

impl Drop for PgBouncerTransaction {
    fn drop(&mut self) {
        if let Some(checkout) = self.checkout.take()
            && self.progress == Progress::Ending
        {
            checkout.leave();
        }
    }
}

/// Begins a transaction in which sqlx knows the database's own types. Behind a PgBouncer its `application_name` is the
/// name of the connection, which no session keeps beyond the transaction.
async fn begin(
    checkout: &mut Checkout<Postgres>,
    proxy: Option<Proxy>,
) -> Result<Begun, sqlx::Error> {
    let session = checkout.session().clone();
    let name = (proxy == Some(Proxy::PgBouncer)).then_some(session.name());
    let mut looks = 0;
    loop {
        let known = match checkout.session_state().newest_type {
            Some(known) => known,
            None => types::record(checkout).await?,
        };
        checkout.session_state().newest_type = Some(known);
        let begun = session::begin(checkout, name).await?;
        looks += 1;
        // If types change all the time, a statement that uses one may fail.
        if begun.newest_type == known || looks == TYPE_LOOKS {
            return Ok(begun);
        }
        begun.roll_back(checkout, false, Undo::Nothing).await;
        checkout.session_state().newest_type = None;
    }
}

impl fmt::Debug for PgBouncerTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgBouncerTransaction")
            .finish_non_exhaustive()
    }
}
