//! Which statements have no place in a transaction behind a pooler, told from their text as PostgreSQL's lexer
//! splits it.

use std::fmt;

/// The words that a statement which ends a transaction begins with.
const ENDS: [&str; 4] = ["COMMIT", "END", "ROLLBACK", "ABORT"];
/// The words that a statement begins with whose effect outlives its transaction, in a session that others get.
const OUTLIVES: [&str; 8] = [
    "SET",
    "RESET",
    "DISCARD",
    "LISTEN",
    "UNLISTEN",
    "PREPARE",
    "DEALLOCATE",
    "LOAD",
];
/// What follows `SET` where it holds for the transaction alone.
const LOCAL: [&str; 3] = ["LOCAL", "TRANSACTION", "CONSTRAINTS"];

/// The words, other than `SET` in the beginning, for which RDS Proxy pins a session to its client: AWS's list of
/// "Conditions that cause pinning for RDS for PostgreSQL".
const PINS: [&str; 6] = [
    "DECLARE",
    "TEMP",
    "TEMPORARY",
    "NEXTVAL",
    "SETVAL",
    "SET_CONFIG",
];
/// The same for functions that take locks.
const PINS_AND_MORE: [&str; 2] = ["pg_advisory_", "pg_try_advisory_"];
/// RDS Proxy pins a session for a longer text.
const LONGEST_UNPINNED: usize = 16 * 1024;

/// Why a statement is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// This word would end the transaction.
    Ends(&'static str),
    /// What this word does would be there after the transaction.
    Outlives(&'static str),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ends(word) => write!(
                f,
                "`{word}` would end the one transaction that everything has to be in behind a pooler: leave that to the end of the handler, or undo a part with `SAVEPOINT` and `ROLLBACK TO`"
            ),
            Self::Outlives("SET") => f.write_str(
                "`SET` would outlive the transaction, in a session that another client gets next: write `SET LOCAL`",
            ),
            Self::Outlives(word) => write!(
                f,
                "`{word}` would change a session that another client gets next: it cannot be used behind a pooler"
            ),
        }
    }
}

/// Why one of the statements in `sql` must not be sent, if that is so.
pub(super) fn refused(sql: &str) -> Option<Refused> {
    let mut words = Words { rest: sql };
    let mut statement: Vec<Word<'_>> = Vec::new();
    loop {
        let word = words.next();
        match word {
            // What a statement is, its first three words say.
            Some(word) if word != Word::Semicolon => {
                if statement.len() < 3 {
                    statement.push(word);
                }
            }
            _ => {
                if let Some(why) = why_not(&statement) {
                    return Some(why);
                }
                statement.clear();
            }
        }
        word?;
    }
}

/// Whether RDS Proxy may pin the session because of `sql`.
pub(super) fn may_pin(sql: &str) -> bool {
    let mut begins = true;
    let pinned = Words { rest: sql }.any(|word| {
        let is_first = std::mem::replace(&mut begins, word == Word::Semicolon);
        let Word::Plain(word) = word else {
            return false;
        };
        let is = |other: &&str| word.eq_ignore_ascii_case(other);
        let begins_with = |start: &&str| {
            word.get(..start.len())
                .is_some_and(|begin| begin.eq_ignore_ascii_case(start))
        };
        is_first && is(&"SET") || PINS.iter().any(is) || PINS_AND_MORE.iter().any(begins_with)
    });
    pinned || sql.len() > LONGEST_UNPINNED
}

fn why_not(statement: &[Word<'_>]) -> Option<Refused> {
    let plain = |index: usize| match statement.get(index) {
        Some(Word::Plain(word)) => *word,
        _ => "",
    };
    let is = |index, word: &str| plain(index).eq_ignore_ascii_case(word);
    if is(0, "PREPARE") && is(1, "TRANSACTION") {
        return Some(Refused::Ends("PREPARE TRANSACTION"));
    }
    if let Some(word) = OUTLIVES.iter().find(|word| is(0, word)) {
        let is_local = *word == "SET" && LOCAL.iter().any(|word| is(1, word));
        return (!is_local).then_some(Refused::Outlives(word));
    }
    let word = *ENDS.iter().find(|word| is(0, word))?;
    // ROLLBACK [WORK | TRANSACTION] TO: the transaction goes on.
    let goes_on = word == "ROLLBACK"
        && (is(1, "TO") || ((is(1, "WORK") || is(1, "TRANSACTION")) && is(2, "TO")));
    (!goes_on).then_some(Refused::Ends(word))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word<'a> {
    /// A keyword, a name or a number.
    Plain(&'a str),
    Semicolon,
    /// A literal, a quoted name or an operator.
    Other,
}

/// The words of a text: comments are none, and what is quoted is one.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Words<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        loop {
            self.rest = self.rest.trim_start();
            if let Some(comment) = self.rest.strip_prefix("--") {
                self.rest = comment
                    .split_once(['\n', '\r'])
                    .map_or("", |(_, rest)| rest);
            } else if self.rest.starts_with("/*") {
                self.rest = after_comment(self.rest);
            } else {
                break;
            }
        }
        let first = self.rest.chars().next()?;
        let (word, length) = match first {
            ';' => (Word::Semicolon, 1),
            '\'' => (Word::Other, quoted(self.rest, '\'', false)),
            '"' => (Word::Other, quoted(self.rest, '"', false)),
            '$' => (Word::Other, dollar_quoted(self.rest)),
            'e' | 'E' if self.rest[1..].starts_with('\'') => {
                (Word::Other, 1 + quoted(&self.rest[1..], '\'', true))
            }
            _ if is_of_a_word(first) => {
                let length = self
                    .rest
                    .find(|c| !is_of_a_word(c) && c != '$')
                    .unwrap_or(self.rest.len());
                (Word::Plain(&self.rest[..length]), length)
            }
            _ => (Word::Other, first.len_utf8()),
        };
        self.rest = &self.rest[length..];
        Some(word)
    }
}

fn is_of_a_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || !c.is_ascii()
}

/// What follows a comment, which may have others in it.
fn after_comment(text: &str) -> &str {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return &text[at..];
            }
        } else {
            at += 1;
        }
    }
    ""
}

/// How long the quoted text at the beginning is. Doubled, the quote stands for itself.
fn quoted(text: &str, quote: char, with_backslashes: bool) -> usize {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if with_backslashes && character == '\\' {
            characters.next();
        } else if character == quote && characters.next_if(|(_, next)| *next == quote).is_none() {
            return at + quote.len_utf8();
        }
    }
    text.len()
}

/// How long the text in `$tag$` at the beginning is, or the parameter `$1`.
fn dollar_quoted(text: &str) -> usize {
    let tag_ends = text[1..].find(|c| !is_of_a_word(c));
    let Some(end) = tag_ends.map(|end| end + 1) else {
        return text.len();
    };
    let is_tag =
        text[end..].starts_with('$') && !text[1..].starts_with(|c: char| c.is_ascii_digit());
    if !is_tag {
        return end;
    }
    let tag = &text[..=end];
    text[tag.len()..]
        .find(tag)
        .map_or(text.len(), |at| at + 2 * tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_transaction_is_found() {
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
            ("select $1; commit", "COMMIT"),
            ("select $x$ ; $x$; commit", "COMMIT"),
            ("prepare transaction 'x'", "PREPARE TRANSACTION"),
            (";;commit", "COMMIT"),
            ("select \"a\"\"; b\"; commit", "COMMIT"),
        ] {
            assert_eq!(refused(sql), Some(Refused::Ends(word)), "{sql}");
        }
    }

    #[test]
    fn what_pins_a_session_is_found() {
        for sql in [
            "set local work_mem = 1",
            "select 1; Set transaction read only",
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
    fn what_outlives_it_is_found() {
        for (sql, word) in [
            ("set search_path to shop", "SET"),
            ("SET SESSION work_mem = 1", "SET"),
            ("select 1; reset all", "RESET"),
            ("discard all", "DISCARD"),
            ("listen orders", "LISTEN"),
            ("prepare p as select 1", "PREPARE"),
            ("deallocate all", "DEALLOCATE"),
            ("load 'auto_explain'", "LOAD"),
        ] {
            assert_eq!(refused(sql), Some(Refused::Outlives(word)), "{sql}");
        }
    }

    #[test]
    fn what_does_not_is_let_through() {
        for sql in [
            "",
            "select 'commit'",
            "select 1 as commit",
            "select '; commit'",
            "select E'\\'; commit'",
            "select $$; commit; $$",
            "create function f() returns int language plpgsql as $f$ begin return 1; end; $f$",
            "select $1, '; end'",
            "-- ; commit\nselect 1",
            "/* ; commit */ select 1",
            "savepoint a; rollback to a; rollback work to savepoint a",
            "select \"; commit\"",
            "select case when true then 1 end",
            "set local work_mem = 1; set transaction read only; set constraints all deferred",
            "update t set a = 1",
            "select set_config('a.b', '1', true)",
            "select '",
            "/* open",
            "select $tag$ open",
            "select \u{e9}$",
        ] {
            assert_eq!(refused(sql), None, "{sql}");
        }
    }
}
