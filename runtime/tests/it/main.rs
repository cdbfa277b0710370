//! Tests of the lifecycle with a resource that has no database, one module per behaviour.

#[macro_use]
mod fake;
mod floors;
mod words;

mod background;
mod commits;
mod concurrency;
mod endings;
mod model;
mod panics;
mod policies;
mod shutdown;
