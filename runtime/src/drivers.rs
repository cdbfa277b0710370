//! The database drivers, and the classification of their errors.

#[cfg(feature = "mongodb")]
pub(crate) mod mongodb;
#[cfg(feature = "_sql")]
pub(crate) mod sql;

use crate::{
    error::{Error, ErrorKind},
    resource::Symptom,
};
use std::error::Error as StdError;

/// Returns the crate's own error that a driver passed through.
#[cfg(feature = "_sql")]
pub(crate) fn ours(error: &(dyn StdError + 'static)) -> Option<Error> {
    sql::ours(error.downcast_ref()?).cloned()
}

#[cfg(not(feature = "_sql"))]
pub(crate) fn ours(_: &(dyn StdError + 'static)) -> Option<Error> {
    None
}

/// The symptom that a driver's error shows, if any.
pub(crate) fn symptom(error: &(dyn StdError + 'static)) -> Option<Symptom> {
    #[cfg(feature = "_sql")]
    if let Some(error) = error.downcast_ref() {
        return sql::symptom(error);
    }
    #[cfg(feature = "mongodb")]
    if let Some(error) = error.downcast_ref() {
        return mongodb::symptom(error);
    }
    let _ = error;
    None
}

/// The kind of a driver's error.
pub(crate) fn kind(error: &(dyn StdError + 'static)) -> Option<ErrorKind> {
    #[cfg(feature = "_sql")]
    if let Some(error) = error.downcast_ref() {
        return Some(sql::kind(error));
    }
    #[cfg(feature = "mongodb")]
    if let Some(error) = error.downcast_ref() {
        return Some(mongodb::kind(error));
    }
    let _ = error;
    None
}
