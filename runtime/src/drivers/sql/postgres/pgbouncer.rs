//! One transaction on a connection through a pooler, for as long as an invocation needs the database.

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
    config::{Proxy, QUIET, TYPE_LOOKS},
    drivers::sql::{Checkout, DbHandle, connection::becomes_quiet, driver::Driver, error},
    error::{Error, ErrorKind},
    resource::{Acquire, Disposition, InjectMut, Outcome},
    util::clock::Stamp,
};
use sqlx::{Connection, PgConnection, Postgres};
use std::{fmt, time::Duration};
use tokio::time::{timeout, timeout_at};

/// A transaction for the whole invocation in which every statement is unnamed: what is right behind a PgBouncer
/// that pools transactions.
///
/// Such a pooler gives each *transaction* a connection to the server. sqlx sends a statement in two steps,
/// and the server knows it by a name: between two transactions, and between the two steps outside of one, that
/// may be another client's connection, on which the same name means another statement. The rows of a
/// query that somebody else asked come back, without an error. Inside one transaction, with statements
/// that have no name, nothing can get in between.
///
/// A handler takes it by `&mut`. It is begun before the handler, committed when the handler returns `Ok`, and
/// rolled back after an `Err`, a panic or at the deadline:
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
/// A statement that would end the transaction (`COMMIT`, `END`, `ROLLBACK`, `ABORT`, `PREPARE TRANSACTION`) is refused
/// before it is sent. `SAVEPOINT` and `ROLLBACK TO` are fine. Texts are read as PostgreSQL reads them, with either
/// value of `standard_conforming_strings`, and as UTF-8: do not change `client_encoding`.
///
/// The commit succeeds in the transaction that was begun, and in no other. If that was ended from inside after
/// all, the invocation fails with [`ErrorKind::CommitUnknown`], and the connection is closed.
///
/// A connection that was found dead before `COMMIT` was sent makes the invocation fail with
/// [`ErrorKind::CommitFailed`]: nothing was committed. That is the case when a statement met it, when the server said
/// so, or when the transaction had been silent for longer than `check(trust_ms = ..)`, after which a ping comes
/// first.
///
/// # What does not reach the next client
///
/// Behind PgBouncer, the message that commits or rolls back also undoes what PostgreSQL keeps in a session beyond a
/// transaction, however it came about: settings and the role (`SET`, `set_config`), temporary tables, advisory
/// locks, `LISTEN`, cursors `WITH HOLD`. SQL's own `PREPARE` is undone if that word is in the text of a statement; hidden in
/// a function of the database, it is not. These are not undone either: a library (`LOAD`), `setseed`, what
/// `currval` and `lastval` return, and what an extension or a language keeps for itself (`dblink`'s connections, PL/Perl's
/// `%_SHARED`).
///
/// To undo settings is `RESET ALL`: it also takes away what PgBouncer's `connect_query` has `SET`. Write such settings into
/// `ALTER ROLE .. SET` or `ALTER DATABASE .. SET`.
///
/// The transaction's `application_name` is by what a query is found that has to be stopped on the server: a handler that
/// changes it keeps its query running.
///
/// Behind RDS Proxy, nothing is undone, because that would pin a session. A kept connection is closed after
/// an invocation for one of whose statements the proxy pins a session (`SET`, `nextval`, locks, temporary tables, cursors, a
/// text above 16 KB, and also `DO` and `CALL`, which may hide them), so that nothing stays pinned.
///
/// # Types of the database's own
///
/// For each connection, sqlx is made to ask for the database's own types (enums, domains, composites) before the
/// first transaction: one round trip in a database without such types, otherwise a few. It would ask in the
/// middle of a statement, which then fails. The beginning of each transaction compares the newest enum and range type; a newer
/// one makes sqlx ask again. A composite, domain or extension that was created or replaced since fails one
/// invocation of each connection at most.
pub struct PgBouncerTransaction {
    /// Empty only when it is put back.
    checkout: Option<Checkout<Postgres>>,
    progress: Progress,
    begun: Begun,
    watch: Watch,
    proxy: Option<Proxy>,
    /// RDS Proxy may keep the session for this connection alone until that is closed.
    pinned: bool,
    /// For how long a silent connection is taken to be alive.
    trust: Duration,
}

/// How far a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Nobody has begun to end it.
    Open,
    /// Its end was sent, and has not been answered; or the connection is of no more use.
    Ending,
    Ended,
}

impl InjectMut for PgBouncerTransaction {
    type Handle = DbHandle<Postgres>;
    type Guard = Box<Self>;

    async fn acquire(db: &DbHandle<Postgres>, acquire: &Acquire) -> Result<Box<Self>, Error> {
        loop {
            let mut checkout = db.take(acquire).await?;
            let was_kept = checkout.memory().newest_type.is_some();
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
                        .timed_out("beginning a transaction")
                        .adding(" Behind a pooler: has it a connection to the server to spare?"));
                }
            };
            checkout.leave();
            if pools_statements(&error) {
                let what = "PgBouncer is in statement pooling mode, which allows no transaction: set `pool_mode = transaction`";
                return Err(acquire.failed(ErrorKind::Query, what).caused_by(error));
            }
            // A kept connection whose other end has gone: nothing has happened on it yet.
            if !(was_kept && error::ends_the_connection(&error)) {
                return Err(error::connecting::<Postgres>(acquire, db.target(), error));
            }
        }
    }

    async fn conclude(loan: &mut Box<Self>, outcome: Outcome) -> Result<(), Error> {
        match outcome {
            Outcome::Succeeded => loan.commit().await,
            Outcome::Failed => {
                loan.roll_back().await;
                Ok(())
            }
        }
    }

    async fn release(db: &DbHandle<Postgres>, mut loan: Box<Self>, disposition: Disposition) {
        if disposition != Disposition::Discard {
            loan.roll_back().await;
        }
        let Some(mut checkout) = loan.checkout.take() else {
            return;
        };
        if loan.watch.types_outdated {
            checkout.memory().newest_type = None;
        }
        match (loan.progress, disposition) {
            // The pooler may already have given the server's side to somebody else.
            (Progress::Ending, _) => checkout.leave(),
            (Progress::Ended, Disposition::Reuse) if loan.pinned => {
                db.put_back(checkout, Disposition::Close).await;
            }
            // Nothing is left in the session that could be undone, and it is not ours any more.
            (Progress::Ended, Disposition::Reuse) if loan.proxy.is_some() => checkout.give_back(),
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

    /// A commit that was refused leaves locks and SQL's own `PREPARE` in the session: nothing else there outlives a
    /// rollback.
    async fn undo_after_refusal(&mut self, undo: Undo) {
        let connection = connection(&mut self.checkout);
        let undoing = self.begun.undo_after_refusal(connection, undo);
        let Ok(Ok(undone)) = timeout(QUIET, undoing).await else {
            // The connection is closed.
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

    /// An error means that nothing is committed: `COMMIT` is not sent.
    async fn check_before_commit(&mut self) -> Result<(), Error> {
        if let Some(why) = self.watch.lost.take() {
            self.progress = Progress::Ending;
            return Err(lost_before_commit(&why));
        }
        let connection = connection(&mut self.checkout);
        match timeout(QUIET, Postgres::drain(connection)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(self.not_sent(error)),
            // It stays in the middle of that statement, which is stopped when the connection is dropped.
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

    /// Rolls back, unless something is still running: that has to be stopped on the server.
    async fn roll_back(&mut self) {
        let undo = self.undo();
        let connection = connection(&mut self.checkout);
        if self.progress != Progress::Open || !becomes_quiet::<Postgres>(connection, QUIET).await {
            return;
        }
        self.progress = Progress::Ending;
        let failed = self.watch.failed;
        let rolling_back = self.begun.roll_back(connection, failed, undo);
        match timeout(QUIET, rolling_back).await {
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
        None => unreachable!("emptied when it is put back"),
    }
}

const ENDED_INSIDE: &str = "the transaction was ended inside the handler, although no statement may do that behind a pooler: what came before may be committed, and what followed ran in sessions that other clients use; look before you repeat it";

fn lost_before_commit(why: &str) -> Error {
    Error::new(
        ErrorKind::CommitFailed,
        format!(
            "the connection to PostgreSQL was lost before its transaction was committed: {why}; nothing of the transaction has happened"
        ),
    )
}

/// Whether this is how PgBouncer refuses a transaction with `pool_mode = statement`.
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

/// Begins a transaction in which sqlx knows the database's own types. Behind a PgBouncer it has the name of the
/// connection, which no session there keeps beyond the transaction.
async fn begin(
    checkout: &mut Checkout<Postgres>,
    proxy: Option<Proxy>,
) -> Result<Begun, sqlx::Error> {
    let session = checkout.session().clone();
    let name = (proxy == Some(Proxy::PgBouncer)).then_some(session.name());
    let mut looks = 0;
    loop {
        let known = match checkout.memory().newest_type {
            Some(known) => known,
            None => types::learn(checkout).await?,
        };
        checkout.memory().newest_type = Some(known);
        let begun = session::begin(checkout, name).await?;
        looks += 1;
        // Where types come and go all the time, a statement that uses one may fail.
        if begun.newest_type == known || looks == TYPE_LOOKS {
            return Ok(begun);
        }
        begun.roll_back(checkout, false, Undo::Nothing).await;
        checkout.memory().newest_type = None;
    }
}

impl fmt::Debug for PgBouncerTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgBouncerTransaction")
            .finish_non_exhaustive()
    }
}
