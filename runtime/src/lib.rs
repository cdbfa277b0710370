//! Database connections with the lifecycle of a serverless function: opened once, reset for every invocation,
//! closed at the end.
//!
//! ```no_run
//! # #[cfg(feature = "postgres")]
//! # mod example {
//! use db_handler::{
//!     Error, LambdaEvent, db_handler,
//!     sqlx::{self, PgPool},
//! };
//!
//! #[db_handler(pool(max = 2, acquire_ms = 3000), close = "always")]
//! async fn count_orders(event: LambdaEvent<String>, db: &PgPool) -> Result<i64, Error> {
//!     let count = sqlx::query_scalar("SELECT count(*) FROM orders WHERE item = $1")
//!         .bind(event.payload)
//!         .fetch_one(db)
//!         .await?;
//!     Ok(count)
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Error> {
//!     db_handler::run(count_orders).await
//! }
//! # }
//! # fn main() {}
//! ```
//!
//! * [`db_handler`](macro@db_handler) is the attribute. Its page lists the arguments and shows the expansion.
//! * [`run`] serves an annotated handler on AWS Lambda, on Tencent SCF or in a terminal.
//! * [`Background`] spawns tasks that do not delay the response.
//! * [`Error`] names the stage that failed and the cause.
//! * [`resource`] has the traits for passing your own clients to handlers.
//! * [`credentials`] has providers of user and password, for URLs without them.
//! * [`config`] has all defaults and ranges, and most bounds.
//!
//! # The lifecycle
//!
//! 1. **Init once**: reads the URL and opens the resource, for one caller at a time.
//! 2. **Reset**: uses, checks or replaces an idle resource, depending on how long the environment was frozen.
//! 3. **Handler**: runs until shortly before the platform's deadline. Panics are caught.
//! 4. **Cleanup**: waits for background tasks, drains, then reuses or closes. Every step is bounded in time.
//!
//! Each handler has one *slot* for each resource parameter. A slot holds at most one live *generation* of the
//! resource. An invocation holds a *lease* on a generation. Several leases at once are normal: the last lease
//! to end closes the generation. After an abnormal end (panic, deadline, dropped future) a generation is
//! replaced, not repaired.
//!
//! # Features
//!
//! | feature | on by default | what it adds |
//! | --- | --- | --- |
//! | `macros` | yes | the attribute |
//! | `local` | yes | [`run`] outside a platform |
//! | `postgres` | | `&PgDb`, `&PgPool`, `&mut PgConnection`, `&mut PgTransaction<'_>` |
//! | `mysql` | | `&MySqlDb`, `&MySqlPool`, `&mut MySqlConnection`, `&mut MySqlTransaction<'_>`, for MariaDB, too |
//! | `sqlite` | | `&SqliteDb`, `&SqlitePool`, `&mut SqliteConnection`, `&mut SqliteTransaction<'_>`; compiles SQLite |
//! | `mongodb` | | `&mongodb::Client`, `&mongodb::Database`, with TLS and `mongodb+srv://` |
//! | `scf` | | [`run`] on Tencent Cloud Functions |
//! | `tls-rustls` | yes | TLS to SQL databases by rustls, with the public authorities compiled in |
//! | `tls-native-tls` | | TLS to SQL databases by the system's library, which is used where both features are on |
//! | `rds-iam` | | logging in to RDS and Aurora with IAM tokens |
//! | `secrets-manager` | | user and password from AWS Secrets Manager |
//! | `anyhow` | | handlers that return `anyhow::Error` |

#[allow(
    unused_extern_crates,
    reason = "the attribute writes `::db_handler`, also in this crate's own examples and tests"
)]
extern crate self as db_handler;

pub mod config;
pub mod credentials;
mod drivers;
mod error;
mod event;
#[cfg(test)]
#[path = "../tests/it/fake/mod.rs"]
mod fake;
mod lifecycle;
mod platform;
pub mod resource;
mod util;

#[doc(hidden)]
#[path = "macro_support.rs"]
pub mod __private;

pub use config::{Close, Config, Connect, Proxy};
#[cfg(feature = "macros")]
pub use db_handler_macros::db_handler;
#[cfg(feature = "postgres")]
pub use drivers::sql::PgBouncerTransaction;
#[cfg(feature = "_sql")]
pub use drivers::sql::{Db, DbConnection, DbTransaction};
pub use error::{Error, ErrorKind, Stage};
pub use event::{
    Event, Invocation,
    response::{HandlerError, HandlerResult},
};
pub use lambda_runtime::{Context, LambdaEvent};
pub use lifecycle::{
    background::{Background, BackgroundTask},
    shutdown::shutdown,
};
#[cfg(feature = "mongodb")]
pub use mongodb;
pub use platform::{Handler, Options, run, run_with};
#[cfg(feature = "_sql")]
pub use sqlx;

/// A MySQL or MariaDB database: `&MySqlDb`.
#[cfg(feature = "mysql")]
pub type MySqlDb = Db<sqlx::MySql>;
/// A PostgreSQL database: `&PgDb`.
#[cfg(feature = "postgres")]
pub type PgDb = Db<sqlx::Postgres>;
/// A SQLite database: `&SqliteDb`.
#[cfg(feature = "sqlite")]
pub type SqliteDb = Db<sqlx::Sqlite>;
