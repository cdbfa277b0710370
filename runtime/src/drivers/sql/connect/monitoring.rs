//! Which servers let a connection be opened that says how it is to be monitored: learned once per process.

use crate::util::lock::lock;
use std::{collections::BTreeMap, sync::Mutex};

/// What a server does about what [`Driver::monitored`](super::Driver::monitored) adds to the options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Monitoring {
    Unknown,
    /// Nor was there time to find it out after an invocation.
    StillUnknown,
    Accepted,
    /// The server is too old, or a pooler in front of it knows no such parameters.
    Refused,
}

impl Monitoring {
    pub(super) fn is_known(self) -> bool {
        matches!(self, Self::Accepted | Self::Refused)
    }
}

/// By host, port and database.
static LEARNED: Mutex<BTreeMap<String, Monitoring>> = Mutex::new(BTreeMap::new());

/// What is known of a server.
pub(super) fn of(target: &str) -> Monitoring {
    let learned = lock(&LEARNED).get(target).copied();
    learned.unwrap_or(Monitoring::Unknown)
}

pub(super) fn learn(target: String, monitoring: Monitoring) {
    lock(&LEARNED).insert(target, monitoring);
}
