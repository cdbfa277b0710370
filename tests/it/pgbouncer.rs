//! Handlers behind PgBouncer in transaction mode: each gets only its own rows, and no session state leaks.

mod cancel;
mod end;
mod fuzz;
mod label;
mod pooler;
mod rds;
mod residue;
mod rows;
mod statement;
mod types;
mod world;
