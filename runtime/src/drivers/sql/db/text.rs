//! Detects from its text whether a statement may leave a transaction open. sqlx knows this, but does not expose it.

use sqlx::{Database, Execute, SqlStr};
use sqlx_core::error::BoxDynError;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// A statement without any of these words leaves no transaction open. A procedure may begin one, and so may SQL that is
/// assembled on the server. A false positive costs a round trip, a false negative a write.
const WORDS: &[&str] = &[
    "begin",
    "transaction",
    "savepoint",
    "chain",
    "autocommit",
    "completion_type",
    "call",
    "execute",
    "xa",
];

/// Wraps `query`, and inspects its text when sqlx asks for it.
pub(super) fn watch<Q>(query: Q) -> (Watched<Q>, Text) {
    let found = Arc::new(AtomicBool::new(false));
    let text = Text(Arc::clone(&found));
    (Watched { query, found }, text)
}

pub(super) struct Text(Arc<AtomicBool>);

impl Text {
    pub(super) fn may_leave_a_transaction(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) struct Watched<Q> {
    query: Q,
    found: Arc<AtomicBool>,
}

impl<'q, DB: Database, Q: Execute<'q, DB>> Execute<'q, DB> for Watched<Q> {
    fn sql(self) -> SqlStr {
        let sql = self.query.sql();
        if begins(sql.as_str()) {
            self.found.store(true, Ordering::Relaxed);
        }
        sql
    }

    fn statement(&self) -> Option<&DB::Statement> {
        self.query.statement()
    }

    fn take_arguments(&mut self) -> Result<Option<DB::Arguments>, BoxDynError> {
        self.query.take_arguments()
    }

    fn persistent(&self) -> bool {
        self.query.persistent()
    }
}

fn begins(sql: &str) -> bool {
    sql.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'))
        .any(|word| WORDS.iter().any(|known| word.eq_ignore_ascii_case(known)))
}

#[cfg(test)]
mod tests {
    use super::begins;

    #[test]
    fn transaction_words_are_found_in_any_form() {
        for sql in [
            "BEGIN",
            "insert into a values (1);begin;insert into a values (2)",
            "START/**/TRANSACTION",
            "/*!40000 begin*/",
            "SET @@autocommit=0",
            "savepoint a",
            "COMMIT AND CHAIN",
            "CALL book(1)",
            "XA START 'a'",
        ] {
            assert!(begins(sql), "{sql}");
        }
    }

    #[test]
    fn ordinary_statements_are_not_suspected() {
        for sql in [
            "SELECT begin_at, started FROM calls",
            "INSERT INTO transactions VALUES ($1)",
            "COMMIT",
            "",
        ] {
            assert!(!begins(sql), "{sql}");
        }
    }
}
