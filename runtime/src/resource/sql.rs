//! The databases that sqlx speaks to: pools and single connections.

mod address;
mod db;
mod driver;
mod fault;
#[cfg(feature = "postgres")]
mod label;
mod link;
mod nodelay;
mod pool;
mod set;
mod silent;
mod tag;
mod thaw;
mod url;

#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use db::{Db, DbConnection, DbTransaction};
pub use driver::Driver;
pub use pool::SqlPool;
pub use set::Lent;
pub use tag::Tag;

pub(crate) use fault::{kind, ours, symptom};
