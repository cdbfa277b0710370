//! The lifecycle with a resource that has no database: one module for each of its behaviours.

#[macro_use]
mod fake;
mod floors;

mod background;
mod conclusions;
mod concurrency;
mod endings;
mod model;
mod panics;
mod policies;
mod shutdown;
