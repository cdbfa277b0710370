//! Connect options, and the parts of a URL that they come from.

use crate::credentials::{Secret, Target};

/// How a database's connect options take values from outside the URL.
pub trait Identify: Sized {
    /// The names of the TLS parameters in its URLs.
    const TLS: &'static TlsWords;

    /// Where the options lead, according to the URL.
    fn target(&self, variable: &'static str, written: &UrlParts) -> Target;

    /// Overrides the URL's values with those of `secret`.
    fn with_secret(self, secret: &Secret) -> Self;

    /// Whether the server is on this machine.
    fn is_local(&self) -> bool;

    /// How strictly the connection is encrypted and verified.
    fn tls_mode(&self) -> TlsMode;

    /// Returns the options with TLS as in `mode`, which is at least [`TlsMode::Require`].
    fn with_tls_mode(self, mode: TlsMode) -> Self;

    /// Returns options that send the password itself, for servers that cannot compare it with a hash.
    fn revealing_password(self) -> Self {
        self
    }

    /// Whether another server could impersonate the intended one.
    fn skips_server_verification(&self) -> bool {
        self.tls_mode() < TlsMode::VerifyCa && !self.is_local()
    }
}

/// What the URL sets, without sqlx's defaults, and what the environment variables set that sqlx also reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UrlParts {
    pub(in crate::drivers::sql) host: bool,
    pub(in crate::drivers::sql) user: bool,
    pub(in crate::drivers::sql) tls: TlsParts,
}

/// TLS modes, from the weakest to the strictest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsMode {
    /// Plain text.
    Disable,
    /// Encrypted if the server offers it.
    Prefer,
    /// Encrypted, without verifying the server.
    Require,
    /// The server's certificate is signed by a trusted authority.
    VerifyCa,
    /// The certificate also contains the server's name.
    VerifyFull,
}

/// The names of the TLS parameters and values in one database's URLs.
#[derive(Debug)]
pub struct TlsWords {
    /// The parameters for the mode, the usual one first.
    pub(in crate::drivers::sql) mode: &'static [&'static str],
    /// The values of the mode.
    pub(in crate::drivers::sql) modes: &'static [&'static str],
    /// The value for plain text.
    pub(in crate::drivers::sql) disable: &'static str,
    /// The value that verifies the server's name.
    pub(in crate::drivers::sql) verify: &'static str,
    /// The value that verifies the authority only.
    pub(in crate::drivers::sql) verify_ca: &'static str,
    /// The parameters for a file with trusted authorities.
    pub(in crate::drivers::sql) root: &'static [&'static str],
    /// The parameters for a client certificate or its key.
    pub(in crate::drivers::sql) client: &'static [&'static str],
}

/// The TLS settings in the URL, or in the environment variables that sqlx also reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::drivers::sql) struct TlsParts {
    pub(in crate::drivers::sql) mode: Option<TlsModePart>,
    pub(in crate::drivers::sql) root: Option<CertificateFile>,
    pub(in crate::drivers::sql) client: Vec<CertificateFile>,
}

/// A mode, and the parameter that sets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::drivers::sql) struct TlsModePart {
    pub(in crate::drivers::sql) parameter: String,
    pub(in crate::drivers::sql) value: String,
}

/// A file, and the parameter that sets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::drivers::sql) struct CertificateFile {
    pub(in crate::drivers::sql) parameter: String,
    pub(in crate::drivers::sql) path: String,
}

impl TlsWords {
    /// For a database without a network.
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

impl TlsParts {
    /// Stores `value` if `key` is a TLS parameter. `parameter` is its name as written.
    pub(in crate::drivers::sql) fn read(
        &mut self,
        words: &TlsWords,
        key: &str,
        parameter: &str,
        value: &str,
    ) {
        let (parameter, value) = (parameter.to_owned(), value.to_owned());
        if words.mode.contains(&key) {
            self.mode = Some(TlsModePart { parameter, value });
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

    /// Checks that the mode is valid: sqlx ignores an invalid value in an environment variable.
    ///
    /// # Errors
    /// Names the parameter and its valid values.
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
