//! Utilities that depend on no other module of this crate but `error`.

pub(crate) mod catch_panic;
pub(crate) mod clock;
#[cfg(feature = "_sql")]
pub(crate) mod jitter;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "mongodb"))]
pub(crate) mod local_host;
pub(crate) mod lock;
pub(crate) mod regular_file;
