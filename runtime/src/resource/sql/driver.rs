//! What differs between the databases.

use super::{login::Identify, pressure::Pressured};
use crate::error::ErrorKind;
use sqlx::{ConnectOptions, Connection, Database, error::DatabaseError, pool::Pool};

/// A database that sqlx speaks to. Sealed: implemented for `Postgres`, `MySql` and `Sqlite`.
pub trait Driver:
    Database<Connection: Connection<Options = Self::Options> + Send> + Pressured + sealed::Sealed
{
    /// Where and how to connect.
    type Options: ConnectOptions<Connection = Self::Connection> + Identify + Send + Sync + Clone;

    /// What its pool is called in errors and drawings.
    const POOL: &'static str;
    /// What a single connection is called in errors and drawings.
    const CONNECTION: &'static str;
    /// The schemes of its URLs.
    const SCHEMES: &'static [&'static str];

    /// A URL as it should look.
    const EXAMPLE: &'static str;

    /// Reads a URL.
    ///
    /// # Errors
    /// When sqlx cannot read it.
    fn options(url: &str) -> Result<Self::Options, sqlx::Error>;

    /// The same options leading nowhere: connecting with them fails at once, without any network,
    /// and not in a way that sqlx's pool would try again.
    fn nowhere(options: &Self::Options) -> Self::Options;

    /// Host, port and database: what an error may show of a URL.
    fn target(options: &Self::Options) -> String;

    /// What the database's own error code says about a connection that could not be had; `None` for
    /// an ordinary failure of a statement.
    fn kind(error: &dyn DatabaseError) -> Option<ErrorKind>;

    /// Whether the server, or a proxy before it, has no room for one more connection right now.
    fn has_no_room(error: &dyn DatabaseError) -> bool;
}

/// A socket that does not exist: not being found is no refusal, which sqlx's pool would retry.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(super) const NO_SOCKET: &str = "/dev/null/given-up-by-db-handler";

pub(super) mod sealed {
    /// Keeps [`Driver`](super::Driver) for the databases that are known here.
    pub trait Sealed {}
}

impl<DB: Driver> crate::resource::Shared for Pool<DB> {
    type Resource = super::SqlPool<DB>;

    fn borrow(resource: &Self::Resource) -> &Self {
        resource.pool()
    }
}
