//! Measures a function with db-handler against everything that people use instead, in the sandbox: the same server, the
//! same events, the environments frozen between invocations, and the contenders taking turns.
//!
//! Data flows one way: [`contender`] (who) and [`bed`] (where) -> `measure` (samples, one JSON file for each section)
//! -> `report` (statistics, tables, plots). `README.md` beside this crate says how to run it and how to read it.

pub mod bed;
pub mod cli;
pub mod contender;
mod measure;
mod protocol;
mod record;
mod report;
mod stats;
mod wiretap;
