//! Jitter, to avoid thundering herds.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// Returns a random duration between zero and `bound`.
pub(crate) fn jitter_up_to(bound: Duration) -> Duration {
    // Each `RandomState` has a random key.
    let random = RandomState::new().hash_one(0) >> 32;
    #[allow(clippy::cast_possible_truncation, reason = "shifted to 32 bits")]
    let share = f64::from(random as u32) / f64::from(u32::MAX);
    bound.mul_f64(share)
}
