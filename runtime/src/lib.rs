//! A database inside a serverless function: opened once, reset for every invocation, closed in the
//! end.
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
//! * [`db_handler`](macro@db_handler) is the attribute: what it takes, and what it makes of a function.
//! * [`run`] takes an annotated handler to AWS Lambda, to Tencent SCF, or to a terminal.
//! * [`Background`] takes tasks that the caller need not wait for.
//! * [`Error`] says which stage failed, and why.
//! * [`resource`] has the traits to lend a client of your own.
//! * [`credentials`] says where user and password come from, if not from the URL.
//! * [`config`] has every default and range, and most bounds.
//!
//! # The lifecycle
//!
//! 1. **Init once**: the URL is read and the resource opened, by one caller at a time.
//! 2. **Reset**: what was kept is used, checked or replaced, depending on how long the sandbox stood
//!    still.
//! 3. **Handler**: run until shortly before the platform's deadline, its panics caught.
//! 4. **Finally**: wait for background tasks, settle, then keep or close, bounded in every step.
//!
//! Each handler has one *slot* for each resource parameter; a slot holds at most one live
//! *generation* of the resource; an invocation holds a *lease* on a generation. Several leases at once
//! are normal: the last one out closes. After an abnormal end (panic, deadline, dropped future) a
//! generation is replaced, not repaired.
//!
//! # Features
//!
//! | feature | on by default | what it adds |
//! | --- | --- | --- |
//! | `macros` | yes | the attribute |
//! | `local` | yes | [`run`] outside a platform |
//! | `postgres` | | `&Db<Postgres>`, `&PgPool`, `&mut PgConnection`, `&mut PgTransaction<'_>` |
//! | `mysql` | | `&Db<MySql>`, `&MySqlPool`, `&mut MySqlConnection`, `&mut MySqlTransaction<'_>`, for MariaDB, too |
//! | `sqlite` | | `&Db<Sqlite>`, `&SqlitePool`, `&mut SqliteConnection`, `&mut SqliteTransaction<'_>`, with SQLite compiled in |
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

#[cfg(feature = "macros")]
pub use db_handler_macros::db_handler;
#[cfg(feature = "postgres")]
pub use drivers::sql::PgBouncerTransaction;
#[cfg(feature = "_sql")]
pub use drivers::sql::{Db, DbConnection, DbTransaction};
pub use error::{Error, ErrorKind, Stage};
pub use event::{
    Event, Invocation,
    response::{Answer, HandlerError},
};
pub use lambda_runtime::{Context, LambdaEvent};
pub use lifecycle::{
    background::{Background, Task},
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
