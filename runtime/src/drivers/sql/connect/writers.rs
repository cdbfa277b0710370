//! Which addresses have taken writes: a writer that a failover has demoted is told by that from a reader. Known for
//! longer than a pool lives, because the pool is replaced then.

use crate::{resource::Acquire, util::lock::lock};
use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

/// Handler, variable, and place of a resource: the same place may be read through one and written through
/// another.
type Key = (&'static str, Option<&'static str>, String);

static SEEN: Mutex<BTreeSet<Key>> = Mutex::new(BTreeSet::new());

/// What is known of one address.
pub(super) struct Writer {
    key: Key,
    seen: AtomicBool,
}

impl Writer {
    pub(super) fn at(acquire: &Acquire, place: &str) -> Self {
        let key = (acquire.handler(), acquire.settings().env, place.to_owned());
        let seen = lock(&SEEN).contains(&key);
        Self {
            key,
            seen: AtomicBool::new(seen),
        }
    }

    /// Whether a server that has taken writes takes none any more, now that it is seen whether it `takes` them. One that
    /// never did is a reader, and meant to be.
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
