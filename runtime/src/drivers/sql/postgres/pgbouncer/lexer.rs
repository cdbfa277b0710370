//! Splits SQL into tokens as PostgreSQL's lexer (`scan.l`) does: finds the ends of statements and the keywords.

/// A token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A keyword or an unquoted name.
    Word(&'a str),
    Semicolon,
    Open,
    Close,
    /// A literal, a number, a quoted name, a parameter or an operator's character.
    Other,
}

impl<'a> Token<'a> {
    /// The word, or an empty string, which equals no keyword.
    pub(super) fn word(self) -> &'a str {
        match self {
            Self::Word(word) => word,
            _ => "",
        }
    }
}

/// The meaning of a backslash in a literal without a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backslash {
    /// A backslash: `standard_conforming_strings = on`, PostgreSQL's default.
    Itself,
    /// It escapes the next character: `standard_conforming_strings = off`.
    Escapes,
}

/// The tokens of a text, without comments.
pub(super) struct Tokens<'a> {
    rest: &'a str,
    backslash: Backslash,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(sql: &'a str, backslash: Backslash) -> Self {
        Self {
            rest: sql,
            backslash,
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.rest = after_space(self.rest);
        let text = self.rest;
        let mut bytes = text.bytes();
        let first = bytes.next()?;
        let is_prefix = bytes.next() == Some(b'\'');
        let (token, length) = match first {
            b';' => (Token::Semicolon, 1),
            b'(' => (Token::Open, 1),
            b')' => (Token::Close, 1),
            b'\'' => {
                let content = match self.backslash {
                    Backslash::Itself => Content::Plain,
                    Backslash::Escapes => Content::Escaped,
                };
                (Token::Other, literal(text, content))
            }
            b'e' | b'E' if is_prefix => (Token::Other, 1 + literal(&text[1..], Content::Escaped)),
            b'b' | b'B' | b'x' | b'X' if is_prefix => {
                (Token::Other, 1 + literal(&text[1..], Content::Bits))
            }
            b'"' => (Token::Other, quoted(text, b'"', Content::Plain)),
            b'$' => (Token::Other, dollar(text)),
            // Digits only: before PostgreSQL 15, the text directly after them is a token of its own.
            b'0'..=b'9' => (Token::Other, length_of(text, |byte| byte.is_ascii_digit())),
            _ if begins_word(first) => {
                let length = length_of(text, |byte| {
                    begins_word(byte) || byte.is_ascii_digit() || byte == b'$'
                });
                (Token::Word(&text[..length]), length)
            }
            _ => (Token::Other, 1),
        };
        self.rest = &text[length..];
        Some(token)
    }
}

/// The escapes in a quoted text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// A doubled quote is one quote.
    Plain,
    /// Like `Plain`, and a backslash escapes the next character.
    Escaped,
    /// No escapes.
    Bits,
}

fn begins_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || !byte.is_ascii()
}

/// The number of bytes at the beginning of `text` for which `of_it` returns `true`. It never splits a character: all
/// bytes of one that is not ASCII belong to a word.
fn length_of(text: &str, of_it: impl Fn(u8) -> bool) -> usize {
    let end = text.bytes().position(|byte| !of_it(byte));
    end.unwrap_or(text.len())
}

fn is_space(byte: u8) -> bool {
    // A vertical tab is a space from PostgreSQL 16 on, and an error before.
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0b' | b'\x0c')
}

fn is_newline(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// Skips spaces and comments.
fn after_space(mut text: &str) -> &str {
    loop {
        text = &text[length_of(text, is_space)..];
        if text.starts_with("--") {
            text = &text[length_of(text, |byte| !is_newline(byte))..];
        } else if text.starts_with("/*") {
            text = after_comment(text);
        } else {
            return text;
        }
    }
}

/// Skips a comment, which may contain other comments.
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

/// The length of the literal at the beginning, with its continuations on later lines. PostgreSQL reads them in the same
/// way as the first part.
fn literal(text: &str, content: Content) -> usize {
    let mut length = quoted(text, b'\'', content);
    while let Some(skipped) = continuation(&text[length..]) {
        length += skipped;
        length += quoted(&text[length..], b'\'', content);
    }
    length
}

/// The distance to the quote that continues a literal, after spaces and `--` comments with a newline.
fn continuation(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut newline = false;
    loop {
        match *bytes.get(at)? {
            b'\'' if newline => return Some(at),
            b'-' if bytes.get(at + 1) == Some(&b'-') => {
                at += length_of(&text[at..], |byte| !is_newline(byte));
            }
            byte if is_space(byte) => {
                newline |= is_newline(byte);
                at += 1;
            }
            _ => return None,
        }
    }
}

/// The length of the quoted text at the beginning, including its quotes.
fn quoted(text: &str, quote: u8, content: Content) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        if byte == b'\\' && content == Content::Escaped {
            at += text[at..].chars().next().map_or(0, char::len_utf8);
        } else if byte == quote {
            if content == Content::Bits || bytes.get(at) != Some(&quote) {
                return at;
            }
            at += 1;
        }
    }
    text.len()
}

/// The length of a token that begins with `$`: a parameter, a text in `$tag$`, or the character alone.
fn dollar(text: &str) -> usize {
    let after = &text[1..];
    let digits = length_of(after, |byte| byte.is_ascii_digit());
    if digits > 0 {
        return 1 + digits;
    }
    let tag = length_of(after, |byte| begins_word(byte) || byte.is_ascii_digit());
    if !after[tag..].starts_with('$') {
        return 1;
    }
    let delimiter = &text[..tag + 2];
    let content = &text[delimiter.len()..];
    let end = content.find(delimiter);
    end.map_or(text.len(), |at| at + 2 * delimiter.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words and semicolons of a text.
    fn words(sql: &str, backslash: Backslash) -> String {
        let words = Tokens::new(sql, backslash).filter_map(|token| match token {
            Token::Word(word) => Some(word),
            Token::Semicolon => Some(";"),
            _ => None,
        });
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn literals_end_where_postgresql_ends_them() {
        for (sql, expected) in [
            (r"select 'a\'; x", "select ; x"),
            (r"select E'a\'; x", "select"),
            (r"select e'a\\'; x", "select ; x"),
            (r"select E'a''\'; x'; y", "select ; y"),
            ("select E'a'\n'b\\''; x; --'", "select ; x ;"),
            ("select E'a' -- c\n -- d\n '\\''; x", "select ; x"),
            (r"select E'a' '\'; x", "select ; x"),
            ("select E'a' /* c\n */ '\\'; x", "select ; x"),
            (r"select nE'\'; x", "select nE ; x"),
            (r"select B'1''\'; x", "select ; x"),
            (r"select X'1'; x", "select ; x"),
            (r"select 1E'\''; x", "select ; x"),
            (r"select $1E'\''; x", "select ; x"),
            (r#"select "a""\"; x"#, "select ; x"),
            (r#"select U&"a\"; x"#, "select U ; x"),
            (r"select U&'a\'; x", "select U ; x"),
        ] {
            assert_eq!(words(sql, Backslash::Itself), expected, "{sql}");
        }
        for (sql, expected) in [
            (r"select 'a\'; x", "select"),
            (r"select 'a\''; x", "select ; x"),
            (r"select B'1''\'; x", "select"),
            (r"select B'\'; x", "select ; x"),
        ] {
            assert_eq!(words(sql, Backslash::Escapes), expected, "{sql}");
        }
    }

    #[test]
    fn comments_and_dollar_quotes_end_where_postgresql_ends_them() {
        for (sql, expected) in [
            ("a /* b /* c */ d */ e", "a e"),
            ("a /*/ b */ c", "a c"),
            ("a /* b **/ c", "a c"),
            ("a +/* b */ c", "a c"),
            ("a -- b\r c", "a c"),
            ("a $$ b; $$ c", "a c"),
            ("a $x$ b $$ $y$ $x$ c", "a c"),
            ("a $x$ b $x c $x$ d", "a d"),
            ("a $x b", "a x b"),
            ("a$$ b", "a$$ b"),
            ("a $1$$ b $$ c", "a c"),
            ("a \u{e9}$ b", "a \u{e9}$ b"),
            ("\u{a0}a", "\u{a0}a"),
            ("a\x0b\x0cb", "a b"),
            ("a /* open", "a"),
            ("a $x$ open", "a"),
            ("a 'open", "a"),
            ("a E'open\\", "a"),
        ] {
            assert_eq!(words(sql, Backslash::Itself), expected, "{sql}");
        }
    }
}
