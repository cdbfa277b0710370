//! The databases: one folder for each, and what their errors mean.

#[cfg(feature = "mongodb")]
pub(crate) mod mongodb;
#[cfg(feature = "_sql")]
pub(crate) mod sql;

use crate::{
    error::{Error, ErrorKind},
    resource::Symptom,
};
use std::error::Error as StdError;

/// An error of ours that has gone through a driver.
#[cfg(feature = "_sql")]
pub(crate) fn ours(error: &(dyn StdError + 'static)) -> Option<Error> {
    sql::ours(error.downcast_ref()?).cloned()
}

#[cfg(not(feature = "_sql"))]
pub(crate) fn ours(_: &(dyn StdError + 'static)) -> Option<Error> {
    None
}

/// What a driver's error says about the connections of its invocation.
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

/// What kind of failure a driver's error is.
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
