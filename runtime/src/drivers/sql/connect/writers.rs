//! Records which addresses have accepted writes, to tell a writer that a failover has demoted from a reader. The record
//! outlives the pool, because a demoted writer's pool is replaced.

use crate::{resource::AcquireContext, util::lock::lock};
use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

/// Handler, variable and place of a resource: one parameter may read and another write at the same place.
type Key = (&'static str, Option<&'static str>, String);

static SEEN: Mutex<BTreeSet<Key>> = Mutex::new(BTreeSet::new());

/// The record of one address.
pub(super) struct Writer {
    key: Key,
    seen: AtomicBool,
}

impl Writer {
    pub(super) fn at(acquire: &AcquireContext, place: &str) -> Self {
        let key = (acquire.handler(), acquire.settings().env, place.to_owned());
        let seen = lock(&SEEN).contains(&key);
        Self {
            key,
            seen: AtomicBool::new(seen),
        }
    }

    /// Whether a server that has accepted writes accepts none any more, given whether it `takes` them now. A server
    /// that never did is a reader, on purpose.
    pub(super) fn is_demoted(&self, takes: Option<bool>) -> bool {
        match takes {
            Some(true) => {
                if !self.seen.swap(true, Ordering::Relaxed) {
                    lock(&SEEN).insert(self.key.clone());
                }
                false
            }
            Some(false) => self.seen.load(Ordering::Relaxed),
            None => false,
        }
    }
}
