//! Chance, so that many instances do not do the same thing in the same moment.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// A time between nothing and `bound`.
pub(crate) fn jitter_up_to(bound: Duration) -> Duration {
    // Every one of std's hashers has a random key.
    let random = RandomState::new().hash_one(0) >> 32;
    #[allow(clippy::cast_possible_truncation, reason = "shifted to 32 bits")]
    let share = f64::from(random as u32) / f64::from(u32::MAX);
    bound.mul_f64(share)
}
