//! Tests of handlers against real servers, on real and simulated platforms, one module per behaviour.
//!
//! All modules are in one binary, so that they share one set of servers and run concurrently.

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

/// Whether this is an extended run (`tests/run --all`).
fn extended() -> bool {
    std::env::var_os("EXTENDED").is_some()
}

/// The binary with all test functions; the variable `FUNCTION` selects one of them.
const FUNCTION: &str = env!("CARGO_BIN_EXE_function");
