//! The one way in which this crate locks: short, never across an `.await`.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`. Nothing panics while it holds one of this crate's locks; if something did, the data
/// would still be whole, and a handler's panic elsewhere must not spread to the next event.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
