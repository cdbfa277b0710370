//! The databases that sqlx speaks to: pools and single connections.

mod connections;
mod driver;
mod fault;
mod jitter;
mod label;
mod login;
mod pool;
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

pub(crate) use fault::{kind, symptom};
