//! Locking, as everywhere in this crate: short, never across an `.await`.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`, and ignores poisoning: no code of this crate panics while it holds a lock, so the data is
/// consistent. An error here would fail later invocations, too.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
