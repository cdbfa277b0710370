//! Finds statements that are not allowed in a transaction behind a pooler, by their text.

use super::lexer::{Backslash, Token, Tokens};
use std::fmt;

/// The first words, except `SET`, for which RDS Proxy pins a session, or which may hide such a statement: AWS's list of
/// "Conditions that cause pinning for RDS for PostgreSQL".
const PINS_FIRST: [&str; 10] = [
    "SET",
    "RESET",
    "DISCARD",
    "LISTEN",
    "UNLISTEN",
    "PREPARE",
    "DEALLOCATE",
    "LOAD",
    "DO",
    "CALL",
];
/// Words that pin a session anywhere in a statement.
const PINS: [&str; 6] = [
    "DECLARE",
    "TEMP",
    "TEMPORARY",
    "NEXTVAL",
    "SETVAL",
    "SET_CONFIG",
];
/// Prefixes of functions that acquire locks, which pin a session.
const PINS_AND_MORE: [&str; 2] = ["pg_advisory_", "pg_try_advisory_"];
/// A longer text makes RDS Proxy pin a session.
const LONGEST_UNPINNED: usize = 16 * 1024;

/// The keyword of a statement that would end the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused(&'static str);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` would end the one transaction that everything has to be in behind a pooler: leave that to the end of the handler, or undo a part with `SAVEPOINT` and `ROLLBACK TO`",
            self.0
        )
    }
}

/// Why `sql` must not be sent: one of its statements would end the transaction.
pub(super) fn refused(sql: &str) -> Option<Refused> {
    let ends = |backslash| ends_the_transaction(Tokens::new(sql, backslash));
    let word = ends(Backslash::Itself).or_else(|| {
        // How the server reads a backslash is a setting that any function may change.
        sql.contains('\\').then(|| ends(Backslash::Escapes))?
    });
    word.map(Refused)
}

/// Whether RDS Proxy may pin the session because of `sql`.
pub(super) fn may_pin(sql: &str) -> bool {
    let mut begins = true;
    let pinned = Tokens::new(sql, Backslash::Itself).any(|token| {
        let is_first = std::mem::replace(&mut begins, token == Token::Semicolon);
        let Token::Word(word) = token else {
            return false;
        };
        let is = |other: &&str| word.eq_ignore_ascii_case(other);
        let begins_with = |start: &&str| {
            word.get(..start.len())
                .is_some_and(|begin| begin.eq_ignore_ascii_case(start))
        };
        is_first && PINS_FIRST.iter().any(is)
            || PINS.iter().any(is)
            || PINS_AND_MORE.iter().any(begins_with)
    });
    pinned || sql.len() > LONGEST_UNPINNED
}

/// Whether `sql` may contain SQL's own `PREPARE`, in any quotes.
pub(super) fn may_prepare(sql: &str) -> bool {
    const WORD: &[u8] = b"prepare";
    let mut windows = sql.as_bytes().windows(WORD.len());
    windows.any(|window| window.eq_ignore_ascii_case(WORD))
}

/// The keyword of the first statement in `tokens` that would end the transaction.
fn ends_the_transaction(tokens: Tokens<'_>) -> Option<&'static str> {
    let mut statement = Statement::default();
    for token in tokens {
        if token != Token::Semicolon {
            statement.push(token);
            continue;
        }
        if let Some(word) = statement.ends() {
            return Some(word);
        }
        statement = Statement {
            in_body: statement.in_body,
            ..Statement::default()
        };
    }
    statement.ends()
}

/// The state of a statement that is being parsed.
#[derive(Default)]
struct Statement<'a> {
    /// The first few words. A token that is not a word counts as an empty one.
    beginning: [&'a str; 4],
    count: usize,
    previous: &'a str,
    /// The number of open parentheses.
    depth: usize,
    /// Whether it is in the body of a function, which is `BEGIN ATOMIC statement; .. END`. The body is stored and not
    /// executed, and PostgreSQL rejects a statement in it that would end a transaction.
    in_body: bool,
}

impl<'a> Statement<'a> {
    fn push(&mut self, token: Token<'a>) {
        let word = token.word();
        let begins_body = is(word, "ATOMIC")
            && is(self.previous, "BEGIN")
            // In parentheses, this is a parameter called `begin` of a type called `atomic`.
            && self.depth == 0
            && self.creates_routine();
        if begins_body {
            *self = Self {
                in_body: true,
                ..Self::default()
            };
            return;
        }
        let ends_body = self.in_body && self.count == 0 && is(word, "END");
        self.in_body &= !ends_body;
        match token {
            Token::Open => self.depth += 1,
            Token::Close => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        if let Some(place) = self.beginning.get_mut(self.count) {
            *place = if ends_body { "" } else { word };
        }
        self.count += 1;
        self.previous = word;
    }

    fn creates_routine(&self) -> bool {
        let [create, second, third, fourth] = self.beginning;
        let kind = if is(second, "OR") && is(third, "REPLACE") {
            fourth
        } else {
            second
        };
        is(create, "CREATE") && (is(kind, "FUNCTION") || is(kind, "PROCEDURE"))
    }

    /// The keyword that would end the transaction, if any.
    fn ends(&self) -> Option<&'static str> {
        let [first, second, third, _] = self.beginning;
        if self.in_body {
            return None;
        }
        if is(first, "PREPARE") && is(second, "TRANSACTION") {
            return Some("PREPARE TRANSACTION");
        }
        let has_noise = is(second, "WORK") || is(second, "TRANSACTION");
        let to_savepoint = is(second, "TO") || has_noise && is(third, "TO");
        if is(first, "ROLLBACK") && to_savepoint {
            return None;
        }
        ["COMMIT", "END", "ROLLBACK", "ABORT"]
            .into_iter()
            .find(|word| is(first, word))
    }
}

fn is(word: &str, keyword: &str) -> bool {
    word.eq_ignore_ascii_case(keyword)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_end_the_transaction_are_refused() {
        for (sql, word) in [
            ("COMMIT", "COMMIT"),
            ("  commit and chain;", "COMMIT"),
            ("select 1; End", "END"),
            ("/* a /* nested */ one */ rollback", "ROLLBACK"),
            ("-- a line\nabort", "ABORT"),
            ("rollback work", "ROLLBACK"),
            (
                "insert into t values (';'); rollback transaction",
                "ROLLBACK",
            ),
            ("select E'\\''; commit", "COMMIT"),
            ("select 'a\\'; commit; --'", "COMMIT"),
            ("select E'a'\n'b\\''; commit; --'", "COMMIT"),
            ("select E'a' -- c\n'b\\''; commit; --'", "COMMIT"),
            // If `standard_conforming_strings` is off, the first literal ends later.
            ("select '\\'', '; commit; --'", "COMMIT"),
            ("select 'C:\\', '; commit'", "COMMIT"),
            ("select $1; commit", "COMMIT"),
            ("select $x$ ; $x$; commit", "COMMIT"),
            ("prepare transaction 'x'", "PREPARE TRANSACTION"),
            (";;commit", "COMMIT"),
            ("select \"a\"\"; b\"; commit", "COMMIT"),
            (
                "create function f() returns int begin atomic select 1; end; commit",
                "COMMIT",
            ),
            (
                "create function f(begin atomic) returns int language sql as 'select 1'; commit",
                "COMMIT",
            ),
            ("select 1 begin atomic; commit", "COMMIT"),
        ] {
            assert_eq!(refused(sql), Some(Refused(word)), "{sql}");
        }
    }

    #[test]
    fn other_statements_are_let_through() {
        for sql in [
            "",
            "select 'commit'",
            "select 1 as commit",
            "select '; commit'",
            "select E'\\'; commit'",
            "select $$; commit; $$",
            "create function f() returns int language plpgsql as $f$ begin return 1; end; $f$",
            "create function f() returns int begin atomic select 1; select 2; end; select 3",
            "create or replace procedure p(a int) begin atomic end",
            "create function f() returns int begin atomic select case when true then 1 end; end",
            "select $1, '; end'",
            "-- ; commit\nselect 1",
            "/* ; commit */ select 1",
            "savepoint a; rollback to a; rollback work to savepoint a",
            "select \"; commit\"",
            "select case when true then 1 end",
            "set local work_mem = 1; set transaction read only; set constraints all deferred",
            "set search_path to shop; reset all; listen orders; prepare p as select 1",
            "update t set a = 1",
            "insert into t values ('C:\\', 'commit; ')",
            "select '",
            "/* open",
            "select $tag$ open",
            "select \u{e9}$",
        ] {
            assert_eq!(refused(sql), None, "{sql}");
        }
    }

    #[test]
    fn statements_that_pin_a_session_are_found() {
        for sql in [
            "set local work_mem = 1",
            "select 1; Set transaction read only",
            "reset all",
            "do $$ begin perform set_config('a.b', '1', false); end $$",
            "select nextval('orders_id_seq')",
            "create temp table t (id int) on commit drop",
            "select pg_advisory_xact_lock(1)",
            "declare c cursor for select 1",
            "select set_config('a.b', '1', true)",
        ] {
            assert!(may_pin(sql), "{sql}");
        }
        assert!(may_pin(&format!("select '{}'", "x".repeat(16 * 1024))));
        for sql in [
            "update orders set item = 'set' where id = $1",
            "insert into orders (item) values ('nextval') returning id",
            "select 1 -- set",
        ] {
            assert!(!may_pin(sql), "{sql}");
        }
    }

    #[test]
    fn prepare_is_found_in_quotes() {
        assert!(may_prepare("do $$ begin execute 'Prepare p as ..'; end $$"));
        assert!(!may_prepare("select 1"));
    }
}
