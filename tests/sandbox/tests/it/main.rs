//! Tests of the simulator, one module per part.
#![allow(clippy::unwrap_used)]

mod command;
mod common;
mod databases;
mod extensions;
mod life_of_an_environment;
mod network;
mod no_survivors;
mod runtime_api;
mod scf;
#[allow(dead_code, unreachable_pub, reason = "all of these tests measure time")]
#[path = "../../../support/turn.rs"]
mod turn;
