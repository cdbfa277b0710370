//! Test support: live database servers, refusing and silent ports, compiled examples and a small Lambda Runtime API.
//!
//! | need | use |
//! | --- | --- |
//! | a PostgreSQL with an empty database | [`postgres()`]`.fresh_database().await` |
//! | a MariaDB with an empty database | [`mariadb()`]`.fresh_database().await` |
//! | a MongoDB (or its stand-in) with an empty database | [`mongodb()`]`.fresh_url()` |
//! | a separate server with its own settings | [`Postgres::builder`], [`MariaDb::builder`], [`MongoDb::start`] |
//! | connections and running queries | [`Database::wait_until_connections`], [`Database::running_queries`] |
//! | PgBouncer in front of PostgreSQL | [`PgBouncer::start`] |
//! | AWS's services, as simulated by moto | [`aws()`] |
//! | a port that refuses, or accepts and never replies | [`refused_port`], [`SilentListener`] |
//! | a compiled example or binary | [`example`], [`bin`] |
//! | which tests may run concurrently with this one | [`alone`], [`measures_time`], [`waits`] |
//! | the platform's side of a function | [`runtime_api::RuntimeApi`], [`function::Function`] |
//!
//! A missing program fails the test with the command that installs it. No helper relies on a fixed sleep: every wait
//! ends with its event, or after [`PATIENCE`] with a panic that shows the last state.

mod aws;
mod binaries;
pub mod caller;
mod database;
pub mod function;
mod guarded;
mod mariadb;
mod mongodb;
mod pgbouncer;
mod ports;
mod postgres;
mod programs;
pub mod runtime_api;
mod server;
mod tls;
mod turn;
mod wait;

pub use aws::{Aws, aws};
pub use binaries::{bin, example};
pub use database::{Database, Session};
pub use mariadb::{MariaDb, MariaDbBuilder, mariadb};
pub use mongodb::{Connections, MongoDb, MongoRelay, MongoWatch, mongodb};
pub use pgbouncer::{PgBouncer, Pooler};
pub use ports::{SilentListener, free_port, refused_port, silent_listener};
pub use postgres::{Postgres, PostgresBuilder, postgres};
pub use server::DatabaseServer;
pub use turn::{alone, beside, measures_time, waits};
pub use wait::{PATIENCE, wait_for};

/// The README's code, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

/// The code in the attribute's documentation, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../macros/docs/db_handler.md")]
pub struct AttributeDocumentation;
