//! Behind a PgBouncer that pools transactions: nobody gets another one's rows, and nobody notices it.

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
