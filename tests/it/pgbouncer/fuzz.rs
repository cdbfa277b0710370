//! Text that the filter accepts does not end the transaction, as verified with PostgreSQL itself.
//!
//! `DB_HANDLER_FUZZ_CASES` sets the number of texts, `DB_HANDLER_FUZZ_SEED` the random seed.

use crate::pgbouncer::{rds::straight, world::event};
use db_handler::{
    Error, LambdaEvent, PgBouncerTransaction, db_handler,
    sqlx::{self, AssertSqlSafe, Connection, Executor, PgConnection},
};
use std::{env, str::FromStr};
use support::postgres;

const CASES: u64 = 2_000;
const AT_ONCE: u64 = 200;

/// Parts of literals, names and comments.
const PIECES: [&str; 44] = [
    "'", "'", "'", "''", "\\", "\\'", "\\\\", "E'", "e'", "E''", "B'", "B'1'", "x'", "N'", "U&'",
    "U&\"", "\"", "\"\"", "$$", "$a$", "$A$", "$1", "$", "a$", "--", "-- x\n", "\n", "\r", " ",
    "/*", "*/", "/", "*", "-", "1E", "1", "a", ",", "(", ")", "\u{e9}", "\x0b", "||", "as ",
];
/// Statements, and the beginnings or ends of some.
const STATEMENTS: [&str; 24] = [
    "select 1",
    "select ",
    "select 'a'",
    "commit",
    "; commit",
    ";commit;",
    "; commit; --'",
    "; commit; --\"",
    "; commit; /*",
    "; commit; $$",
    "end",
    "; end",
    "; rollback",
    "; abort",
    "rollback to f",
    "; rollback work",
    "; prepare transaction 'a'",
    "create function f() returns int ",
    "create or replace procedure p(a int) ",
    "language sql ",
    "begin atomic ",
    "begin atomic select 1; end",
    "select case when true then 1 end",
    "savepoint g",
];

/// Literals that are complete under at least one setting, and separators between them.
const LITERALS: [&str; 22] = [
    "'a'",
    "'\\'",
    "'\\''",
    "'b\\''",
    "''''",
    "E'a'",
    "E'\\''",
    "E'\\\\'",
    "e'a''b'",
    "N'\\'",
    "B'1'",
    "X'1'",
    "U&'a'",
    "$$;$$",
    "$a$'$a$",
    "$a$ $b$ ' $a$",
    "\"c\"",
    "\"c\"\"\"",
    "1",
    "1E1",
    "/* ' */ 1",
    "(select 'a')",
];
const BETWEEN: [&str; 11] = [
    ", ",
    ", ",
    ", ",
    "||",
    ",\n",
    " -- '\n, ",
    " /* c */, ",
    "\n",
    "\r",
    "",
    "; select ",
];
const TAILS: [&str; 9] = [
    "; commit; --'",
    "; commit; --\"",
    "; commit",
    "'; commit; --'",
    "'; end",
    " as x; rollback; /*",
    " as x; rollback; -- /*",
    "",
    "",
];

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).expect("31 bits") % bound
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }

    fn text(&mut self) -> String {
        let mut text = String::new();
        if self.below(2) == 0 {
            text += "select ";
            for _ in 0..=self.below(4) {
                text += self.of(&LITERALS);
                text += self.of(&BETWEEN);
            }
            text += self.of(&LITERALS);
            return text + self.of(&TAILS);
        }
        if self.below(4) > 0 {
            text += "select ";
        }
        for _ in 0..=self.below(8) {
            text += match self.below(3) {
                0 => self.of(&STATEMENTS),
                _ => self.of(&PIECES),
            };
        }
        if self.below(2) == 0 {
            text += self.of(&TAILS);
        }
        text
    }
}

/// The effect of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Refused,
    /// The server executed or rejected it, and the transaction is still open.
    Stands {
        executed: bool,
    },
}

/// Whether backslashes are always escapes, and the texts to try.
type Texts = (bool, Vec<String>);

const NOW: &str = "select now()::text";

fn setting(escapes: bool) -> &'static str {
    if escapes {
        "set local standard_conforming_strings = off"
    } else {
        "set local standard_conforming_strings = on"
    }
}

#[db_handler(proxy = "rds", credentials = straight)]
async fn try_all(
    event: LambdaEvent<Texts>,
    db: &mut PgBouncerTransaction,
) -> Result<Vec<Fate>, Error> {
    let (escapes, texts) = event.payload;
    sqlx::raw_sql(setting(escapes)).execute(&mut *db).await?;
    let begun: String = sqlx::query_scalar(NOW).fetch_one(&mut *db).await?;
    let mut fates = Vec::new();
    for text in texts {
        sqlx::raw_sql("savepoint f").execute(&mut *db).await?;
        let ended = text.clone();
        let done = sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *db).await;
        if let Err(error) = &done
            && error.to_string().contains("would end the one transaction")
        {
            fates.push(Fate::Refused);
            continue;
        }
        // Fails outside a transaction.
        let undone = sqlx::raw_sql("rollback to f").execute(&mut *db).await;
        let now = sqlx::query_scalar::<_, String>(NOW)
            .fetch_one(&mut *db)
            .await;
        if undone.is_err() || now.ok().as_ref() != Some(&begun) {
            return Err(Error::other(format!("{ended:?} ended the transaction")));
        }
        let executed = done.is_ok();
        fates.push(Fate::Stands { executed });
    }
    Ok(fates)
}

/// Whether `text` ends a transaction if it is not filtered.
async fn ends(connection: &mut PgConnection, escapes: bool, text: &str) -> bool {
    let begin = format!("begin; {}", setting(escapes));
    connection
        .execute(AssertSqlSafe(begin))
        .await
        .expect("begins");
    let _ = sqlx::raw_sql(AssertSqlSafe(text.to_owned()))
        .execute(&mut *connection)
        .await;
    // Outside a transaction, the error code is `25P01`.
    let stands = connection.execute("rollback to nowhere").await;
    let code = stands.expect_err("no such savepoint");
    let code = code
        .as_database_error()
        .and_then(|error| error.code().map(String::from));
    connection.execute("rollback").await.expect("rolls back");
    code.as_deref() == Some("25P01")
}

fn from_environment(variable: &str, otherwise: u64) -> u64 {
    env::var(variable).map_or(otherwise, |value| u64::from_str(&value).expect("a number"))
}

#[tokio::test]
async fn accepted_text_does_not_end_transaction() {
    support::alone();
    let cases = from_environment("DB_HANDLER_FUZZ_CASES", CASES);
    let seed = from_environment("DB_HANDLER_FUZZ_SEED", 20_261_124);
    let mut random = Random(seed.max(1));
    let _ = straight().await;
    let mut plain = PgConnection::connect(&postgres().url())
        .await
        .expect("connects");
    let (mut refused, mut rightly, mut executed, mut rejected) = (0, 0, 0, 0);
    for round in 0..cases.div_ceil(AT_ONCE) {
        let escapes = round % 2 == 1;
        let texts: Vec<String> = (0..AT_ONCE).map(|_| random.text()).collect();
        let fates = try_all(event((escapes, texts.clone()))).await;
        let fates = fates.unwrap_or_else(|error| panic!("seed {seed}, round {round}: {error}"));
        for (text, fate) in texts.iter().zip(fates) {
            match fate {
                Fate::Stands { executed: true } => executed += 1,
                Fate::Stands { executed: false } => rejected += 1,
                Fate::Refused => {
                    refused += 1;
                    rightly += u64::from(ends(&mut plain, escapes, text).await);
                }
            }
        }
    }
    println!(
        "seed {seed}: {executed} executed, {rejected} rejected by the server, {refused} refused, of which {rightly} would have ended it"
    );
    assert!(
        rightly > cases / 50 && executed > cases / 50,
        "the texts are worth trying"
    );
}
