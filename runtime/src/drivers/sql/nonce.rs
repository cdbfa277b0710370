//! A random value in a statement, which distinguishes the reply to it from any other reply.
//!
//! sqlx counts the replies that it still expects, but not all of them: not those of a dropped `COPY`, nor those of a
//! statement that was dropped during its preparation. From then on, it takes the reply to one statement for the reply
//! to the next. Neither a ping nor a successful reset detects this.

use super::tag::Tag;
use sqlx::{ColumnIndex, Database, Decode, Row, Type};

/// A value that occurs in one statement only.
#[derive(Debug)]
pub(super) struct Nonce(String);

impl Nonce {
    pub(super) fn fresh() -> Self {
        Self(format!("recognized {}", Tag::unique()))
    }

    /// The nonce as an SQL string.
    pub(super) fn literal(&self) -> String {
        format!("'{}'", self.0)
    }

    /// Whether the first column of `row` is the nonce.
    pub(super) fn marks<R: Row>(&self, row: &R) -> bool
    where
        usize: ColumnIndex<R>,
        String: for<'r> Decode<'r, R::Database> + Type<R::Database>,
    {
        row.try_get::<String, usize>(0)
            .is_ok_and(|first| first == self.0)
    }

    /// The error of a reply without the nonce.
    pub(super) fn missing<DB: Database>() -> sqlx::Error {
        sqlx::Error::Protocol(format!(
            "the reply was not recognized: sqlx is out of step with {} (was a `COPY` or a statement dropped half-way?)",
            DB::NAME
        ))
    }
}
