//! Behaviour under freezes, deadlines, panics and orphaned queries: `&Db<..>`, sqlx's pool and the single connection,
//! each on PostgreSQL, MariaDB and SQLite, observed on the platform and on the server.

mod burst;
mod cancelled;
mod commits;
mod handle;
mod lost_writes;
mod nodelay;
mod outdated;
mod overlap;
mod overlap_pool;
mod pool_says_why;
mod recognized;
mod reset;
mod residue;
mod silence;
mod slow_network;
mod stopped;
mod thaw;
mod vanished;
