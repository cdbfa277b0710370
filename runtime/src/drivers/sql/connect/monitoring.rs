//! Which servers accept the monitoring in the connect options: probed once per process.

use crate::util::lock::lock;
use std::{collections::BTreeMap, sync::Mutex};

/// A server's reaction to the parameters that [`Driver::monitored`](super::Driver::monitored) adds to the options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Monitoring {
    Unknown,
    /// Unknown, and there was no time to probe the server after an invocation.
    StillUnknown,
    Accepted,
    /// The server is too old, or a pooler in front of it rejects the parameters.
    Refused,
}

impl Monitoring {
    pub(super) fn is_known(self) -> bool {
        matches!(self, Self::Accepted | Self::Refused)
    }
}

/// By host, port and database.
static LEARNED: Mutex<BTreeMap<String, Monitoring>> = Mutex::new(BTreeMap::new());

/// What is known about a server.
pub(super) fn of(target: &str) -> Monitoring {
    let learned = lock(&LEARNED).get(target).copied();
    learned.unwrap_or(Monitoring::Unknown)
}

pub(super) fn record(target: String, monitoring: Monitoring) {
    lock(&LEARNED).insert(target, monitoring);
}
