//! The timeline of an invocation, for the local mode.

use crate::util::lock::lock;
use std::sync::Mutex;
use tokio::time::Instant;

/// The phases of an invocation, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Init,
    Reset,
    Handler,
    Response,
    Cleanup,
}

/// One entry of a timeline.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) phase: Phase,
    pub(crate) from: Instant,
    pub(crate) to: Instant,
    pub(crate) what: String,
}

/// The entries of one invocation.
#[derive(Debug, Default)]
pub(crate) struct Timeline(Mutex<Vec<Entry>>);

impl Timeline {
    pub(crate) fn add(&self, phase: Phase, from: Instant, what: String) {
        let entry = Entry {
            phase,
            from,
            to: Instant::now(),
            what,
        };
        lock(&self.0).push(entry);
    }

    pub(crate) fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut *lock(&self.0))
    }
}
