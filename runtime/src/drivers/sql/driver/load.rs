//! A server's load.

use sqlx::Database;
use std::future::Future;

/// The connections of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Open connections of all clients.
    pub(in crate::drivers::sql) used: u32,
    /// The limit for ordinary users, without reserved connections.
    pub(in crate::drivers::sql) room: u32,
}

/// A database that reports its load.
pub trait Capacity: Database {
    /// Reads the load with one cheap statement, which needs no privilege; `None` if there is no limit.
    fn load(
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<Option<Load>, sqlx::Error>> + Send;
}

impl Load {
    /// Whether more than `share` of the room is used.
    pub(in crate::drivers::sql) fn is_beyond(self, share: f64) -> bool {
        f64::from(self.used) > share * f64::from(self.room)
    }
}
