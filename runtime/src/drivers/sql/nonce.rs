//! A mark in a statement of ours, which tells the reply to it from the reply to any other.
//!
//! sqlx counts the replies that it still expects, and does not count all of them: those of a `COPY` that was
//! dropped half-way, of a statement that was dropped while it was being prepared. From then on it takes the
//! reply to one statement for the reply to the next. Neither a ping nor a reset without an error shows that.

use super::tag::Tag;
use sqlx::{ColumnIndex, Database, Decode, Row, Type};

/// See the module.
#[derive(Debug)]
pub(super) struct Nonce(String);

impl Nonce {
    pub(super) fn fresh() -> Self {
        Self(format!("recognized {}", Tag::unique()))
    }

    /// As a string in SQL.
    pub(super) fn literal(&self) -> String {
        format!("'{}'", self.0)
    }

    /// Whether it is the first column of `row`.
    pub(super) fn marks<R: Row>(&self, row: &R) -> bool
    where
        usize: ColumnIndex<R>,
        String: for<'r> Decode<'r, R::Database> + Type<R::Database>,
    {
        row.try_get::<String, usize>(0)
            .is_ok_and(|first| first == self.0)
    }

    /// The error of a reply that does not have it.
    pub(super) fn missing<DB: Database>() -> sqlx::Error {
        sqlx::Error::Protocol(format!(
            "the reply was not recognized: sqlx is out of step with {} (was a `COPY` or a statement dropped half-way?)",
            DB::NAME
        ))
    }
}
