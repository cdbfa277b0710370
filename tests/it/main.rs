//! What a handler does against real servers, on real and simulated platforms: one module for each behaviour.
//!
//! The modules are one binary, so that they share one set of servers and run side by side.

mod attribute;
mod credentials;
mod examples;
mod full_server;
mod invocations;
mod lambda;
mod lint_parity;
mod local_mode;
mod logging_in;
mod mongodb;
mod pgbouncer;
mod platform;
mod pressure;
mod refusals;
mod scenarios;
mod scf;
mod soak;
mod streams;
mod support_works;
mod survival;
mod transactions;
mod world;

/// Whether this is the extended run, `tests/run --all`.
fn extended() -> bool {
    std::env::var_os("EXTENDED").is_some()
}

/// The functions that run as a process of their own; the variable `FUNCTION` says which of them it is.
const FUNCTION: &str = env!("CARGO_BIN_EXE_function");
