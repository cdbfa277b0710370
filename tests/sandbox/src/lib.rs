//! Simulates AWS Lambda (or Tencent SCF) for any binary that uses its runtime API: cold starts, freezes between
//! invocations, deadlines, crashes and shutdowns, with a network to the database that can be slow, go dark or break
//! at a chosen moment.
//!
//! ```no_run
//! use std::time::Duration;
//! use sandbox::{Fault, Function, Sandbox};
//!
//! # async fn scenario() -> Result<(), Box<dyn std::error::Error>> {
//! let sandbox = Sandbox::new(Function::new("target/release/my-function"))
//!     .timeout(Duration::from_secs(5))
//!     .rtt(Duration::from_millis(1))
//!     .database("DATABASE_URL", "postgres://app@127.0.0.1:5432/app")?;
//!
//! let environment = sandbox.start().await?;
//! assert!(environment.invoke(serde_json::json!({"order": 1})).await.is_answered());
//! // The environment is frozen, and its idle connections go dark.
//! environment.apply(Fault::DarkExisting);
//! let second = environment.invoke(serde_json::json!({"order": 2})).await;
//! assert!(second.is_answered() && second.waited < Duration::from_millis(500));
//! environment.shutdown().await;
//! # Ok(()) }
//! ```

mod api;
pub mod cli;
mod clock;
mod environment;
mod fleet;
mod function;
mod ids;
mod life;
mod limits;
mod observe;
mod plan;
mod platform;
mod process;
mod proxy;
mod record;
mod report;
mod sandbox;

pub use self::{
    clock::{Epoch, millis},
    environment::Environment,
    fleet::{Fleet, RunError},
    function::{Event, Function},
    life::Ended,
    limits::Limits,
    observe::Sample,
    plan::{Incident, Moment, Plan, parse_duration},
    platform::Platform,
    proxy::{ConnectionRecord, Fault, Proxy, ProxyStats},
    record::{After, InitFailure, Invocation, Outcome, Phase, PhaseKind, Violation},
    report::{
        Connections, EnvironmentReport, FreezeNote, Percentiles, Report, Residue, Setting, Totals,
        Verdict,
    },
    sandbox::Sandbox,
};
