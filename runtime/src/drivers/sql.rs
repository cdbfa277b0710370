//! The databases of sqlx: pools and single connections.

mod commit;
mod connect;
mod connection;
mod db;
mod driver;
mod error;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod function_name;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod nonce;
mod pool;
mod sqlx_pool;
mod tag;
mod tls;
mod users;
mod without_logging;

#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

pub(crate) use db::DbHandle;
pub use db::{Db, DbConnection, DbTransaction};
pub(crate) use driver::Driver;
pub(crate) use pool::Checkout;
#[cfg(feature = "postgres")]
pub use postgres::PgBouncerTransaction;
pub(crate) use sqlx_pool::SqlxHandle;

pub(crate) use error::{kind, ours, symptom};
