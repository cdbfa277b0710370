//! Defaults, ranges and bounds.

use std::time::Duration;

/// Default of `pool(max = ..)`: maximum number of connections per environment (the Sequelize guide's figure).
pub const DEFAULT_MAX: u32 = 2;
/// Default of `pool(acquire_ms = ..)`: how long acquiring may take (the Sequelize guide's figure).
pub const DEFAULT_ACQUIRE: Duration = Duration::from_millis(3_000);
/// Default of `pool(idle_ms = ..)` for reused connections: how long one may idle before it is discarded without
/// a check. NAT gateways and load balancers on AWS drop an idle flow after 350 s; this is below.
pub const DEFAULT_KEPT_IDLE: Duration = Duration::from_secs(300);
/// Default of `budget(share = ..)`: the share of the server's connections to use (the Sequelize guide's
/// figure).
pub const DEFAULT_BUDGET_SHARE: f64 = 0.8;

/// Default of `check(trust_ms = ..)`: a connection that idled for at most this long is reused without a check.
pub const TRUST: Duration = Duration::from_millis(1_000);
/// Default of `check(ping_ms = ..)`: timeout of the ping of a connection that idled for more than [`TRUST`].
pub const PING: Duration = Duration::from_millis(250);
/// Default of `deadline(reserve_ms = ..)`: the handler is cancelled this long before the platform's deadline,
/// and the cleanup takes at most this long.
pub const RESERVE: Duration = Duration::from_millis(250);
/// Part of the reserve that is left for posting the response; at most half of the reserve.
pub const RESPONSE_MARGIN: Duration = Duration::from_millis(50);
/// How long `background = "wait"` waits for background tasks if the deadline is unknown.
pub const BACKGROUND: Duration = Duration::from_secs(60);
/// Timeout of [`shutdown`](crate::shutdown). AWS Lambda leaves 300 ms between SIGTERM and SIGKILL if an
/// external extension is registered, 500 ms otherwise.
pub const SHUTDOWN: Duration = Duration::from_millis(250);
/// How long a pool may take to connect before the runtime connects to the server itself to find the cause, if
/// the server refused the pool in that time. sqlx retries a refused connection silently until `acquire_ms` is
/// over.
pub const CONNECT_DIAGNOSIS_DELAY: Duration = Duration::from_millis(250);
/// Upper bound of the first retry delay (full jitter) when the server is at its connection limit. The bound
/// doubles with every retry.
pub const RETRY_FIRST: Duration = Duration::from_millis(20);
/// Maximum of that upper bound.
pub const RETRY_MAX: Duration = Duration::from_millis(400);
/// Minimum interval between two load queries of `close = "pressure"`, plus or minus up to a half of it.
pub const PRESSURE_INTERVAL: Duration = Duration::from_secs(1);
/// Timeout of such a load query.
pub const PRESSURE_ASK: Duration = Duration::from_millis(250);
/// How long a reused connection may take to reply before another one is opened beside it. Longer than a round
/// trip within a region, so that a healthy connection does not cause a second one.
pub const HEDGE_AFTER: Duration = Duration::from_millis(20);
/// Maximum jitter on top of [`HEDGE_AFTER`]: environments that thaw together do not all connect at the same
/// moment.
pub const HEDGE_SPREAD: Duration = Duration::from_millis(40);
/// Timeout of a reply in multiples of the measured round trip, if that is longer than the reply's own bound.
pub const REPLY_ROUND_TRIPS: u32 = 3;
/// Like [`HEDGE_AFTER`], in multiples of the measured round trip. The longer of the two applies.
pub const HEDGE_ROUND_TRIPS: u32 = 2;
/// Timeout of the whole cleanup in multiples of the measured round trip, if that is longer than the reserve: a
/// rollback, a reset and two pings of sqlx's pool, or a new connection that cancels a query. Never beyond the
/// deadline.
pub const CLEANUP_ROUND_TRIPS: u32 = 16;
/// Maximum round trip from which timeouts are derived: that of a satellite network.
pub const MAX_ROUND_TRIP: Duration = Duration::from_millis(600);
/// How long statements that the handler left unfinished may take to end (a rollback takes a round trip) before
/// they are cancelled on the server.
pub const DRAIN_TIMEOUT: Duration = Duration::from_millis(50);
/// Like [`DRAIN_TIMEOUT`], for sqlx's pool. The pool returns a connection in a task of its own, after a ping.
/// In a small function (128 MB are a fourteenth of a processor) that task runs later.
pub const POOL_DRAIN_TIMEOUT: Duration = Duration::from_millis(100);
/// Minimum interval between the openings of two connections of sqlx's pool. The pool exposes only a
/// connection's age; the interval makes the ages distinct.
#[cfg(feature = "_sql")]
pub const BIRTHS_APART: Duration = Duration::from_micros(200);
/// Timeout of a cleanup that cancels a query, if the deadline leaves the time. Cancelling opens a connection:
/// in a function of 128 MB (a fourteenth of a processor) its TLS handshake and its password alone take a few
/// hundred milliseconds.
#[cfg(feature = "_sql")]
pub const CANCEL_TIMEOUT: Duration = Duration::from_millis(1_000);
/// Maximum number of connections that are opened to reach the server that runs a query to be cancelled. Behind
/// a balanced address, each may lead to another server.
#[cfg(feature = "_sql")]
pub const CANCEL_CONNECTIONS: u32 = 8;
/// How often PostgreSQL (14 and later) checks, while a query runs, whether its client's socket is still open.
#[cfg(feature = "postgres")]
pub const CLIENT_CHECK: Duration = Duration::from_secs(2);
/// How long a client may be silent before PostgreSQL probes it with TCP keepalive. For a reused connection, its
/// maximum idle time is added: a frozen environment does not reply either, although it still exists.
/// [`KEEPALIVE_INTERVAL`] and [`KEEPALIVE_COUNT`] define the probes. All three together stay below a minute.
#[cfg(feature = "postgres")]
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
/// Interval between two keepalive probes of PostgreSQL.
#[cfg(feature = "postgres")]
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Number of keepalive probes without a reply after which PostgreSQL closes the connection.
#[cfg(feature = "postgres")]
pub const KEEPALIVE_COUNT: u32 = 4;
/// How long a MySQL session may idle before the server ends it and releases its locks. Longer than the 15
/// minutes for which a Lambda function may run. For a reused connection, its maximum idle time is added.
#[cfg(feature = "mysql")]
pub const WAIT_TIMEOUT: Duration = Duration::from_mins(20);
/// How long the transaction of a successful handler waits for a statement that the handler dropped. A rollback
/// to a savepoint takes a round trip. A statement that takes longer than this still runs, and the transaction
/// is not committed.
#[cfg(feature = "_sql")]
pub const DROPPED_STATEMENT: Duration = Duration::from_millis(250);
/// How long the cleanup may spend on having PostgreSQL plan prepared statements. A statement without a plan is
/// prepared again.
#[cfg(feature = "postgres")]
pub const PLANNING: Duration = Duration::from_millis(50);
/// How long a local process may take, after Ctrl-C, SIGTERM or SIGHUP, to cancel its queries and to close.
#[cfg(feature = "local")]
pub const LOCAL_STOP: Duration = Duration::from_millis(2_000);
/// Delay before an orphaned query behind PgBouncer is cancelled a second time: its transaction may have been
/// between two statements at the first time.
#[cfg(feature = "postgres")]
pub const STOP_AGAIN: Duration = Duration::from_millis(10);
/// How often a transaction behind a pooler is restarted because the database has a new type since its
/// connection loaded the types.
#[cfg(feature = "postgres")]
pub const TYPE_LOOKS: u32 = 3;
/// Number of SQLite virtual machine instructions between two checks for an interrupt: well below a millisecond,
/// at no measurable cost.
pub const SQLITE_PROGRESS_STEPS: i32 = 1_000;
/// Timeout of reporting an init error to the platform.
pub const INIT_REPORT: Duration = Duration::from_millis(1_000);

/// How long a streamed body may take to be dropped after its transfer was aborted: the task that pumps it has
/// to notice.
pub const BODY_DROP: Duration = Duration::from_millis(50);
/// Timeout of registering the extension through which AWS Lambda announces the shutdown.
pub const EXTENSION: Duration = Duration::from_millis(1_000);

/// How long a connection of MongoDB's driver may take to return to its pool after its operation was dropped: a
/// task of the driver has to notice.
pub const MONGODB_RETURN: Duration = Duration::from_millis(10);
/// How much of Tencent SCF's time limit may have passed before the event arrives. SCF sends the limit as a
/// duration, and counts it from the moment at which it sends the event.
pub const SCF_DISPATCH: Duration = Duration::from_millis(20);
/// Number of consecutive failed polls of Tencent SCF after which the process ends.
pub const SCF_POLLS: u32 = 3;
/// Delay before another poll.
pub const SCF_POLL_PAUSE: Duration = Duration::from_millis(100);
/// Timeout of a call to Tencent SCF, except the poll for the next event.
pub const SCF_CALL: Duration = Duration::from_millis(3_000);

/// Maximum of `pool(acquire_ms = ..)`: 15 minutes, the longest that a Lambda function may run.
pub const MAX_ACQUIRE_MS: u64 = 900_000;
/// Maximum of `pool(idle_ms = ..)`, `pool(lifetime_ms = ..)` and `check(trust_ms = ..)`: one day.
pub const MAX_AGE_MS: u64 = 86_400_000;
/// Maximum of `check(ping_ms = ..)` and `deadline(reserve_ms = ..)`: one minute.
pub const MAX_CHECK_MS: u64 = 60_000;
/// Maximum of `pool(max = ..)`.
pub const MAX_POOL_SIZE: u32 = 65_535;
