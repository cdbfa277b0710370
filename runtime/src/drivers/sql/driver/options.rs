//! What a database's connect options, and its URLs, have to say for themselves.

use crate::credentials::{Secret, Target};

/// How the connect options of one database take what is not in the URL.
pub trait Identify: Sized {
    /// What its URLs call the parts of TLS.
    const TLS: &'static TlsWords;

    /// What the URL said about the way to the server.
    fn target(&self, variable: &'static str, written: &Written) -> Target;

    /// Puts what `secret` holds over what the URL said.
    fn with_secret(self, secret: &Secret) -> Self;

    /// Whether the server is on this machine.
    fn is_local(&self) -> bool;

    /// How strictly the connection is encrypted.
    fn tls_mode(&self) -> TlsMode;

    /// The same, encrypted as `mode` says, which is [`TlsMode::Require`] at least.
    fn with_tls_mode(self, mode: TlsMode) -> Self;

    /// The same, letting the server ask for the password itself, as it does for what it cannot compare
    /// with a hash.
    fn revealing_password(self) -> Self {
        self
    }

    /// Whether another server could pass for the one that is meant.
    fn skips_server_verification(&self) -> bool {
        self.tls_mode() < TlsMode::VerifyCa && !self.is_local()
    }
}

/// What a URL says, whatever defaults sqlx has for the rest, and what the variables say that sqlx reads, too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    pub(in crate::drivers::sql) host: bool,
    pub(in crate::drivers::sql) user: bool,
    pub(in crate::drivers::sql) tls: WrittenTls,
}

/// How strictly, from the weakest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsMode {
    /// In plain text.
    Disable,
    /// Encrypted if the server offers it.
    Prefer,
    /// Encrypted, whoever the server is.
    Require,
    /// The server's certificate is signed by an authority that is trusted.
    VerifyCa,
    /// The certificate bears the server's name, too.
    VerifyFull,
}

/// What one database calls it in its URLs.
#[derive(Debug)]
pub struct TlsWords {
    /// The parameters for the mode, the usual one first.
    pub(in crate::drivers::sql) mode: &'static [&'static str],
    /// The values of that parameter.
    pub(in crate::drivers::sql) modes: &'static [&'static str],
    /// The value for plain text.
    pub(in crate::drivers::sql) disable: &'static str,
    /// The value for a verified name.
    pub(in crate::drivers::sql) verify: &'static str,
    /// The value for a verified authority, and any name.
    pub(in crate::drivers::sql) verify_ca: &'static str,
    /// The parameters for a file with the authorities.
    pub(in crate::drivers::sql) root: &'static [&'static str],
    /// The parameters for a file that the client proves itself with.
    pub(in crate::drivers::sql) client: &'static [&'static str],
}

/// What is written about TLS, in the URL or in the environment variables that sqlx reads, too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::drivers::sql) struct WrittenTls {
    pub(in crate::drivers::sql) mode: Option<WrittenMode>,
    pub(in crate::drivers::sql) root: Option<CertificateFile>,
    pub(in crate::drivers::sql) client: Vec<CertificateFile>,
}

/// A mode, and where it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::drivers::sql) struct WrittenMode {
    pub(in crate::drivers::sql) parameter: String,
    pub(in crate::drivers::sql) value: String,
}

/// A file, and where it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::drivers::sql) struct CertificateFile {
    pub(in crate::drivers::sql) parameter: String,
    pub(in crate::drivers::sql) path: String,
}

impl TlsWords {
    /// Of a database that is not reached over a network.
    #[cfg(feature = "sqlite")]
    pub(in crate::drivers::sql) const NONE: Self = Self {
        mode: &[],
        modes: &[],
        disable: "",
        verify: "",
        verify_ca: "",
        root: &[],
        client: &[],
    };

    pub(in crate::drivers::sql) fn mode_name(&self) -> &'static str {
        self.mode.first().copied().unwrap_or_default()
    }

    pub(in crate::drivers::sql) fn root_name(&self) -> &'static str {
        self.root.first().copied().unwrap_or_default()
    }

    /// Whether `key` is one of its parameters.
    pub(in crate::drivers::sql) fn has(&self, key: &str) -> bool {
        [self.mode, self.root, self.client].concat().contains(&key)
    }
}

impl WrittenTls {
    /// Takes note of what `key` is about, if that is TLS. It is written as `parameter`.
    pub(in crate::drivers::sql) fn read(
        &mut self,
        words: &TlsWords,
        key: &str,
        parameter: &str,
        value: &str,
    ) {
        let (parameter, value) = (parameter.to_owned(), value.to_owned());
        if words.mode.contains(&key) {
            self.mode = Some(WrittenMode { parameter, value });
        } else if words.root.contains(&key) {
            self.root = Some(CertificateFile {
                parameter,
                path: value,
            });
        } else if words.client.contains(&key) {
            self.client.push(CertificateFile {
                parameter,
                path: value,
            });
        }
    }

    /// Whether the mode is one that there is: sqlx passes over a variable that it cannot read.
    ///
    /// # Errors
    /// Where it is written, and what may be.
    pub(in crate::drivers::sql) fn check(&self, words: &TlsWords) -> Result<(), String> {
        let is_mode = |value: &str| {
            words
                .modes
                .iter()
                .any(|mode| mode.eq_ignore_ascii_case(value))
        };
        match &self.mode {
            Some(mode) if !is_mode(&mode.value) => Err(format!(
                "`{}` is none of {}",
                mode.parameter,
                words.modes.join(", ")
            )),
            _ => Ok(()),
        }
    }
}
