//! Random identifiers: request ids, trace ids, marks.

use std::hash::{BuildHasher, RandomState};

/// 64 random bits. The standard library seeds each `RandomState` from the system's randomness, which is enough
/// for unique ids without a dependency.
pub(crate) fn bits() -> u64 {
    RandomState::new().hash_one(std::time::Instant::now())
}

/// A version 4 UUID.
pub(crate) fn uuid() -> String {
    let (a, b) = (bits(), bits());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        a >> 32,
        a >> 16 & 0xffff,
        a & 0xfff,
        b >> 48 & 0x3fff | 0x8000,
        b & 0xffff_ffff_ffff
    )
}

/// An X-Ray trace header.
pub(crate) fn trace(epoch_ms: u64) -> String {
    let (root, parent) = (bits(), bits());
    format!(
        "Root=1-{:08x}-{:08x}{root:016x};Parent={parent:016x};Sampled=0",
        epoch_ms / 1000,
        bits() & 0xffff_ffff
    )
}
