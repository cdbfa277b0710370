//! Every figure that holds where nothing else is written, and every range and bound.

use std::time::Duration;

/// Connections of one instance, unless `pool(max = ..)` says otherwise (the Sequelize guide's figure).
pub const DEFAULT_MAX: u32 = 2;
/// How long an acquire waits, unless `pool(acquire_ms = ..)` says otherwise (the Sequelize guide's figure).
pub const DEFAULT_ACQUIRE: Duration = Duration::from_millis(3_000);
/// How long a *kept* connection may have idled before it is dropped unasked. NAT gateways and load
/// balancers on AWS forget an idle flow after 350 s: this stays below.
pub const DEFAULT_KEPT_IDLE: Duration = Duration::from_secs(300);
/// The share of the server's connections that `budget(..)` may use (the Sequelize guide's figure).
pub const DEFAULT_BUDGET_SHARE: f64 = 0.8;

/// A kept connection idle for no longer than this is used as it is, unless `check(trust_ms = ..)` says
/// otherwise.
pub const TRUST: Duration = Duration::from_millis(1_000);
/// How long a kept connection may take to answer the ping that it gets after more than [`TRUST`],
/// unless `check(ping_ms = ..)` says otherwise.
pub const PING: Duration = Duration::from_millis(250);
/// The handler is stopped this long before the platform's deadline, and the *finally* takes no longer,
/// unless `deadline(reserve_ms = ..)` says otherwise.
pub const RESERVE: Duration = Duration::from_millis(250);
/// Kept free of the reserve for posting the answer itself, but never more than half of the reserve.
pub const ANSWER_MARGIN: Duration = Duration::from_millis(50);
/// How long background tasks are waited for where no deadline is known, and `background = "wait"`.
pub const BACKGROUND: Duration = Duration::from_secs(60);
/// How long [`shutdown`](crate::shutdown) may take. AWS Lambda leaves 300 ms between SIGTERM and SIGKILL
/// where there is an external extension, 500 ms otherwise.
pub const SHUTDOWN: Duration = Duration::from_millis(250);
/// How long a pool may be busy with opening its connection before the runtime asks the server itself
/// why, if the server has refused the pool meanwhile: sqlx retries that silently until
/// `acquire_ms` is over.
pub const ASK_WHY_AFTER: Duration = Duration::from_millis(250);
/// The first wait of someone whom a full server turned away is drawn between nothing and this; the bound
/// doubles with every further time.
pub const RETRY_FIRST: Duration = Duration::from_millis(20);
/// The largest bound of such a wait.
pub const RETRY_LONGEST: Duration = Duration::from_millis(400);
/// How often `close = "pressure"` asks a server how full it is, at most, give or take a half of it.
pub const PRESSURE_INTERVAL: Duration = Duration::from_secs(1);
/// How long the server may take to say so.
pub const PRESSURE_ASK: Duration = Duration::from_millis(250);
/// How long a kept connection may take to answer before another one is opened beside it: longer than
/// a round trip within a region, so that a healthy connection costs the server no second one.
pub const HEDGE_AFTER: Duration = Duration::from_millis(20);
/// The most that is added to [`HEDGE_AFTER`], by chance: instances that thaw together do not all open at
/// the same moment.
pub const HEDGE_SPREAD: Duration = Duration::from_millis(40);
/// How many times the measured round trip a reply may take, where that is longer than its bound.
pub const REPLY_ROUND_TRIPS: u32 = 3;
/// How many times the measured round trip a reused connection may take to reply before another one is
/// opened beside it, where that is longer than [`HEDGE_AFTER`].
pub const HEDGE_ROUND_TRIPS: u32 = 2;
/// How many times the measured round trip the whole cleanup may take, where that is longer than the
/// reserve: a rollback, a reset and two pings of sqlx's pool, or a new connection that cancels a query.
/// Never beyond the deadline.
pub const CLEANUP_ROUND_TRIPS: u32 = 16;
/// The longest round trip that a bound follows: a satellite's.
pub const LONGEST_ROUND_TRIP: Duration = Duration::from_millis(600);
/// How long what a handler left behind may take to come to an end by itself (a rollback takes a round
/// trip) before it is stopped on the server.
pub const QUIET: Duration = Duration::from_millis(50);
/// The same for sqlx's pool, which returns a connection in a task of its own after a ping of its own: a
/// small function (128 MB are a fourteenth of a processor) gets to that later.
pub const POOL_QUIET: Duration = Duration::from_millis(100);
/// How far apart the connections of sqlx's pool come to be: it tells of each of them no more than its age.
#[cfg(feature = "_sql")]
pub const BIRTHS_APART: Duration = Duration::from_micros(200);
/// How long the cleanup may take where something is to be cancelled, if the deadline leaves the time. A connection is
/// opened for that: in a function of 128 MB (a fourteenth of a processor) its TLS and its password alone take a few
/// hundred milliseconds.
#[cfg(feature = "_sql")]
pub const CANCEL_TIMEOUT: Duration = Duration::from_millis(1_000);
/// How many connections are opened, at most, to reach the server on which a query is to be stopped: behind a
/// balanced address that may be any one of several.
#[cfg(feature = "_sql")]
pub const CANCEL_CONNECTIONS: u32 = 8;
/// How often PostgreSQL (14 and later) looks, while a query runs, whether its client's socket is still open.
#[cfg(feature = "postgres")]
pub const CLIENT_CHECK: Duration = Duration::from_secs(2);
/// For how long nothing may come from a client before PostgreSQL asks its machine whether it is still there.
/// To this comes, for a connection that is kept, the time for which it may idle: a frozen sandbox does not
/// reply either, and has not vanished. [`KEEPALIVE_INTERVAL`] and [`KEEPALIVE_COUNT`] say what follows; all
/// three together stay below a minute.
#[cfg(feature = "postgres")]
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
/// After how long without a reply PostgreSQL asks the client's machine again.
#[cfg(feature = "postgres")]
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// After how many questions without a reply the client has vanished.
#[cfg(feature = "postgres")]
pub const KEEPALIVE_COUNT: u32 = 4;
/// How long a session of MySQL's may idle before the server ends it, and gives back its locks: longer than
/// the 15 minutes for which a Lambda function may run. To this comes the time for which a kept connection
/// may idle.
#[cfg(feature = "mysql")]
pub const WAIT_TIMEOUT: Duration = Duration::from_mins(20);
/// How long, at the end of a handler that has succeeded, its transaction waits for a statement that the handler
/// has dropped. A rollback to a savepoint takes a round trip; what takes longer than this still runs, and keeps
/// the transaction from being committed.
#[cfg(feature = "_sql")]
pub const DROPPED_STATEMENT: Duration = Duration::from_millis(250);
/// How long, after an invocation, PostgreSQL is asked for plans of prepared statements. What is not done by then is
/// prepared again instead.
#[cfg(feature = "postgres")]
pub const PLANNING: Duration = Duration::from_millis(50);
/// How long a local process may take, after Ctrl-C, SIGTERM or SIGHUP, to cancel what runs on its servers and to close.
#[cfg(feature = "local")]
pub const LOCAL_STOP: Duration = Duration::from_millis(2_000);
/// How long a query that was given up behind a PgBouncer is left before it is stopped once more: its
/// transaction may have been between two statements.
#[cfg(feature = "postgres")]
pub const STOP_AGAIN: Duration = Duration::from_millis(10);
/// How often a transaction behind a pooler is begun anew because the database has got a new type since its
/// connection asked for them.
#[cfg(feature = "postgres")]
pub const TYPE_LOOKS: u32 = 3;
/// How many instructions of SQLite's virtual machine run before it looks whether it was interrupted:
/// well below a millisecond, and no measurable cost.
pub const STEPS_BETWEEN_LOOKS: i32 = 1_000;
/// How long the init phase may spend on reporting its own failure to the platform.
pub const INIT_REPORT: Duration = Duration::from_millis(1_000);

/// How long a streamed body may take to be dropped once its transfer has been broken off: the task that pumps it
/// has to see it.
pub const BODY_DROP: Duration = Duration::from_millis(50);
/// How long AWS Lambda may take to register the extension by which it tells this process about its shutdown.
pub const EXTENSION: Duration = Duration::from_millis(1_000);

/// How long a connection of MongoDB's driver may take to come back to its pool once its operation has
/// been dropped: a task of the driver's has to see it.
pub const MONGODB_RETURN: Duration = Duration::from_millis(10);
/// What Tencent SCF's time limit may have lost before the event is here: it is counted from when the
/// event is handed out, and is told as a duration.
pub const SCF_DISPATCH: Duration = Duration::from_millis(20);
/// How often in a row asking Tencent SCF for the next event may fail before the process gives up.
pub const SCF_POLLS: u32 = 3;
/// How long to wait before asking again.
pub const SCF_POLL_PAUSE: Duration = Duration::from_millis(100);
/// How long Tencent SCF may take for everything but the next event.
pub const SCF_CALL: Duration = Duration::from_millis(3_000);

/// The longest wait that can be configured: 15 minutes, the longest that a Lambda function may run.
pub const LONGEST_ACQUIRE_MS: u64 = 900_000;
/// The longest idle time and lifetime that can be configured: one day.
pub const LONGEST_AGE_MS: u64 = 86_400_000;
/// The longest ping and the longest reserve that can be configured: one minute.
pub const LONGEST_CHECK_MS: u64 = 60_000;
/// The most connections that one instance may be given.
pub const LARGEST_MAX: u32 = 65_535;
