//! The databases that sqlx speaks to: pools and single connections.

mod advice;
mod connections;
mod driver;
mod fault;
mod jitter;
mod label;
mod login;
mod pool;
#[cfg(feature = "postgres")]
mod pooled;
mod pressure;
mod retry;
mod url;

#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use connections::{Connections, Loan};
pub use driver::Driver;
pub use pool::SqlPool;
#[cfg(feature = "postgres")]
pub use pooled::PooledTransaction;

pub(crate) use fault::{kind, symptom};
