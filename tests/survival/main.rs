//! What no freeze, no deadline, no panic and no stray work may break: `&Db<..>`, sqlx's pool and the
//! single connection, each on PostgreSQL, MariaDB and SQLite, seen from the platform and the server.

mod burst;
mod cancelled;
mod handle;
mod nodelay;
mod reset;
mod silence;
mod stopped;
mod thaw;
mod vanished;
mod world;
