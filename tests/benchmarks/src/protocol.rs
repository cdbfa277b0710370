//! What the pieces on the wire say, in the words of the protocols.

use crate::{bed::Product, wiretap::From};

/// Reads one direction of one connection, piece by piece.
#[derive(Debug)]
pub(crate) struct Reader {
    product: Product,
    from: From,
    /// From the first TLS record on, only records can be told apart.
    encrypted: bool,
    first: bool,
    /// PostgreSQL's `p` is the first and then the second answer of SCRAM.
    scram: usize,
    rest: Vec<u8>,
}

impl Reader {
    pub(crate) fn new(product: Product, from: From) -> Self {
        Self {
            product,
            from,
            encrypted: false,
            first: true,
            scram: 0,
            rest: Vec::new(),
        }
    }

    /// The messages that are complete with these bytes.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Vec<String> {
        self.rest.extend_from_slice(bytes);
        let mut said = Vec::new();
        while let Some((message, length)) = self.next() {
            self.rest.drain(..length);
            self.first = false;
            if said.last() != Some(&message) {
                said.push(message);
            }
        }
        said
    }

    fn next(&mut self) -> Option<(String, usize)> {
        let is_handshake = |bytes: &[u8]| matches!(bytes, [22, 3, _, _, _, 1 | 2, ..]);
        if self.encrypted || is_handshake(&self.rest) {
            self.encrypted = true;
            return tls_record(&self.rest);
        }
        match (self.product, self.from) {
            (Product::Postgres, From::Function) => self.postgres_function(),
            (Product::Postgres, From::Server) => self.postgres_server(),
            (Product::MariaDb, from) => self.mysql(from),
        }
    }

    fn postgres_function(&mut self) -> Option<(String, usize)> {
        if let [_, _, _, _, version @ ..] = self.rest.as_slice()
            && self.first
        {
            let ssl = version.starts_with(&80_877_103_u32.to_be_bytes());
            let length = big_endian(&self.rest, 0)?;
            if ssl {
                return Some(("SSLRequest".into(), length));
            }
        }
        if self.rest.first() == Some(&0) {
            let length = big_endian(&self.rest, 0)?;
            return (self.rest.len() >= length).then(|| ("Startup".into(), length));
        }
        let length = self.tagged()?;
        let name = match self.rest[0] {
            b'p' => {
                self.scram += 1;
                if self.scram == 1 {
                    "SASLInitialResponse"
                } else {
                    "SASLResponse"
                }
            }
            b'P' => "Parse",
            b'D' => "Describe",
            b'B' => "Bind",
            b'E' => "Execute",
            b'S' => "Sync",
            b'H' => "Flush",
            b'C' => "Close",
            b'Q' => {
                let text = String::from_utf8_lossy(&self.rest[5..length.saturating_sub(1)]);
                return Some((format!("Query `{}`", shortened(&text)), length));
            }
            b'X' => "Terminate",
            other => return Some((format!("message {}", char::from(other)), length)),
        };
        Some((name.into(), length))
    }

    fn postgres_server(&mut self) -> Option<(String, usize)> {
        if self.first && matches!(self.rest.as_slice(), [b'S' | b'N']) {
            let willing = self.rest[0] == b'S';
            return Some((if willing { "yes" } else { "no" }.into(), 1));
        }
        let length = self.tagged()?;
        let name = match self.rest[0] {
            b'R' => match big_endian(&self.rest, 5)? {
                0 => "AuthenticationOk",
                10 => "AuthenticationSASL",
                11 => "SASLContinue",
                12 => "SASLFinal",
                _ => "Authentication",
            },
            b'S' => "ParameterStatus",
            b'K' => "BackendKeyData",
            b'Z' => "ReadyForQuery",
            b'1' => "ParseComplete",
            b'2' => "BindComplete",
            b'3' => "CloseComplete",
            b't' => "ParameterDescription",
            b'T' => "RowDescription",
            b'D' => "DataRow",
            b'C' => "CommandComplete",
            b'n' => "NoData",
            b'N' => "Notice",
            b'E' => "Error",
            other => return Some((format!("message {}", char::from(other)), length)),
        };
        Some((name.into(), length))
    }

    /// The length of a message with a tag, once it is all there.
    fn tagged(&self) -> Option<usize> {
        let length = big_endian(&self.rest, 1)? + 1;
        (self.rest.len() >= length).then_some(length)
    }

    fn mysql(&self, from: From) -> Option<(String, usize)> {
        let [a, b, c, sequence, payload @ ..] = self.rest.as_slice() else {
            return None;
        };
        let size = usize::from(*a) | usize::from(*b) << 8 | usize::from(*c) << 16;
        let payload = payload.get(..size)?;
        let name = match (from, sequence, payload.first()) {
            (From::Server, 0, _) if self.first => "Greeting".into(),
            (From::Server, _, Some(0)) => "OK".into(),
            (From::Server, _, Some(0xff)) => "Error".into(),
            (From::Server, _, Some(0xfe)) => "EOF".into(),
            (From::Server, ..) => "rows".into(),
            // The short form of the login asks for TLS.
            (From::Function, 1, _) if self.first && size == 32 => "SSLRequest".into(),
            (From::Function, 1, _) if self.first => "HandshakeResponse".into(),
            (From::Function, 0, Some(0x01)) => "COM_QUIT".into(),
            (From::Function, 0, Some(0x03)) => {
                let text = String::from_utf8_lossy(payload.get(1..).unwrap_or_default());
                format!("COM_QUERY `{}`", shortened(&text))
            }
            (From::Function, 0, Some(0x0e)) => "COM_PING".into(),
            (From::Function, 0, Some(0x16)) => "COM_STMT_PREPARE".into(),
            (From::Function, 0, Some(0x17)) => "COM_STMT_EXECUTE".into(),
            (From::Function, 0, Some(0x19)) => "COM_STMT_CLOSE".into(),
            (From::Function, ..) => "authentication".into(),
        };
        Some((name, size + 4))
    }
}

fn tls_record(bytes: &[u8]) -> Option<(String, usize)> {
    let [kind, _, _, high, low, body @ ..] = bytes else {
        return None;
    };
    let size = usize::from(u16::from_be_bytes([*high, *low]));
    let body = body.get(..size)?;
    let name = match (kind, body.first()) {
        (22, Some(1)) => "TLS ClientHello",
        (22, Some(2)) => "TLS ServerHello",
        (22, _) => "TLS handshake",
        (20, _) => "TLS ChangeCipherSpec",
        (21, _) => "TLS alert",
        _ => "encrypted",
    };
    Some((name.into(), size + 5))
}

fn big_endian(bytes: &[u8], at: usize) -> Option<usize> {
    let four = bytes.get(at..at + 4)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(four)).ok()
}

/// A statement's first words: enough to know it by.
fn shortened(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() <= 48 {
        return text;
    }
    let start: String = text.chars().take(47).collect();
    format!("{start}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("short");
        [&[tag], &length.to_be_bytes()[..], body].concat()
    }

    #[test]
    fn a_message_counts_when_it_is_complete() {
        let mut reader = Reader::new(Product::Postgres, From::Function);
        let startup = [&[0, 0, 0, 12, 0, 3, 0, 0][..], b"user"].concat();
        assert_eq!(reader.read(&startup), ["Startup"]);
        let query = tagged(b'Q', b"SELECT  1\0");
        assert!(reader.read(&query[..7]).is_empty());
        assert_eq!(reader.read(&query[7..]), ["Query `SELECT 1`"]);
    }

    #[test]
    fn the_server_s_willingness_is_one_byte_and_then_there_are_records() {
        let mut reader = Reader::new(Product::Postgres, From::Server);
        assert_eq!(reader.read(b"S"), ["yes"]);
        assert_eq!(
            reader.read(&[22, 3, 3, 0, 2, 2, 0, 20, 3, 3, 0, 1, 1]),
            ["TLS ServerHello", "TLS ChangeCipherSpec"]
        );
    }

    #[test]
    fn mysql_s_commands_are_told_apart() {
        let mut reader = Reader::new(Product::MariaDb, From::Function);
        assert_eq!(reader.read(&[1, 0, 0, 1, 9]), ["HandshakeResponse"]);
        assert_eq!(
            reader.read(&[2, 0, 0, 0, 3, b'x', 1, 0, 0, 0, 1]),
            ["COM_QUERY `x`", "COM_QUIT"]
        );
    }
}
