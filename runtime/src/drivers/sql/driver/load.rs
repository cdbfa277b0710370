//! How full a server is.

use sqlx::Database;
use std::future::Future;

/// The connections of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Those that are open, whoever has them.
    pub(in crate::drivers::sql) used: u32,
    /// Those that ordinary users may have: reserved ones do not count.
    pub(in crate::drivers::sql) room: u32,
}

/// A database that can be asked how full it is.
pub trait Pressured: Database {
    /// Asks by one cheap statement, which needs no privilege; `None` where there is no limit.
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
