//! The databases that sqlx speaks to: pools and single connections.

mod address;
mod advice;
mod commit;
mod db;
mod driver;
mod fault;
mod jitter;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod label;
mod link;
mod login;
mod monitoring;
mod nodelay;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod nonce;
mod pool;
#[cfg(feature = "postgres")]
mod pooled;
mod pressure;
mod retry;
mod round_trip;
mod silent;
mod sqlx_pool;
mod tag;
mod thaw;
mod tls;
mod transaction;
mod url;
mod users;
mod writers;

#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use db::{Db, DbConnection, DbHandle, DbPool, DbTransaction};
pub use driver::Driver;
pub use pool::Checkout;
#[cfg(feature = "postgres")]
pub use pooled::PooledTransaction;
pub use sqlx_pool::{SqlxHandle, SqlxPool};
pub use tag::Tag;
pub use transaction::{OwnTransaction, TransactionLoan};

pub(crate) use fault::{kind, ours, symptom};
